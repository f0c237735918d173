#!/usr/bin/env python3
"""Our own ioctls: who may clone, deduplicate and map what, and that they agree with the page cache, with writers, and with a kill."""
import errno
import mmap
import os
import random
import struct
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import sharing
from harness import BLOCK, mendctl, mendctl_json
from sharing import clone, dedupe, map_all, map_page, number_of, opened, ticket
from users import as_user

MIB = 1 << 20
ALICE, BOB = 1001, 1002
IMMUTABLE, APPEND_ONLY = 0x10, 0x20


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Case(sharing.Case):
    def twins(self, blocks=64, **more):
        data = os.urandom(blocks * BLOCK)
        return self.make("a", data, **more), self.make("b", data, **more), data

    def extents(self, path):
        with opened(path, flags=os.O_RDONLY) as fd:
            return map_all(fd)

    def assert_shared(self, *paths):
        places = [[extent[2] for extent in self.extents(path)] for path in paths]
        self.assertEqual(places.count(places[0]), len(places), places)
        self.assertTrue(all(extent[3] & sharing.SHARED for path in paths for extent in self.extents(path)))

    def set_flags(self, path, flags):
        with opened(path, flags=os.O_RDONLY) as fd:
            sharing.ioctl(fd, 0x40086602, struct.pack("=Q", flags))


