#!/usr/bin/env python3
"""Broken twins: the sources with one line wrong, each of which some test must catch.

  twins.py --build DIR            make and run every twin; exit 1 when one is not caught
  twins.py --build DIR NAME...    these only (the beginning of a name is enough)
  twins.py --list                 their names, and what must catch each
  twins.py --verify               every place that makes stores durable has a twin, every twin its line: run by the build

A twin is one source file with one place changed, compiled alone and linked before the libraries of a test program, so that only that object differs. It
is caught when the program ends with a failure (not when it does not build, and not when it runs out of time).
"""
import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
from table import BARRIERS, RULES  # noqa: E402

FOLDERS = ("alloc", "btree", "fs", "fsck", "journal", "mkfs", "notify", "rmap")
CALL = re.compile(r"\b(media_drain|media_sync|log_barrier|repair_barrier)\(")
DEFINITIONS = {"log_barrier", "repair_barrier"}
TIMEOUT = 300


def call_end(text, start):
    """Behind the closing parenthesis of the call whose opening one ends at `start`."""
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[start], 0)
        start += 1
    return start


def function_at(text, position):
    """The name of the function around this position: functions begin in the first column."""
    heads = re.findall(r"^(?:[a-z][\w *]*?)\b(\w+)\([^;]*?\)\n\{", text[:position], re.M)
    return heads[-1]


def barriers():
    """Every call that makes stores durable, by name file:function:n, with its place in the text."""
    found = {}
    for folder in FOLDERS:
        for file in sorted(os.listdir(os.path.join(ROOT, folder))):
            if not file.endswith(".c"):
                continue
            path = f"{folder}/{file}"
            with open(os.path.join(ROOT, path)) as source:
                text = source.read()
            for match in CALL.finditer(text):
                line = text[text.rfind("\n", 0, match.start()) + 1:match.start()]
                if re.match(r"^\w", line) or line.lstrip().startswith(("*", "/*")):
                    continue  # its definition, or a comment
                function = function_at(text, match.start())
                number = 1 + sum(name.startswith(f"{path}:{function}:") for name in found)
                found[f"{path}:{function}:{number}"] = (path, text, match)
    return found


def barrier_twin(path, text, match):
    """The call does nothing and says that all is well."""
    end = call_end(text, match.end())
    arguments = text[match.end():end - 1]
    call = f"((void)({arguments}))" if match.group(1) == "media_drain" else f"((void)({arguments}), 0)"
    return path, text[:match.start()] + call + text[end:]


def rule_twin(rule):
    with open(os.path.join(ROOT, rule["file"])) as source:
        text = source.read()
    for old, new in rule.get("edits") or [(rule["old"], rule["new"])]:
        if text.count(old) != 1:
            raise SystemExit(f"twins: {rule['name']}: {rule['file']} has its line {text.count(old)} times, not once: "
                             "the code has changed, so must the twin")
        text = text.replace(old, new)
    return rule["file"], text


def twins():
    """name -> (maker of (path, text), command that must catch it)"""
    table = {}
    for name, place in barriers().items():
        if name in BARRIERS:
            table[name] = (lambda place=place: barrier_twin(*place), BARRIERS[name])
    for rule in RULES:
        table[rule["name"]] = (lambda rule=rule: rule_twin(rule), rule["caught_by"])
    return table


def verify():
    there, known = set(barriers()), set(BARRIERS)
    for name in sorted(there - known):
        print(f"twins: {name} makes stores durable, and nothing says what fails without it: add it to tests/twins/table.py", file=sys.stderr)
    for name in sorted(known - there):
        print(f"twins: {name} is in tests/twins/table.py, but not in the sources", file=sys.stderr)
    for rule in RULES:
        rule_twin(rule)
    return 1 if there != known else 0


class Build:
    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        with open(os.path.join(self.folder, "compile_commands.json")) as file:
            self.compilations = {os.path.relpath(one["file"], ROOT): one["command"] for one in json.load(file)}
        self.links = {}

    def compile(self, path, text, into):
        source = os.path.join(into, os.path.basename(path))
        with open(source, "w") as file:
            file.write(text)
        words = shlex.split(self.compilations[path])
        words[words.index("-o") + 1] = os.path.join(into, "twin.o")
        words[words.index("-c") + 1] = source
        words = [word for word in words if word != "-Werror"]
        words += ["-iquote", os.path.join(ROOT, os.path.dirname(path))]
        subprocess.run(words, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return os.path.join(into, "twin.o")

    def link_words(self, program):
        if program not in self.links:
            target = f"tests/{program}"
            text = subprocess.run(["ninja", "-C", self.folder, "-t", "commands", "-s", target], check=True, capture_output=True,
                                  text=True).stdout
            line = [line for line in text.splitlines() if f"-o {target}" in line][-1]
            self.links[program] = shlex.split(re.sub(r"^: && | && :$", "", line))
        return list(self.links[program])

    def link(self, program, twin, into):
        words = self.link_words(program)
        words[words.index("-o") + 1] = os.path.join(into, program)
        first = next(i for i, word in enumerate(words) if word.endswith(".a") or word.startswith("-l"))
        words.insert(first, twin)
        subprocess.run(words, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return os.path.join(into, program)


def run_limited(command, env):
    """(exit status, or None when time ran out; what it said). Its children go with it."""
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", start_new_session=True)
    try:
        text, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, text
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, "ran out of time"


def is_caught(build, path, text, command):
    """(caught?, the last line that was said)"""
    words = shlex.split(command)
    settings = [word for word in words if re.match(r"^[A-Z_]+=", word)]
    program, *arguments = [word for word in words if word not in settings]
    with tempfile.TemporaryDirectory(prefix="mendfs-twin.") as into:
        built = build.link(program, build.compile(path, text, into), into)
        env = dict(os.environ, **dict(word.split("=", 1) for word in settings))
        status, text = run_limited([built, *arguments], env)
    said = [line for line in text.splitlines() if line.strip()]
    return status not in (0, None), said[-1] if said else ""


def run(build, names):
    chosen = {name: twin for name, twin in twins().items() if not names or any(name.startswith(one) for one in names)}
    missed = 0
    begin = time.monotonic()
    for name, (make, commands) in chosen.items():
        for command in commands if isinstance(commands, list) else [commands]:
            caught, said = is_caught(build, *make(), command)
            missed += not caught
            print(f"{'caught' if caught else 'NOT CAUGHT'}: {name} by {command}" + ("" if caught else f": {said}"), flush=True)
    print(f"sample: broken twins: {len(chosen)} in {time.monotonic() - begin:.0f} s, {missed} not caught")
    print(f"Ran {len(chosen)} tests in {time.monotonic() - begin:.1f}s\n\n" + (f"FAILED (failures={missed})" if missed else "OK"))
    return 1 if missed or not chosen else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    if options.verify:
        return verify()
    if options.list:
        for name, (_, command) in twins().items():
            print(f"{name}: {command}")
        return 0
    if not options.build:
        parser.error("--build DIR, --list or --verify")
    return run(Build(options.build), options.names)


if __name__ == "__main__":
    sys.exit(main())
