#!/usr/bin/env python3
"""Poison met by clients of a mount: who sees EIO, who sees SIGBUS, who is told, what is repaired."""
import mmap
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, mendctl_json

TREES = ("inodes", "dirents", "extents", "rmap")


def pattern(blocks, tail=0):
    return b"".join(bytes([i % 251 + 1]) * BLOCK for i in range(blocks))[:blocks * BLOCK - (BLOCK - tail if tail else 0)]


def read_block(path, index, flags=0):
    """The block, or None for EIO."""
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        if flags & os.O_DIRECT:
            area = mmap.mmap(-1, BLOCK)
            count = os.preadv(fd, [area], index * BLOCK)
            return bytes(area[:count])
        return os.pread(fd, BLOCK, index * BLOCK)
    except OSError as error:
        if error.errno != 5:
            raise
        return None
    finally:
        os.close(fd)


def touch_mapped(path, page):
    """In a child: map the file, read one byte of the page; its status."""
    pid = os.fork()
    if pid == 0:
        with open(path, "rb") as file:
            area = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            os._exit(0 if area[page * BLOCK] >= 0 else 1)
    return os.waitpid(pid, 0)[1]


class Poison(harness.Case):
    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="128M")

    def make(self, name, data):
        path = self.mount.path(name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def inject(self, path, block, *options, byte=100, length=1):
        mendctl("inject-error", self.mount.directory, "--file", path, "--offset", block * BLOCK + byte, "--length", length, *options)

    def drop_page_cache(self, path):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def expect_blocks(self, path, data, bad, flags=0):
        count = -(-len(data) // BLOCK)
        for index in range(count):
            got = read_block(path, index, flags)
            self.assertEqual(got, None if index in bad else data[index * BLOCK:(index + 1) * BLOCK], f"block {index} of {path}")

    def test_exactly_the_poisoned_block_fails_first_middle_and_partial_last(self):
        data = pattern(300, tail=1000)
        for where, block in (("first", 0), ("middle", 137), ("last", 299)):
            with self.subTest(where):
                path = self.make(where, data)
                self.inject(path, block)
                self.expect_blocks(path, data, {block})
                self.drop_page_cache(path)
                self.expect_blocks(path, data, {block})
                self.expect_blocks(path, data, {block}, os.O_DIRECT)
                self.assertEqual(os.stat(path).st_size, len(data), "the size must not change")

    def test_large_buffered_reads_stop_before_the_bad_block_and_go_on_after_it(self):
        data = pattern(512)
        path = self.make("large", data)
        self.inject(path, 200)
        self.drop_page_cache(path)
        with open(path, "rb", buffering=0) as file:
            got = os.pread(file.fileno(), 1 << 20, 0)
            self.assertEqual(got, data[:200 * BLOCK])
            with self.assertRaises(OSError):
                os.pread(file.fileno(), 1 << 20, 200 * BLOCK)
            self.assertEqual(os.pread(file.fileno(), 1 << 20, 201 * BLOCK), data[201 * BLOCK:201 * BLOCK + (1 << 20)])

    def test_large_direct_read_is_short_at_the_bad_block(self):
        data = pattern(256)
        path = self.make("direct", data)
        self.inject(path, 10)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.addCleanup(os.close, fd)
        area = mmap.mmap(-1, 1 << 20)
        count = os.preadv(fd, [area], 0)
        self.assertEqual(bytes(area[:count]), data[:10 * BLOCK])

    def test_readahead_does_not_spread_the_damage(self):
        data = pattern(1024)
        path = self.make("ahead", data)
        self.inject(path, 500)
        self.drop_page_cache(path)
        got, bad = bytearray(), []
        with open(path, "rb", buffering=0) as file:
            pos = 0
            while pos < len(data):
                try:
                    piece = os.pread(file.fileno(), 3 * BLOCK, pos)
                except OSError:
                    bad.append(pos // BLOCK)
                    piece = data[pos:pos + BLOCK]
                got += piece
                pos += len(piece)
        self.assertEqual(bad, [500])
        self.assertEqual(bytes(got), data)

    def test_a_mapping_gets_sigbus_on_the_bad_page_only(self):
        data = pattern(64)
        path = self.make("mapped", data)
        with open(path, "rb") as file:
            area = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            self.addCleanup(area.close)
            self.assertEqual(area[:], data)  # every page is in the kernel's cache
        self.inject(path, 33)
        status = touch_mapped(path, 33)
        self.assertTrue(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status)
        for page in (0, 32, 34, 63):
            self.assertEqual(touch_mapped(path, page), 0, page)

    def test_all_sharers_are_told_even_cold_ones_after_a_remount(self):
        data = pattern(20)
        path = self.make("origin", data)
        copies = [self.mount.path(f"copy{i}") for i in range(3)]
        for copy in copies:
            harness.run("cp", path, copy)
        self.mount.remount()
        monitor = self.monitor(self.mount.image)
        extent = mendctl_json("owners", self.mount.image, "--all", "--kind", "data")
        victim = next(owner for owner in extent if "/origin" in owner["paths"])
        mendctl("inject-error", self.mount.image, "--device-offset", victim["device_offset"], "--length", 8)
        failure = monitor.wait("media_failure")
        damaged = [monitor.wait("file_damaged") for _ in range(4)]
        self.assertEqual({p for event in damaged for p in event["paths"]}, {"/origin", "/copy0", "/copy1", "/copy2"})
        self.assertEqual({event["cause_id"] for event in damaged}, {failure["cause_id"]})
        self.assertEqual({event["sharers"] for event in damaged}, {4})
        self.assertEqual({event["len"] for event in damaged}, {BLOCK})

    def test_latent_poison_is_found_by_the_first_touch_and_announced_once(self):
        data = pattern(16)
        path = self.make("latent", data)
        monitor = self.monitor(self.mount.directory)
        self.inject(path, 7, "--latent")
        self.assertEqual(mendctl_json("badblocks", self.mount.directory), [])
        self.drop_page_cache(path)
        self.expect_blocks(path, data, {7})
        event = monitor.wait("file_damaged")
        self.assertEqual((event["pos"], event["len"], event["paths"]), (7 * BLOCK, BLOCK, ["/latent"]))
        self.drop_page_cache(path)
        self.expect_blocks(path, data, {7})
        self.assertEqual([e["type"] for e in monitor.drain()], [])
        self.assertEqual(mendctl_json("list", self.mount.directory)[0]["sigbus_count"], 1)
        self.mount.remount()
        self.expect_blocks(path, data, {7})
        self.assertEqual(mendctl_json("list", self.mount.directory)[0]["sigbus_count"], 1)

    def test_a_second_injection_into_known_poison_makes_no_second_event(self):
        path = self.make("twice", pattern(4))
        self.inject(path, 2)
        monitor = self.monitor(self.mount.directory)
        self.inject(path, 2)
        self.assertEqual(monitor.drain(), [])

    def test_overwritten_truncated_and_deleted_ranges_leave_the_damaged_list(self):
        data = pattern(16)
        for name, heal in (("overwritten", self.overwrite), ("truncated", self.truncate), ("deleted", os.unlink)):
            with self.subTest(name):
                path = self.make(name, data)
                self.inject(path, 9)
                self.assertEqual([d["paths"] for d in mendctl_json("damaged", self.mount.directory)], [[f"/{name}"]])
                heal(path)
                harness.wait_for(lambda: mendctl_json("damaged", self.mount.directory) == [], what="an empty damaged list")
                self.mount.remount()
                self.assertEqual(mendctl_json("damaged", self.mount.directory), [])
                self.assertEqual(mendctl_json("check", self.mount.directory), [])

    def overwrite(self, path):
        with open(path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"N" * BLOCK, 9 * BLOCK)
        self.drop_page_cache(path)
        self.expect_blocks(path, pattern(9) + b"N" * BLOCK + pattern(16)[10 * BLOCK:], set())

    def truncate(self, path):
        os.truncate(path, 9 * BLOCK)

    def test_a_partial_overwrite_of_a_bad_block_is_refused(self):
        path = self.make("partial", pattern(4))
        self.inject(path, 1)
        fd = os.open(path, os.O_WRONLY)
        self.addCleanup(os.close, fd)
        with self.assertRaises(OSError) as caught:
            os.pwrite(fd, b"x" * 100, BLOCK + 50)
        self.assertEqual(caught.exception.errno, 5)

    def test_uninject_gives_the_bytes_back(self):
        data = pattern(8)
        path = self.make("lifted", data)
        self.inject(path, 3)
        self.expect_blocks(path, data, {3})
        mendctl("uninject-error", self.mount.directory, "--file", path, "--offset", 3 * BLOCK + 100, "--length", 1)
        self.expect_blocks(path, data, set())
        self.assertEqual(mendctl_json("damaged", self.mount.directory), [])

    def test_poison_armed_while_unmounted_is_known_before_the_first_read(self):
        data = pattern(8)
        self.make("before", data)
        self.mount.umount()
        mendctl("inject-error", self.mount.image, "--file", "/before", "--offset", 5 * BLOCK, "--length", 512)
        self.mount.mount()
        damaged = mendctl_json("damaged", self.mount.directory)
        self.assertEqual([(d["paths"], [(r["pos"], r["len"]) for r in d["ranges"]]) for d in damaged], [(["/before"], [(5 * BLOCK, BLOCK)])])
        self.expect_blocks(self.mount.path("before"), data, {5})
        self.assertEqual(mendctl_json("list", self.mount.directory)[0]["sigbus_count"], 0)


class Metadata(harness.Case):
    """A tree of files; one copy, the other, both copies of live blocks of each tree."""

    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="128M")
        for d in range(20):
            os.mkdir(self.mount.path(f"d{d}"))
            for f in range(100):
                with open(self.mount.path(f"d{d}", f"f{f}"), "wb") as file:
                    file.write(b"%d/%d\n" % (d, f) * 700)
        mendctl("sync", self.mount.directory)

    def expect_tree(self):
        self.assertEqual(sorted(os.listdir(self.mount.directory)), sorted(f"d{d}" for d in range(20)))
        for d in range(20):
            self.assertEqual(len(os.listdir(self.mount.path(f"d{d}"))), 100)
            for f in range(0, 100, 7):
                with open(self.mount.path(f"d{d}", f"f{f}"), "rb") as file:
                    self.assertEqual(file.read(), b"%d/%d\n" % (d, f) * 700)

    def live(self, tree, copy):
        return [owner for owner in mendctl_json("owners", self.mount.directory, "--all", "--kind", "metadata")
                if owner["live"] and owner["tree"] == tree and owner["copy"] == copy]

    def hit(self, tree, copy):
        self.mount.remount()
        victim = self.live(tree, copy)[-1]
        monitor = self.monitor(self.mount.directory)
        mendctl("inject-error", self.mount.directory, "--device-offset", victim["device_offset"], "--length", BLOCK)
        self.expect_tree()
        event = monitor.wait("metadata_repaired")
        self.assertEqual((event["tree"], event["copy"]), (tree, copy))
        mendctl("sync", self.mount.directory)
        with open(self.mount.image, "rb") as image:
            self.assertEqual(os.pread(image.fileno(), BLOCK, victim["device_offset"]), os.pread(image.fileno(), BLOCK, victim["peer_offset"]))
        self.assertEqual(mendctl_json("check", self.mount.directory), [])

    def test_a_bad_primary_of_each_tree_is_repaired_and_nothing_is_lost(self):
        for tree in TREES:
            with self.subTest(tree):
                self.hit(tree, "primary")

    def test_a_bad_replica_of_each_tree_is_repaired_and_nothing_is_lost(self):
        for tree in TREES:
            with self.subTest(tree):
                self.hit(tree, "replica")

    def expect_report(self, event, inodes, paths):
        """Of the extents that both copies of a leaf have lost: whose they were, at most one more at either end."""
        self.assertEqual((event["tree"], event["level"]), ("extents", 0))
        self.assertLessEqual(event["first_inumber"], min(inodes))
        self.assertGreaterEqual(event["last_inumber"], max(inodes))
        self.assertLessEqual(len(inodes), event["files"])
        self.assertLessEqual(event["files"], len(inodes) + 2)
        self.assertNotIn("files_more", event)
        self.assertIn("fsck.mendfs -y", event["advice"])
        self.assertEqual(len(event["first_files"]), min(16, event["files"]))
        names = {path[len(self.mount.directory):] for path in paths}
        named = [path for file in event["first_files"] for path in file["paths"]]
        self.assertEqual(len(named), len(event["first_files"]))
        self.assertGreaterEqual(len(names & set(named)), len(named) - 2)

    def test_latent_poison_in_metadata_is_met_at_mount_and_repaired(self):
        victim = self.live("inodes", "primary")[0]
        self.mount.umount()
        mendctl("inject-error", self.mount.image, "--device-offset", victim["device_offset"], "--length", 1, "--latent")
        self.mount.mount()
        self.expect_tree()
        harness.wait_for(lambda: mendctl_json("badblocks", self.mount.directory) == [] or
                         all(b["state"] == "cleared" for b in mendctl_json("badblocks", self.mount.directory)), what="the repair")
        self.assertEqual(mendctl_json("list", self.mount.directory)[0]["sigbus_count"], 1)

    def test_both_copies_gone_is_read_only_and_the_rest_can_be_read(self):
        self.mount.remount()
        victim = self.live("extents", "primary")[-1]
        monitor = self.monitor(self.mount.directory)
        for offset in (victim["device_offset"], victim["peer_offset"]):
            mendctl("inject-error", self.mount.directory, "--device-offset", offset, "--length", BLOCK, "--latent")
        mendctl("drop-caches", self.mount.directory)
        good = failed = 0
        gone = []
        for d in range(20):
            for f in range(100):
                path = self.mount.path(f"d{d}", f"f{f}")
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                try:
                    self.assertEqual(os.read(fd, 1 << 20), b"%d/%d\n" % (d, f) * 700)
                    good += 1
                except OSError as error:
                    self.assertEqual(error.errno, 5)
                    failed += 1
                    gone.append(path)
                finally:
                    os.close(fd)
        self.assertGreater(good, 0)
        self.assertGreater(failed, 0)
        event = monitor.wait("metadata_lost")
        self.expect_report(event, {os.stat(path).st_ino for path in gone}, gone)
        self.assertEqual(event["device_offset"] in (victim["device_offset"], victim["peer_offset"]), True)
        listed = mendctl_json("list", self.mount.directory)[0]
        self.assertEqual((listed["state_reason"], listed["lost_metadata_blocks"], len(listed["lost_metadata"])), ("metadata_lost", 1, 1))
        for key in ("tree", "level", "first_inumber", "last_inumber", "files", "advice"):
            self.assertEqual(listed["lost_metadata"][0][key], event[key])
        self.assertEqual(listed["lost_metadata"][0]["device_offset"], victim["device_offset"])
        with self.assertRaises(OSError) as caught:
            os.mkdir(self.mount.path("new"))
        self.assertEqual(caught.exception.errno, 30)
        self.assertIn(mendctl_json("list", self.mount.directory)[0]["state"], ("readonly", "shutdown"))


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