class Clone(Case):
    def test_a_user_without_privileges_clones_what_he_may_read(self):
        source = self.make("source", os.urandom(10 * BLOCK + 77))
        target = self.make("target", owner=ALICE)

        def run():
            with opened(source, flags=os.O_RDONLY) as a, opened(target, flags=os.O_WRONLY) as b:
                clone(b, a)

        as_user(ALICE, ALICE, run)
        self.assertEqual(read(source), read(target))
        self.assert_shared(source, target)

    def test_the_descriptors_decide(self):
        source, target = self.make("source", bytes(BLOCK)), self.make("target")
        with opened(source, target, flags=os.O_RDONLY) as (a, b):
            self.assertEqual(number_of(clone, b, a), errno.EBADF)
        with opened(source, target, flags=os.O_WRONLY) as (a, b):
            self.assertEqual(number_of(clone, b, a), errno.EBADF)
        with opened(source, flags=os.O_RDONLY) as a, opened(target, flags=os.O_WRONLY) as b:
            self.assertEqual(number_of(clone, b, a), 0)

    def test_a_descriptor_that_was_passed_on_counts_not_who_has_it(self):
        source, target = self.make("source", b"x" * BLOCK, mode=0o600), self.make("target", mode=0o600)
        with opened(source, target) as (a, b):
            as_user(BOB, BOB, clone, b, a)
        self.assertEqual(read(source), read(target))

    def test_tickets_cannot_be_made_up(self):
        source, target = self.make("source", bytes(BLOCK)), self.make("target")
        other = self.mounted(size="64M", image=self.make_image("64M", name="image2"), name="mnt2")
        with open(other.path("file"), "wb") as file:
            file.write(bytes(BLOCK))
        with opened(source, target, other.path("file")) as (a, b, c):
            good = ticket(a)
            for bit in range(8 * len(good)):
                forged = bytearray(good)
                forged[bit // 8] ^= 1 << bit % 8
                self.assertEqual(number_of(clone, b, bytes(forged)), errno.EBADF)
            self.assertEqual(number_of(clone, b, ticket(c)), errno.EBADF)
            self.assertEqual(number_of(clone, b, bytes(32)), errno.EBADF)
            clone(b, good)

    def test_the_ticket_of_a_file_that_is_gone_is_stale(self):
        source, target = self.make("source", bytes(BLOCK)), self.make("target")
        with opened(source) as fd:
            good = ticket(fd)
        os.unlink(source)
        harness.wait_for(lambda: self.stale(target, good), what="the end of the file")

    def stale(self, target, good):
        with opened(target) as fd:
            return number_of(clone, fd, good) == errno.ESTALE

    def test_what_may_be_asked_for(self):
        source = self.make("source", bytes(4 * BLOCK + 100))
        target = self.make("target", bytes(9 * BLOCK))
        with opened(source, target) as (a, b):
            for number, arguments in [
                    (errno.EINVAL, dict(source_offset=1)), (errno.EINVAL, dict(offset=512)), (errno.EINVAL, dict(source_offset=8 * BLOCK)),
                    (errno.EINVAL, dict(length=5 * BLOCK)), (errno.EINVAL, dict(length=100)), (errno.EINVAL, dict(length=0)),
                    (errno.EINVAL, dict(flags=2)), (errno.EINVAL, dict(reserved=1)), (errno.EINVAL, dict(flags=1, offset=BLOCK)),
                    (errno.EINVAL, dict(length=1 << 63)), (errno.EFBIG, dict(length=BLOCK, offset=(1 << 63) - BLOCK)), (0, dict(length=2 * BLOCK)),
                    (0, dict(offset=8 * BLOCK)), (0, dict(length=BLOCK, offset=1 << 50))]:
                self.assertEqual(number_of(clone, b, a, **arguments), number, arguments)
            self.assertEqual(number_of(clone, a, a, offset=BLOCK), errno.EINVAL)
            clone(a, a, length=BLOCK, offset=BLOCK)
        with opened(self.mount.directory, flags=os.O_RDONLY) as directory, opened(target) as fd:
            self.assertEqual(number_of(ticket, directory), errno.EISDIR)
            self.assertEqual(number_of(clone, directory, fd), errno.EISDIR)
            self.assertEqual(number_of(sharing.ioctl, fd, sharing.code(2, 99, 8), bytes(8)), errno.ENOTTY)
        with opened(os.path.join(self.folder, "image"), flags=os.O_RDONLY) as fd:
            self.assertNotEqual(number_of(ticket, fd), 0)

    def test_immutable_and_append_only_files_stay_as_they_are(self):
        source, target = self.make("source", b"n" * BLOCK), self.make("target", b"o" * BLOCK)
        with opened(source, target) as (a, b):
            for flags in (IMMUTABLE, APPEND_ONLY):
                self.set_flags(target, flags)
                self.assertEqual(number_of(clone, b, a), errno.EPERM)
                self.assertEqual(number_of(clone, b, a, flags=sharing.WHOLE), errno.EPERM)
            self.set_flags(target, 0)
            self.assertEqual(read(target), b"o" * BLOCK)

    def test_setuid_goes_with_the_content(self):
        source, target = self.make("source", b"n" * BLOCK), self.make("target", b"o" * BLOCK, owner=ALICE, mode=0o6755)

        def run():
            with opened(source, flags=os.O_RDONLY) as a, opened(target) as b:
                clone(b, a)
            return os.stat(target).st_mode & 0o7777

        self.assertEqual(as_user(ALICE, ALICE, run), 0o755)

    def test_the_whole_is_of_one_size(self):
        source, target = self.make("source", os.urandom(3 * BLOCK + 5)), self.make("target", os.urandom(20 * BLOCK))
        with opened(source, target) as (a, b):
            clone(b, a, flags=sharing.WHOLE)
        self.assertEqual(read(source), read(target))
        self.assertEqual(os.stat(target).st_size, 3 * BLOCK + 5)

    def test_pages_of_both_files_agree_with_it(self):
        """What was stored through a mapping of the source is in the clone; mapped and cached pages of the destination are the clone's."""
        source, target = self.make("source", b"s" * 8 * BLOCK), self.make("target", b"t" * 8 * BLOCK)
        with opened(source, target) as (a, b):
            with mmap.mmap(a, 0) as from_map, mmap.mmap(b, 0) as to_map:
                from_map[5 * BLOCK:5 * BLOCK + 3] = b"new"
                to_map[2 * BLOCK:2 * BLOCK + 3] = b"old"
                self.assertEqual(os.pread(b, 1, 5 * BLOCK), b"t")
                clone(b, a, length=8 * BLOCK)
                self.assertEqual(to_map[:], from_map[:])
                self.assertEqual(os.pread(b, 3, 5 * BLOCK), b"new")
                to_map[0:3] = b"mine"[:3]
                to_map.flush()
                self.assertEqual(from_map[0:3], b"sss")
        with opened(target, flags=os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, BLOCK) as buffer:
            os.preadv(fd, [buffer], 5 * BLOCK)
            self.assertEqual(buffer[:3], b"new")
        self.assertEqual(read(target)[:3], b"min")

    def test_many_at_once_with_dirty_pages_everywhere(self):
        """More than there are threads to wait with: none waits for ever."""
        files = [self.make(f"f{i}", bytes([i]) * 16 * BLOCK) for i in range(24)]
        failed = []

        def work(i):
            try:
                with opened(files[i], files[(i + 1) % 24]) as (a, b), mmap.mmap(a, 0) as pages:
                    for turn in range(10):
                        pages[turn * BLOCK] = turn
                        clone(b, a, length=16 * BLOCK)
            except OSError as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(harness.TIMEOUT)
            self.assertFalse(thread.is_alive())
        self.assertEqual(failed, [])

    def test_a_ring_of_one_place_refuses(self):
        """Nothing could be waited for."""
        if harness.libfuse_version() < (3, 18):
            return  # which has no rings
        self.mount.umount()
        self.mount.options.append("io_uring_q_depth=1")
        self.mount.mount()
        source, target = self.make("source", bytes(BLOCK)), self.make("target")
        uring = mendctl_json("list", self.mount.directory)[0]["transport"] == "io_uring"
        with opened(source, target) as (a, b):
            self.assertEqual(number_of(clone, b, a), errno.EOPNOTSUPP if uring else 0)

    def test_a_signal_ends_the_daemon_while_many_clone(self):
        files = [self.make(f"f{i}", bytes([i]) * 16 * BLOCK) for i in range(8)]

        def work(i):
            try:
                with opened(files[i], files[(i + 1) % 8]) as (a, b), mmap.mmap(a, 0) as pages:
                    while True:
                        pages[5] = 5
                        clone(b, a, length=16 * BLOCK)
            except (OSError, ValueError):
                pass

        children = []
        for i in range(8):
            child = os.fork()
            if not child:
                work(i)
                os._exit(0)
            children.append(child)
        time.sleep(0.3)
        self.mount.daemon.terminate()
        self.mount.daemon.wait(harness.TIMEOUT)
        for child in children:
            os.waitpid(child, 0)
        self.mount.umount()


class Dedupe(Case):
    def test_equal_files_share(self):
        a, b, data = self.twins()
        free = os.statvfs(self.mount.directory).f_bfree
        before = os.stat(b)
        with opened(a, flags=os.O_RDONLY) as source, opened(b) as target:
            self.assertEqual(dedupe(source, 0, len(data), (target, 0)), [(0, len(data), len(data))])
            self.assertEqual(dedupe(source, 0, len(data), (target, 0)), [(0, len(data), 0)])
        self.assert_shared(a, b)
        self.assertEqual(read(b), data)
        after = os.stat(b)
        self.assertEqual((after.st_mtime_ns, after.st_ctime_ns, after.st_blocks), (before.st_mtime_ns, before.st_ctime_ns, before.st_blocks))
        os.sync()
        harness.wait_for(lambda: os.statvfs(self.mount.directory).f_bfree >= free + 60, what="space")

    def test_several_targets_each_with_its_answer(self):
        data = os.urandom(20 * BLOCK)
        paths = [self.make(f"f{i}", data) for i in range(5)]
        with open(paths[2], "r+b") as file:
            file.seek(19 * BLOCK)
            file.write(b"x")
        with opened(*paths) as fds:
            answers = dedupe(fds[0], 0, 20 * BLOCK, (fds[1], 0), (fds[2], 0), (bytes(32), 0), (fds[3], 1), (fds[4], 0), (fds[4], BLOCK))
        n = 20 * BLOCK
        self.assertEqual(answers, [(0, n, n), (sharing.DIFFERS, 0, 0), (-errno.EBADF, 0, 0), (-errno.EINVAL, 0, 0), (0, n, n), (-errno.EINVAL, 0, 0)])
        self.assert_shared(paths[0], paths[1], paths[4])
        self.assertFalse(any(extent[3] & sharing.SHARED for extent in self.extents(paths[2])))

    def test_who_may(self):
        a, b, data = self.twins(4, owner=ALICE)
        other = self.make("c", data, owner=BOB)

        def run(source_flags, path, flags):
            with opened(a, flags=source_flags) as source, opened(path, flags=flags) as target:
                return dedupe(source, 0, len(data), (target, 0))[0][0]

        self.assertEqual(number_of(as_user, ALICE, ALICE, run, os.O_WRONLY, b, os.O_RDWR), errno.EBADF)
        self.assertEqual(as_user(BOB, BOB, run, os.O_RDONLY, b, os.O_RDONLY), -errno.EPERM)
        self.assertEqual(as_user(ALICE, ALICE, run, os.O_RDONLY, other, os.O_RDONLY), -errno.EPERM)
        self.assertEqual(as_user(ALICE, ALICE, run, os.O_RDONLY, b, os.O_RDONLY), 0)
        self.assertEqual(as_user(BOB, BOB, run, os.O_RDONLY, other, os.O_WRONLY), 0)
        self.assert_shared(a, b, other)

    def test_immutable_targets_and_read_only_mounts_refuse(self):
        a, b, data = self.twins(4)
        with opened(a, b) as (source, target):
            self.set_flags(b, IMMUTABLE)
            self.assertEqual(dedupe(source, 0, BLOCK, (target, 0)), [(-errno.EPERM, 0, 0)])
            self.set_flags(b, APPEND_ONLY)
            self.assertEqual(dedupe(source, 0, BLOCK, (target, 0)), [(0, BLOCK, BLOCK)])
            self.set_flags(b, 0)
        self.mount.umount()
        self.mount.options.append("ro")
        self.mount.mount()
        with opened(a, b, flags=os.O_RDONLY) as (source, target):
            self.assertEqual(dedupe(source, 0, 4 * BLOCK, (target, 0)), [(-errno.EROFS, 0, 0)])

    def test_what_may_be_asked_for(self):
        a, b, data = self.twins(4)
        with opened(a, b) as (source, target):
            self.assertEqual(number_of(dedupe, source, 0, BLOCK, (target, 0), count=0), errno.EINVAL)
            self.assertEqual(number_of(dedupe, source, 0, BLOCK, (target, 0), count=61), errno.EINVAL)
            self.assertEqual(number_of(dedupe, source, 0, BLOCK, (target, 0), reserved=1), errno.EINVAL)
            self.assertEqual(dedupe(source, 0, (1 << 64) - 1, (target, 0))[0][0], -errno.EINVAL)
            self.assertEqual(dedupe(source, 0, 0, (target, 0)), [(0, 0, 0)])
        with opened(self.mount.directory, flags=os.O_RDONLY) as directory, opened(b) as target:
            self.assertEqual(number_of(dedupe, directory, 0, BLOCK, (target, 0)), errno.EISDIR)

    def test_failed_memory_is_never_shared(self):
        for poisoned in "ab":
            a, b, data = self.twins(16)
            path = self.mount.path(poisoned)
            mendctl("inject-error", self.mount.directory, "--file", path, "--offset", 9 * BLOCK, "--length", 1, "--latent")
            with opened(a, b) as (source, target):
                self.assertEqual(dedupe(source, 0, len(data), (target, 0)), [(-errno.EIO, 0, 0)])
                self.assertEqual(dedupe(source, 0, 9 * BLOCK, (target, 0))[0][0], 0)
            bad = [extent for extent in self.extents(path) if extent[3] & sharing.BAD]
            self.assertEqual([(extent[0], extent[1]) for extent in bad], [(9 * BLOCK, BLOCK)])
            self.assertFalse(bad[0][3] & sharing.SHARED)
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), data[9 * BLOCK:10 * BLOCK], 9 * BLOCK)
            with opened(a, b) as (source, target):
                self.assertEqual(dedupe(source, 0, len(data), (target, 0))[0][:2], (0, len(data)))

    def writer(self, path, mirror, stop, seed):
        choose = random.Random(seed)
        with opened(path) as fd:
            while not stop.is_set():
                at, size = choose.randrange(len(mirror) - 9000), choose.randrange(1, 9000)
                bytes_ = bytes([choose.randrange(2)]) * size
                os.pwrite(fd, bytes_, at)
                mirror[at:at + size] = bytes_

    def test_writers_lose_nothing(self):
        size = 2 * MIB
        paths = [self.make(name, bytes(size)) for name in "abc"]
        mirrors, stop = [bytearray(size) for _ in paths], threading.Event()
        threads = [threading.Thread(target=self.writer, args=(path, mirror, stop, i)) for i, (path, mirror) in enumerate(zip(paths, mirrors))]
        for thread in threads:
            thread.start()
        choose, gained = random.Random(7), 0
        try:
            with opened(*paths) as fds:
                for _ in range(300):
                    source, one, two = choose.sample(fds, 3)
                    at = choose.randrange(size // BLOCK - 4) * BLOCK
                    length = min(size - at, choose.choice([BLOCK, 4 * BLOCK, size]))
                    for status, deduped, got in dedupe(source, at, length, (one, at), (two, at)):
                        self.assertIn(status, (0, sharing.DIFFERS))
                        gained += got
        finally:
            stop.set()
            for thread in threads:
                thread.join(harness.TIMEOUT)
        self.assertGreater(gained, 0)
        self.mount.remount()
        for path, mirror in zip(paths, mirrors):
            self.assertEqual(read(path), mirror)

    def test_a_kill_in_the_middle_leaves_every_byte(self):
        for turn in range(5):
            size = 4 * MIB
            data = os.urandom(size)
            paths = [self.make(f"{name}{turn}", data) for name in "abc"]
            child = os.fork()
            if not child:
                try:
                    with opened(*paths) as fds:
                        for at in range(0, size, 8 * BLOCK):
                            dedupe(fds[0], at, 8 * BLOCK, (fds[1], at), (fds[2], at))
                        clone(fds[1], fds[2])
                finally:
                    os._exit(0)
            time.sleep(random.random() * 0.05)
            self.mount.kill()
            os.waitpid(child, 0)
            self.mount.mount()
            for path in paths:
                self.assertEqual(read(path), data)
            self.assertEqual(mendctl_json("check", self.mount.directory), [])


class Map(Case):
    def test_a_map_by_pages_is_what_mendctl_says(self):
        path = self.make("file")
        with opened(path) as fd:
            for i in range(300):
                os.pwrite(fd, b"x" * BLOCK, 2 * i * BLOCK)
            os.posix_fallocate(fd, 1000 * BLOCK, 10 * BLOCK)
            os.fsync(fd)
            for room in (1, 7, 120):
                extents = map_all(fd, room)
                self.assertEqual(len(extents), 301)
                self.assertEqual([extent[3] for extent in extents], [0] * 300 + [sharing.UNWRITTEN | sharing.LAST])
            told = [(e["pos"], e["len"], e["device_offset"]) for e in mendctl_json("map", path)]
            self.assertEqual([extent[:3] for extent in extents], told)
            page = map_page(fd, 3 * BLOCK + 5, BLOCK)
            self.assertEqual([(e[0], e[1], e[3]) for e in page], [(4 * BLOCK, 5, sharing.LAST)])
            self.assertEqual(page[0][2], told[2][2])
            self.assertEqual(number_of(map_page, fd, 0, 1, room=0), errno.EINVAL)
            self.assertEqual(number_of(map_page, fd, 0, 1, room=121), errno.EINVAL)
            self.assertEqual(number_of(map_page, fd, 0, 1, reserved=1), errno.EINVAL)
            self.assertEqual(map_page(fd, 1 << 62, 1 << 62), [])

    def test_anybody_who_has_it_open_may_ask(self):
        path = self.make("file", bytes(BLOCK))

        def run():
            with opened(path, flags=os.O_RDONLY) as fd:
                return len(map_all(fd))

        self.assertEqual(as_user(BOB, BOB, run), 1)


class NoOpen(Case):
    def test_only_the_owner_and_root(self):
        self.mount.umount()
        self.mount.options.append("no_open")
        self.mount.mount()
        a, b, data = self.twins(4, owner=ALICE)

        def run(user):
            with opened(a, flags=os.O_RDONLY) as source, opened(b, flags=os.O_RDONLY) as target:
                return dedupe(source, 0, len(data), (target, 0))

        with opened(a, b) as fds:
            pass
        self.assertEqual(as_user(ALICE, ALICE, run, ALICE), [(0, len(data), len(data))])
        self.assertEqual(number_of(as_user, BOB, BOB, run, BOB), errno.EACCES)
        self.assertEqual(run(0), [(0, len(data), 0)])


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
