"""docs/ADMIN.md as what it is: commands, the files they need, and what is printed.

  ```sh            is run, exactly as printed; ```sh fails: it must fail
  ```sh not-run    cannot be run here: its first line must be in the guide's list of what was not run
  ```text          what the block before it prints: numbers and identifiers may differ, `...` stands for anything
  ```ini, ```conf  a file, whose first line is a comment with its path; what is there already is kept
  <!-- guest: ...  what happens to the machine meanwhile, for the test only
"""
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
GUIDE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs", "ADMIN.md")
NOT_RUN = "## What was not run"
FENCE = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```$|^<!-- guest:\n(.*?)^-->$", re.M | re.S)
KINDS = {("sh", None): "run", ("sh", "fails"): "fails", ("sh", "not-run"): "not-run", ("text", None): "prints", ("ini", None): "file", ("conf", None): "file"}


class GuideError(Exception):
    """The guide breaks the rules above."""


class Block:
    def __init__(self, kind, text, line):
        self.kind, self.text, self.line = kind, text, line

    def path(self):
        """Of a file: where it belongs."""
        match = re.match(r"# (/\S+)\n|#!/bin/sh\n# (/\S+)\n", self.text)
        if not match:
            raise GuideError(f"line {self.line}: a file whose first line is no comment with its path")
        return match[1] or match[2]


def blocks_of(text):
    found, fences = [], 0
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match[4] is not None:
            found.append(Block("guest", match[4], line))
            continue
        fences += 2
        kind = KINDS.get((match[1], match[2]))
        if not kind:
            raise GuideError(f"line {line}: ```{match[1]} {match[2] or ''} means nothing")
        found.append(Block(kind, match[3], line))
    if len(re.findall(r"^```", text, re.M)) != fences:
        raise GuideError("a block that does not begin or end as it should")
    return found


def read(path=GUIDE):
    """The guide's blocks, once they keep the rules."""
    with open(path) as file:
        text = file.read()
    blocks = blocks_of(text)
    listed = text[text.index(NOT_RUN):] if NOT_RUN in text else ""
    for before, block in zip([None, *blocks], blocks):
        if block.kind == "not-run" and block.text.splitlines()[0] not in listed:
            raise GuideError(f"line {block.line}: it is not run, and \"{NOT_RUN}\" does not say so")
        if block.kind == "prints" and (not before or before.kind not in ("run", "fails", "not-run")):
            raise GuideError(f"line {block.line}: output of no command")
        if block.kind == "file":
            block.path()
    return blocks


def files(blocks):
    """For the image: name and content, in the order of the guide. What a block that is not run prints is not compared."""
    out, previous = {}, None
    for number, block in enumerate(blocks):
        is_compared = block.kind != "prints" or previous != "not-run"
        if block.kind != "not-run" and is_compared:
            head = f"{block.path()}\n" if block.kind == "file" else ""
            out[f"{number:03}-line-{block.line}.{block.kind}"] = head + block.text
        previous = block.kind
    return out
