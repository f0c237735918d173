#!/usr/bin/env python3
"""Reflink through copy_file_range, plain cp and mendctl clone."""
import filecmp
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, mendctl_json, run, scaled

MIB = 1 << 20


class Reflink(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="1536M")

    def requests(self):
        return {item["opcode"]: item["count"] for item in mendctl_json("stats", self.mount.directory)}

    def free_bytes(self):
        info = os.statvfs(self.mount.directory)
        return info.f_bfree * info.f_frsize

    def make(self, name, size):
        path = self.mount.path(name)
        with open(path, "wb") as file:
            left = size
            while left:
                left -= file.write(os.urandom(min(left, 8 * MIB)))
        return path

    def test_cp_of_a_gigabyte_is_few_requests_and_no_space(self):
        path = self.make("big", scaled(1024) * MIB)
        before, free = self.requests(), self.free_bytes()
        run("cp", path, self.mount.path("copy"))
        after = self.requests()
        data = sum(after.get(op, 0) - before.get(op, 0) for op in ("READ", "WRITE", "COPY_FILE_RANGE"))
        self.assertLessEqual(data, 4)
        self.assertLess(abs(free - self.free_bytes()), MIB)
        self.assertTrue(filecmp.cmp(path, self.mount.path("copy"), shallow=False))

    def test_dirty_pages_of_the_source_are_in_the_copy(self):
        path = self.make("dirty", 4 * MIB)
        with open(path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"just written", 3 * MIB + 5)
            run("cp", path, self.mount.path("copy"))
        with open(self.mount.path("copy"), "rb") as file:
            file.seek(3 * MIB + 5)
            self.assertEqual(file.read(12), b"just written")

    def test_an_unaligned_tail_at_the_end_of_the_file_is_shared(self):
        path = self.make("tail", 5 * BLOCK + 123)
        run("cp", path, self.mount.path("copy"))
        extents = mendctl_json("map", path)
        self.assertTrue(all(extent["shared"] for extent in extents), extents)
        self.assertEqual([e["device_offset"] for e in extents], [e["device_offset"] for e in mendctl_json("map", self.mount.path("copy"))])

    def test_writing_to_either_side_leaves_the_other_alone(self):
        path = self.make("origin", 64 * BLOCK)
        with open(path, "rb") as file:
            data = file.read()
        copy = self.mount.path("copy")
        run("cp", path, copy)
        for target, other, block in ((path, copy, 3), (copy, path, 40)):
            with open(other, "rb") as file:
                expected = file.read()
            with open(target, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"changed", block * BLOCK + 17)
            with open(other, "rb") as file:
                self.assertEqual(file.read(), expected)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), data[:3 * BLOCK + 17] + b"changed" + data[3 * BLOCK + 24:])
        self.assertEqual(mendctl_json("check", self.mount.directory), [])

    def test_an_unaligned_copy_is_right(self):
        path = self.make("source", 9 * BLOCK)
        with open(path, "rb") as src, open(self.mount.path("target"), "wb+") as dst:
            data = src.read()
            done = 0
            while done < 5 * BLOCK:
                done += os.copy_file_range(src.fileno(), dst.fileno(), 5 * BLOCK - done, 100 + done, 7 + done)
            dst.flush()
            dst.seek(0)
            self.assertEqual(dst.read(), bytes(7) + data[100:100 + 5 * BLOCK])

    def test_mendctl_clone_shares_everything(self):
        path = self.make("source", 3 * MIB + 77)
        clone = self.mount.path("clone")
        mendctl("clone", path, clone)
        self.assertTrue(filecmp.cmp(path, clone, shallow=False))
        self.assertTrue(all(extent["shared"] for extent in mendctl_json("map", clone)))
        done = mendctl("clone", path, clone, check=False)
        self.assertEqual(done.returncode, 1, "an existing destination must not be overwritten silently")

    def test_mendctl_clone_has_its_size_and_bytes_with_writeback_too(self):
        """There the kernel goes by its own idea of a file's size."""
        self.mount.umount()
        self.mount.options.append("writeback")
        self.mount.mount()
        path, clone = self.make("source", MIB + 77), self.mount.path("clone")
        mendctl("clone", path, clone)
        self.assertTrue(filecmp.cmp(path, clone, shallow=False))
        for size in (0, 5 * MIB):
            with open(clone, "r+b", buffering=0) as file:
                os.ftruncate(file.fileno(), size)
                file.write(b"not handed over yet")
            mendctl("clone", "-f", path, clone)
            self.assertTrue(filecmp.cmp(path, clone, shallow=False))
        self.mount.remount()
        self.assertTrue(filecmp.cmp(path, clone, shallow=False))

    def test_holes_stay_holes(self):
        path = self.mount.path("sparse")
        with open(path, "wb") as file:
            file.truncate(100 * MIB)
            file.seek(50 * MIB)
            file.write(b"island")
        run("cp", "--sparse=auto", path, self.mount.path("copy"))
        self.assertTrue(filecmp.cmp(path, self.mount.path("copy"), shallow=False))
        self.assertLess(os.stat(self.mount.path("copy")).st_blocks * 512, MIB)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
