#!/usr/bin/env python3
"""fsck.mendfs: a check that writes nothing, with the exit codes of fsck(8)."""
import hashlib
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import program, run

try:
    import schema
except ImportError:
    schema = None


def fsck(*arguments):
    return run(program("fsck.mendfs"), *arguments, check=False)


class Fsck(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.make_image("32M")

    def digest(self):
        with open(self.image, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def populated(self):
        mount = harness.Mount(self.image, os.path.join(self.folder, "mnt"))
        self.addCleanup(mount.umount)
        for i in range(50):
            with open(mount.path(f"file{i}"), "wb") as file:
                file.write(bytes([i + 1]) * 5000)
        return mount

    def test_a_clean_image_is_clean_also_with_a_dirty_journal_and_nothing_is_written(self):
        self.populated().kill()
        before = self.digest()
        done = fsck("-f", "-n", "-v", self.image)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("51 inodes", done.stdout)
        self.assertEqual(self.digest(), before)

    def test_json_is_as_the_schema_says(self):
        done = fsck("--json", self.image)
        self.assertEqual(done.returncode, 0)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["findings"], [])
        if schema:
            schema.validate("check", answer)

    def test_damage_is_told_and_left_alone(self):
        self.populated().umount()
        live = [owner for owner in harness.mendctl_json("owners", self.image, "--all", "--kind", "metadata")
                if owner["live"] and owner["tree"] == "rmap" and owner["copy"] == "primary"][0]
        with open(self.image, "r+b") as file:
            for offset in (live["device_offset"], live["peer_offset"]):
                os.pwrite(file.fileno(), b"garbage", offset + 500)
        before = self.digest()
        done = fsck("-y", self.image)
        self.assertEqual(done.returncode, 4, done.stdout + done.stderr)
        self.assertIn("left as they are", done.stdout)
        self.assertEqual(self.digest(), before)

    def test_a_mounted_or_foreign_target_is_refused(self):
        self.populated()
        for target in (self.image, "/etc/passwd", "/nonexistent"):
            done = fsck(target)
            self.assertEqual((done.returncode, done.stdout), (8, ""), done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1)
        self.assertEqual(fsck().returncode, 16)
        self.assertEqual(fsck("--bogus", self.image).returncode, 16)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
