#!/usr/bin/env python3
"""How many FUSE requests an operation costs, by the daemon's own counters. docs/PERFORMANCE.md says why each that remains does."""
import json
import mmap
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, mendctl_json

MIB = 1 << 20
# Nobody waits for these.
ASYNCHRONOUS = {"RELEASE", "RELEASEDIR", "FORGET", "BATCH_FORGET"}


class Budget(harness.Case):
    fsck_after = True
    options = ()

    def setUp(self):
        super().setUp()
        self.mount = self.mounted(*self.options, size="256M")
        self.root = self.mount.directory
        os.mkdir(self.mount.path("d"))
        self.write("d/file", b"x" * BLOCK)
        os.stat(self.mount.path("d"))

    def write(self, name, data):
        fd = os.open(self.mount.path(name), os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, data)
        os.close(fd)

    def counts(self):
        """By the image, because a path inside would be looked up."""
        return {request["opcode"]: request["count"] for request in mendctl_json("stats", self.mount.image)}

    def cost(self, call, *arguments):
        before = self.counts()
        call(*arguments)
        after = self.counts()
        return {op: after[op] - before.get(op, 0) for op in after
                if after[op] > before.get(op, 0) and op not in ASYNCHRONOUS}

    def assert_cost(self, budget, call, *arguments):
        cost = self.cost(call, *arguments)
        print(f"  {self._testMethodName[5:]}: {cost or 'none'}", flush=True)
        over = {op: count for op, count in cost.items() if count > budget.get(op, 0)}
        self.assertEqual(over, {}, f"cost {cost}, budget {budget}")

    def open_read_close(self, name):
        fd = os.open(self.mount.path(name), os.O_RDONLY)
        self.assertEqual(len(os.read(fd, BLOCK)), BLOCK)
        os.close(fd)

    def create(self, name, flags):
        os.close(os.open(self.mount.path(name), os.O_CREAT | os.O_WRONLY | flags, 0o644))

    @staticmethod
    def question():
        """Whether there is a security.capability, before what goes through the page cache; a libfuse that knows no mappings of direct files lets all go there."""
        return {} if harness.libfuse_version() >= (3, 18) else {"GETXATTR": 1}

    def assert_absent(self, name):
        self.assertFalse(os.path.lexists(self.mount.path(name)))


