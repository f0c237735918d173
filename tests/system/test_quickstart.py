#!/usr/bin/env python3
"""The checks of ./quickstart can fail: an owner dropped, one block off, in what it is shown or in what it looks for."""
import importlib.util
import os
import shutil
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK

spec = importlib.util.spec_from_file_location("quickstart", os.path.join(harness.ROOT, "scripts", "quickstart.py"))
quickstart = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quickstart)
quickstart.BIN = harness.BIN


class BrokenTwins(unittest.TestCase):
    def setUp(self):
        folder = tempfile.mkdtemp(prefix="mendfs-test.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.demo = quickstart.Demo(folder)
        self.addCleanup(quickstart.clean_up, self.demo, folder)
        self.demo.make()
        os.mkdir(os.path.join(self.demo.directory, "tree"))
        source = os.path.join(folder, "source")
        self.demo.source, self.demo.file = source, os.path.join(self.demo.directory, "tree", "file")
        with open(source, "wb") as file:
            file.write(os.urandom(100 * BLOCK + 77))
        shutil.copyfile(self.demo.source, self.demo.file)
        self.demo.pairs, self.demo.bad_block = [(self.demo.source, self.demo.file)], 50
        self.demo.clone()

    def inject(self, block):
        quickstart.mendctl("inject-error", self.demo.directory, "--file", self.demo.file, "--offset", str(block * BLOCK), "--length", "1")

    def test_a_block_off_is_noticed_in_the_events(self):
        def shifted(*arguments):
            words = [str(int(word) + BLOCK) if before == "--offset" else word for before, word in zip(("",) + arguments, arguments)]
            return quickstart.run(os.path.join(quickstart.BIN, "mendctl"), *words)

        with mock.patch.object(quickstart, "mendctl", shifted), self.assertRaisesRegex(quickstart.Failed, "inode, offset and length"):
            self.demo.poison_data()

    def test_a_dropped_owner_is_noticed_in_the_events(self):
        collect = quickstart.Monitor.collect

        def dropping(monitor, enough, what, timeout=10.0):
            seen = collect(monitor, enough, what, timeout)
            last = [event for event in seen if event["type"] == "file_damaged"][-1:]
            return [event for event in seen if event not in last]

        with mock.patch.object(quickstart.Monitor, "collect", dropping), self.assertRaisesRegex(quickstart.Failed, "all four files"):
            self.demo.poison_data()

    def test_a_block_off_is_noticed_in_the_contents_and_in_the_mapping(self):
        self.demo.poison_data()
        self.demo.check_data()
        self.demo.bad_block += 1
        with self.assertRaisesRegex(quickstart.Failed, "EIO blocks, wrong blocks"):
            self.demo.check_data()
        with self.assertRaises(quickstart.Failed):
            self.demo.check_mapping()

    def test_a_wrong_byte_and_another_bad_block_are_noticed(self):
        self.demo.poison_data()
        with open(self.demo.copies[2], "r+b") as file:
            file.seek(7 * BLOCK + 5)
            file.write(b"\0\1\2\3")
        with self.assertRaisesRegex(quickstart.Failed, r"copy3: .*\[50\], \[7\]"):
            self.demo.check_data()
        self.inject(60)
        with self.assertRaisesRegex(quickstart.Failed, "60"):
            self.demo.check_data()


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
