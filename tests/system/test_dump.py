#!/usr/bin/env python3
"""mendctl dump: every structure of an unmounted image, whole or damaged."""
import hashlib
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, program, run

try:
    import schema
except ImportError:
    schema = None

TREES = ("inodes dirents parents extents xattrs rmap free badblocks lost damaged orphans intents ledger_copy").split()


def dump(image, *words):
    done = run(program("mendctl"), "dump", image, *words, "--json")
    answer = json.loads(done.stdout)
    if schema:
        schema.validate("dump", answer)
    return answer["structures"]


class Dump(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.make_image("32M")
        self.mount = harness.Mount(self.image, os.path.join(self.folder, "mnt"))
        self.addCleanup(self.mount.umount)
        os.mkdir(self.mount.path("dir"))
        for i in range(60):
            with open(self.mount.path("dir", f"file{i}"), "wb") as file:
                file.write(bytes([i + 1]) * 5000)
        os.link(self.mount.path("dir", "file0"), self.mount.path("second name"))
        os.symlink("where/it/points", self.mount.path("link"))
        os.setxattr(self.mount.path("second name"), "user.colour", b"blue")
        self.inode = os.stat(self.mount.path("second name")).st_ino

    def digest(self):
        with open(self.image, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def test_every_structure_is_printed_and_nothing_is_written(self):
        self.mount.kill()
        before = self.digest()
        self.assertEqual([item["slot"] for item in dump(self.image, "super")], list(range(8)))
        counters = {item["counter"]: item["value"] for item in dump(self.image, "root")[0]["counters"]}
        self.assertEqual(counters["inodes"], 63)
        journal = dump(self.image, "journal", "--records")
        self.assertEqual([item["type"] for item in journal[:2]], ["journal_head"] * 2)
        self.assertGreater(len(journal), 2)
        self.assertEqual(len(dump(self.image, "tree", "inodes")), 63)
        self.assertEqual(len(dump(self.image, "tree", "dirents", "--limit", "7")), 7)
        self.assertEqual(dump(self.image, "tree", "inodes", "--from", str(self.inode))[0]["inumber"], self.inode)
        for chunk in dump(self.image, "chunks"):
            self.assertTrue(dump(self.image, "chunk", str(chunk["chunk"])))
        for words in [("poison-log",), ("block", "0"), ("device-offset", "0"), *(("tree", name) for name in TREES)]:
            dump(self.image, *words)
            run(program("mendctl"), "dump", self.image, *words, "--raw")
        self.assertEqual(self.digest(), before)

    def test_an_inode_has_its_names_and_extents(self):
        self.mount.umount()
        found = dump(self.image, "inode", str(self.inode))
        self.assertEqual(sorted(item["name"] for item in found if item["type"] == "parent"), ["file0", "second name"])
        self.assertEqual([item["blocks"] for item in found if item["type"] == "extent"], [2])
        self.assertEqual([item["size_bytes"] for item in found if item["type"] == "inode"], [5000])
        found = dump(self.image, "tree", "xattrs")
        self.assertEqual([item["target"] for item in found if "target" in item], ["where/it/points"])
        self.assertEqual([(item["name"], item["value_length"], item["value"]) for item in found if "name" in item], [("user.colour", 4, "blue")])

    def blocks(self, tree):
        found = [block for chunk in dump(self.image, "chunks") for block in dump(self.image, "chunk", str(chunk["chunk"]))]
        return [block for block in found if block.get("tree") == tree]

    def overwrite(self, *offsets):
        with open(self.image, "r+b") as file:
            for offset in offsets:
                file.seek(offset)
                file.write(b"\xa5" * BLOCK)

    def test_a_damaged_copy_is_told_and_the_other_one_shown(self):
        self.mount.umount()
        block = self.blocks("extents")[0]
        self.overwrite(block["copies"][0]["device_offset"])
        found = dump(self.image, "block", str(block["address"]))
        self.assertEqual([copy["state"] for copy in found[0]["copies"]], ["damaged", "whole"])
        self.assertEqual(found[0]["from"], "replica")
        self.assertGreater(len(found), 1)
        where = dump(self.image, "device-offset", str(block["copies"][1]["device_offset"] + 100))
        self.assertEqual([item["address"] for item in where if item["type"] == "block"], [block["address"]])

    def test_a_tree_is_shown_around_a_leaf_that_is_lost(self):
        self.mount.umount()
        leaf = [block for block in self.blocks("inodes") if block["level"] == 0][0]
        self.overwrite(*(copy["device_offset"] for copy in leaf["copies"]))
        found = dump(self.image, "tree", "inodes")
        self.assertEqual([item["address"] for item in found if item["type"] == "missing_node"], [leaf["address"]])
        self.assertEqual(len([item for item in found if item["type"] == "inode"]), 63 - leaf["count"])

    def test_without_a_root_block_what_lies_there_is_shown(self):
        self.mount.umount()
        root = dump(self.image, "root")[0]
        self.overwrite(*(copy["device_offset"] for copy in root["copies"]))
        self.assertEqual([copy["state"] for copy in dump(self.image, "root")[0]["copies"]], ["damaged", "damaged"])
        self.assertTrue([item for item in dump(self.image, "chunks") if item["state"] == "live"])
        self.assertEqual([item["type"] for item in dump(self.image, "tree", "inodes")], ["missing_node"])

    def test_a_mounted_one_and_mistakes_are_refused(self):
        done = run(program("mendctl"), "dump", self.mount.directory, "root", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("unmount it first", done.stderr)
        done = run(program("mendctl"), "dump", self.image, "root", check=False)
        self.assertEqual(done.returncode, 1)
        self.mount.umount()
        for words in (("nothing",), ("block",), ("tree", "no"), ("chunk", "x"), ("root", "3"), ("root", "--limit", "3"), ("super", "9"), ("chunk", "999"),
                      ("block", "77777777"), ("inode", "424242"), ("device-offset", "1T")):
            done = run(program("mendctl"), "dump", self.image, *words, check=False)
            self.assertIn(done.returncode, (1, 2), words)
            self.assertEqual(done.stdout, "", words)
            self.assertEqual(len(done.stderr.splitlines()), 1, words)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