class Names(Budget):
    def test_warm_stat(self):
        os.stat(self.mount.path("d/file"))
        self.assert_cost({}, os.stat, self.mount.path("d/file"))

    def test_warm_stat_with_birth_time(self):
        command = ["stat", "-c", "%W", self.mount.path("d/file")]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        self.assert_cost({}, lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))

    def test_repeated_negative_lookup(self):
        self.assert_absent("d/nothing")
        self.assert_cost({}, self.assert_absent, "d/nothing")

    def test_name_that_was_unlinked_is_a_negative_entry(self):
        self.write("d/gone", b"x")
        os.unlink(self.mount.path("d/gone"))
        os.stat(self.mount.path("d"))
        self.assert_absent("d/gone")
        self.assert_cost({}, self.assert_absent, "d/gone")

    def test_listing_of_a_cached_directory(self):
        for i in range(100):
            self.write(f"d/{i}", b"")
        for _ in range(3):
            self.assertEqual(len(os.listdir(self.mount.path("d"))), 101)
        self.assert_cost({}, os.listdir, self.mount.path("d"))

    def test_listing_after_a_change_is_read_once(self):
        os.listdir(self.mount.path("d"))
        self.write("d/new", b"")
        os.listdir(self.mount.path("d"))
        os.listdir(self.mount.path("d"))
        self.assert_cost({}, os.listdir, self.mount.path("d"))

    def test_readlink(self):
        os.symlink("target", self.mount.path("d/link"))
        os.readlink(self.mount.path("d/link"))
        self.assert_cost({}, os.readlink, self.mount.path("d/link"))

    def test_mkdir(self):
        self.assert_cost({"LOOKUP": 1, "GETATTR": 1, "MKDIR": 1}, os.mkdir, self.mount.path("d/sub"))

    def test_unlink(self):
        self.write("d/victim", b"x")
        self.assert_cost({"GETATTR": 1, "UNLINK": 1}, os.unlink, self.mount.path("d/victim"))

    def test_rename(self):
        self.write("d/old", b"x")
        self.assert_cost({"LOOKUP": 1, "GETATTR": 1, "RENAME": 1}, os.rename, self.mount.path("d/old"), self.mount.path("d/new"))

    def test_rename_over_a_known_name(self):
        self.write("d/old", b"x")
        self.write("d/new", b"x")
        self.assert_cost({"LOOKUP": 1, "GETATTR": 1, "RENAME": 1}, os.rename, self.mount.path("d/old"), self.mount.path("d/new"))

    def test_create_over_a_cached_negative_entry(self):
        self.assert_absent("d/new")
        self.assert_cost({"CREATE": 1}, self.create, "d/new", 0)

    def test_exclusive_create_write_close(self):
        os.mkdir(self.mount.path("e"))
        os.stat(self.mount.path("e"))

        def create_and_write():
            fd = os.open(self.mount.path("e/new"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.write(fd, b"x" * BLOCK)
            os.close(fd)

        self.assert_cost({"LOOKUP": 1, "GETATTR": 1, "CREATE": 1, **self.question(), "WRITE": 1}, create_and_write)


class Data(Budget):
    def test_open_read_close_of_a_cached_file(self):
        self.open_read_close("d/file")
        self.assert_cost({"OPEN": 1}, self.open_read_close, "d/file")

    def test_open_write_close(self):
        self.assert_cost({"OPEN": 1, **self.question(), "WRITE": 1}, self.write_to, "d/file", b"y" * BLOCK)

    def write_to(self, name, data):
        fd = os.open(self.mount.path(name), os.O_WRONLY)
        self.assertEqual(os.write(fd, data), len(data))
        os.close(fd)

    def test_large_write_of_a_writer_alone_asks_nothing(self):
        fd = os.open(self.mount.path("d/new"), os.O_CREAT | os.O_WRONLY, 0o644)
        self.addCleanup(os.close, fd)
        buffer = mmap.mmap(-1, MIB)  # at the start of a page: else it lies in one page more than a request has
        self.addCleanup(buffer.close)
        self.assert_cost({"WRITE": 8, **{op: 8 for op in self.question()}}, lambda: [os.pwritev(fd, [buffer], i * MIB) for i in range(8)])

    def test_stat_after_write_asks_once(self):
        fd = os.open(self.mount.path("d/file"), os.O_RDWR)
        self.addCleanup(os.close, fd)
        os.pwrite(fd, b"y" * BLOCK, 0)
        self.assert_cost({"GETATTR": 1}, os.fstat, fd)
        self.assert_cost({}, os.fstat, fd)

    @staticmethod
    def writes(count):
        """A libfuse that cannot say that we clear setuid bits by ourselves costs a question before each."""
        return {"WRITE": count} if harness.libfuse_version() >= (3, 18) else {"WRITE": count, "GETXATTR": count}

    def test_later_writes_ask_nothing_else(self):
        """security.capability at most once per inode: never again for a write that follows another."""
        fd = os.open(self.mount.path("d/file"), os.O_RDWR)
        self.addCleanup(os.close, fd)
        os.pwrite(fd, b"y" * BLOCK, 0)
        self.assert_cost(self.writes(8), lambda: [os.pwrite(fd, b"z" * BLOCK, i * BLOCK) for i in range(8)])

    def test_direct_io_goes_as_it_is(self):
        path = self.mount.path("d/file")
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.addCleanup(os.close, fd)
        page = mmap.mmap(-1, BLOCK)
        self.addCleanup(page.close)
        os.pwritev(fd, [page], 0)
        self.assert_cost({"WRITE": 4, "READ": 4}, lambda: [(os.pwritev(fd, [page], 0), os.preadv(fd, [page], 0)) for _ in range(4)])

    def test_each_direct_write_of_a_synchronous_file_is_durable_by_itself(self):
        """No FSYNC follows it, so on a plain file the WRITE has to do what one does."""
        page = mmap.mmap(-1, BLOCK)
        self.addCleanup(page.close)
        for flags in (os.O_RDWR | os.O_DIRECT | os.O_DSYNC, os.O_WRONLY | os.O_SYNC):
            fd = os.open(self.mount.path("d/file"), flags)
            self.addCleanup(os.close, fd)
            before, requests = self.media_syncs(), self.counts()
            for _ in range(20):
                os.pwritev(fd, [page], 0)
            fsyncs = self.counts().get("FSYNC", 0) - requests.get("FSYNC", 0)
            self.assertGreaterEqual(self.media_syncs() - before, 20, f"{fsyncs} FSYNC")

    def media_syncs(self):
        return json.loads(mendctl("stats", self.mount.image, "--json").stdout)["media"]["syncs"]

    def test_sequential_read_asks_once_per_window_of_readahead(self):
        self.write("d/big", os.urandom(32 * MIB))
        fd = os.open(self.mount.path("d/big"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        # The kernel's own 128 KiB (read_ahead_kb of the bdi): docs/PERFORMANCE.md has what other values cost.
        with open(f"/sys/class/bdi/{os.major(os.fstat(fd).st_dev)}:{os.minor(os.fstat(fd).st_dev)}/read_ahead_kb") as file:
            window = int(file.read()) * 1024
        self.assert_cost({"READ": 32 * MIB // window}, lambda: [os.pread(fd, MIB, i * MIB) for i in range(32)])

    def test_large_write_goes_in_large_requests(self):
        fd = os.open(self.mount.path("d/big"), os.O_CREAT | os.O_RDWR, 0o644)
        self.addCleanup(os.close, fd)
        os.pwrite(fd, b"x", 0)
        self.assert_cost(self.writes(32), lambda: [os.pwrite(fd, b"y" * MIB, i * MIB) for i in range(32)])

    def test_copy_of_64_mib_is_one_request(self):
        self.write("d/from", os.urandom(64 * MIB))
        source = os.open(self.mount.path("d/from"), os.O_RDONLY)
        target = os.open(self.mount.path("d/to"), os.O_CREAT | os.O_RDWR, 0o644)
        self.addCleanup(os.close, source)
        self.addCleanup(os.close, target)
        os.fstat(source)
        os.fstat(target)

        def copy():
            self.assertEqual(os.copy_file_range(source, target, 64 * MIB, 0, 0), 64 * MIB)

        self.assert_cost({"COPY_FILE_RANGE": 1, "GETXATTR": 1}, copy)

    def test_cp_copies_without_reading(self):
        self.write("d/from", os.urandom(8 * MIB))
        cost = self.cost(lambda: subprocess.run(["cp", self.mount.path("d/from"), self.mount.path("d/to")], check=True))
        self.assertEqual(cost.get("COPY_FILE_RANGE"), 1, cost)
        self.assertNotIn("READ", cost)
        self.assertNotIn("WRITE", cost)


class NoOpen(Budget):
    options = ("no_open",)

    def test_open_read_close_of_a_cached_file_costs_nothing(self):
        self.open_read_close("d/file")
        self.assert_cost({}, self.open_read_close, "d/file")

    def test_truncating_open_truncates(self):
        self.open_read_close("d/file")
        os.close(os.open(self.mount.path("d/file"), os.O_WRONLY | os.O_TRUNC))
        self.assertEqual(os.stat(self.mount.path("d/file")).st_size, 0)
        with open(self.mount.path("d/file"), "w") as file:
            file.write("again")
        with open(self.mount.path("d/file")) as file:
            self.assertEqual(file.read(), "again")
        self.mount.remount()
        with open(self.mount.path("d/file")) as file:
            self.assertEqual(file.read(), "again")


class Counters(Budget):
    def test_every_request_is_counted_by_its_name(self):
        path, seen = self.mount.path, self.counts()
        os.symlink("file", path("d/link"))
        os.readlink(path("d/link"))
        os.mkfifo(path("d/fifo"))
        os.link(path("d/file"), path("d/again"))
        os.rename(path("d/again"), path("d/other"))
        os.listdir(path("d"))
        os.mkdir(path("d/sub"))
        os.rmdir(path("d/sub"))
        os.chmod(path("d/file"), 0o600)
        os.statvfs(path("d"))
        with open(path("d/file"), "r+b") as file:
            file.write(b"more")
            os.fsync(file.fileno())
            os.posix_fallocate(file.fileno(), 0, MIB)
            os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        directory = os.open(path("d"), os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        os.unlink(path("d/other"))
        harness.wait_for(lambda: self.counts().get("RELEASE", 0) > seen.get("RELEASE", 0), what="the RELEASE")
        now = self.counts()
        for name in ("SYMLINK READLINK MKNOD LINK RENAME MKDIR RMDIR SETATTR STATFS OPEN WRITE FSYNC FALLOCATE LSEEK FSYNCDIR UNLINK "
                     "LOOKUP CREATE GETATTR RELEASE").split():
            self.assertGreater(now.get(name, 0), 0, name)
        self.assertTrue(now.get("READDIR", 0) + now.get("READDIRPLUS", 0))

    def test_histograms_add_up(self):
        for i in range(50):
            self.write(f"d/{i}", b"x")
        for request in mendctl_json("stats", self.mount.image):
            self.assertEqual(sum(request["histogram"]), request["count"], request["opcode"])
            self.assertGreaterEqual(request["total_ns"], request["count"])


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main(verbosity=2)
