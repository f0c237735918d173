#!/usr/bin/env python3
"""Content: preallocation and holes, copies of ranges, appends by hundreds, locks, limits, and one file read and written in three ways at once."""
import errno
import fcntl
import mmap
import os
import resource
import signal
import struct
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import places
from harness import BLOCK
from places import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate

MIB = 1 << 20
LARGEST = 2**63 - 1
E = errno


def child_ends(run, *arguments):
    """In a child: what run() returns, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        code = 255
        try:
            code = run(*arguments) or 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Data:
    # --- space ---

    def blocks(self, fd):
        """With writeback the kernel asks for st_blocks once a second."""
        os.fsync(fd)
        if self.options:
            time.sleep(1.1)
        return os.fstat(fd).st_blocks // 8

    def test_each_mode_of_fallocate_keeps_size_space_and_zeros_as_it_says(self):
        fd = self.open("f")
        os.pwrite(fd, b"a" * 10 * BLOCK, 0)
        fallocate(fd, 0, 5 * BLOCK, 10 * BLOCK)
        self.assertEqual((os.fstat(fd).st_size, self.blocks(fd)), (15 * BLOCK, 15))
        fallocate(fd, KEEP_SIZE, 15 * BLOCK, 5 * BLOCK)
        self.assertEqual((os.fstat(fd).st_size, self.blocks(fd)), (15 * BLOCK, 20))
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, BLOCK + 100, 2 * BLOCK)
        self.assertEqual((os.fstat(fd).st_size, self.blocks(fd)), (15 * BLOCK, 19))
        want = b"a" * (BLOCK + 100) + bytes(2 * BLOCK) + b"a" * (7 * BLOCK - 100) + bytes(5 * BLOCK)
        self.assertEqual(os.pread(fd, MIB, 0), want)
        self.assert_errno(E.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE, 0, BLOCK)
        self.assert_errno(E.EINVAL, fallocate, fd, 0, 0, 0)
        self.assert_errno(E.EINVAL, fallocate, fd, 0, -1, BLOCK)
        self.assert_errno(E.EFBIG, fallocate, fd, KEEP_SIZE, LARGEST - 10, 100)
        self.assert_errno(E.ENOSPC, fallocate, fd, 0, 0, 1 << 50)
        self.assertEqual(self.blocks(fd), 19)
        if self.is_mendfs:
            self.zero_ranges(fd)

    def zero_ranges(self, fd):
        """tmpfs has none."""
        fallocate(fd, ZERO_RANGE, 100, 9 * BLOCK)
        self.assertEqual((os.fstat(fd).st_size, self.blocks(fd)), (15 * BLOCK, 20))
        self.assertEqual(os.pread(fd, MIB, 0), b"a" * 100 + bytes(9 * BLOCK) + b"a" * (BLOCK - 100) + bytes(5 * BLOCK))
        fallocate(fd, ZERO_RANGE, 14 * BLOCK, 8 * BLOCK)
        self.assertEqual((os.fstat(fd).st_size, self.blocks(fd)), (22 * BLOCK, 22))
        fallocate(fd, ZERO_RANGE | KEEP_SIZE, 0, 30 * BLOCK)
        self.assertEqual((os.fstat(fd).st_size, self.blocks(fd)), (22 * BLOCK, 30))
        self.assertEqual(os.pread(fd, MIB, 0), bytes(22 * BLOCK))

    def test_holes_are_found_also_in_the_largest_file(self):
        fd = self.open("f")
        os.ftruncate(fd, LARGEST)
        os.pwrite(fd, b"x", 3 * BLOCK)
        os.pwrite(fd, b"y", 1 << 45)
        os.fsync(fd)
        self.assert_errno(E.ENXIO, os.lseek, fd, LARGEST, os.SEEK_DATA)
        self.assert_errno(E.ENXIO, os.lseek, fd, LARGEST, os.SEEK_HOLE)
        if self.options:  # with writeback everything is called data
            self.assertEqual((os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)), (0, LARGEST))
            return
        self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA), 3 * BLOCK)
        self.assertEqual(os.lseek(fd, 3 * BLOCK + 7, os.SEEK_DATA), 3 * BLOCK + 7)
        self.assertEqual(os.lseek(fd, 3 * BLOCK, os.SEEK_HOLE), 4 * BLOCK)
        self.assertEqual(os.lseek(fd, 9 * BLOCK, os.SEEK_HOLE), 9 * BLOCK)
        self.assertEqual(os.lseek(fd, 4 * BLOCK, os.SEEK_DATA), 1 << 45)
        self.assert_errno(E.ENXIO, os.lseek, fd, (1 << 45) + BLOCK, os.SEEK_DATA)

    def test_preallocation_is_a_hole_until_it_is_written(self):
        fd = self.open("f")
        fallocate(fd, 0, 0, 16 * BLOCK)
        os.pwrite(fd, b"x" * BLOCK, 4 * BLOCK)
        os.fsync(fd)
        self.assertEqual(os.pread(fd, MIB, 0), bytes(4 * BLOCK) + b"x" * BLOCK + bytes(11 * BLOCK))
        if self.is_mendfs and not self.options:
            self.assertEqual((os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 4 * BLOCK, os.SEEK_HOLE)), (4 * BLOCK, 5 * BLOCK))
            self.mount.kill()
            self.mount.mount()
            with open(self.path("f"), "rb") as file:
                self.assertEqual(file.read(), bytes(4 * BLOCK) + b"x" * BLOCK + bytes(11 * BLOCK))

    def copy(self, source, target, length, at, to):
        done = 0
        while done < length:
            got = os.copy_file_range(source, target, length - done, at + done, to + done)
            if not got:
                break
            done += got
        return done

    def test_ranges_are_copied_within_a_file_past_the_end_and_between_holes(self):
        fd, other = self.open("f"), self.open("g")
        data = os.urandom(20 * BLOCK + 123)
        os.pwrite(fd, data, 0)
        self.assertEqual(self.copy(fd, fd, 5 * BLOCK, 0, 30 * BLOCK), 5 * BLOCK)
        self.assertEqual(os.pread(fd, 5 * BLOCK, 30 * BLOCK), data[:5 * BLOCK])
        self.assertEqual(os.pread(fd, 100, 20 * BLOCK + 123), bytes(100))
        self.assert_errno(E.EINVAL, os.copy_file_range, fd, fd, 2 * BLOCK, 0, BLOCK)
        self.assert_errno(E.EINVAL, os.copy_file_range, fd, fd, 10, 5, 0)
        self.assertEqual(os.copy_file_range(fd, other, BLOCK, 35 * BLOCK, 0), 0)
        self.assertEqual(os.fstat(other).st_size, 0)
        self.assertEqual(self.copy(fd, other, 100 * BLOCK, 34 * BLOCK + 10, 77), BLOCK - 10)
        self.assertEqual(os.pread(other, MIB, 0), bytes(77) + data[4 * BLOCK + 10:5 * BLOCK])
        self.assertEqual(self.copy(fd, other, 1000, 3, BLOCK * 9 + 1), 1000)
        self.assertEqual(os.pread(other, 1000, BLOCK * 9 + 1), data[3:1003])
        os.pwrite(fd, b"changed", 0)
        self.assertEqual(os.pread(fd, 7, 30 * BLOCK), data[:7])
        reader = self.open("f", os.O_RDONLY)
        appender = self.open("f", os.O_WRONLY | os.O_APPEND)
        self.assert_errno(E.EBADF, os.copy_file_range, fd, reader, 1, 0, 50 * BLOCK)
        self.assert_errno(E.EBADF, os.copy_file_range, other, appender, 1, 0, 0)
        self.assert_errno(E.EFBIG, os.copy_file_range, fd, other, BLOCK, 0, LARGEST)

    def test_a_sparse_range_of_exbibytes_is_copied_at_once(self):
        unit = 1 << 60 if self.is_mendfs else 1 << 20  # tmpfs copies byte by byte
        size, last = 4 * unit + 5, 2 * unit
        fd, other = self.open("f"), self.open("g")
        os.pwrite(fd, b"first", 0)
        os.pwrite(fd, b"last", last)
        os.ftruncate(fd, size)
        os.pwrite(other, b"gone" * BLOCK, unit >> 1)
        calls, done = 0, 0
        while done < size and calls < 10:
            done += os.copy_file_range(fd, other, size - done, done, done)
            calls += 1
        if done < size:  # a libfuse whose replies have 32 bits: the first of each call, and the end
            self.assertGreater(done, 5 << 30)
            os.ftruncate(other, done)
            self.assertEqual(os.copy_file_range(fd, other, BLOCK, last, last), BLOCK)
            os.ftruncate(other, size)
        self.assertEqual((os.fstat(other).st_size, os.pread(other, 4, last), os.pread(other, 5, 0), os.pread(other, 4, unit >> 1)),
                         (size, b"last", b"first", bytes(4)))
        if self.is_mendfs:
            self.assertEqual(self.blocks(other), 2)

    # --- many at once ---

    def append(self, number, flags):
        fd = os.open(self.path("log"), os.O_WRONLY | os.O_APPEND | flags)
        for i in range(3):
            size = BLOCK * 2 if flags else (20, 3000, 9001)[(number + i) % 3]
            record = struct.pack("<IIQ", number, i, size) + bytes([number % 255 + 1]) * (size - 16)
            view = memoryview(bytearray(mmap.mmap(-1, size)) if not flags else self.aligned(record))
            if not flags:
                view = record
            if os.write(fd, view) != size:
                return 1
        return 0

    @staticmethod
    def aligned(record):
        area = mmap.mmap(-1, len(record))
        area[:] = record
        return area

    def appends_lose_nothing(self, flags):
        writers = 200
        os.close(self.open("log"))
        children = []
        for number in range(writers):
            child = os.fork()
            if not child:
                code = 255
                try:
                    code = self.append(number, flags)
                finally:
                    os._exit(code)
            children.append(child)
        self.assertEqual({os.waitpid(child, 0)[1] for child in children}, {0})
        self.again()
        with open(self.path("log"), "rb") as file:
            data = file.read()
        seen, pos = set(), 0
        while pos < len(data):
            number, i, size = struct.unpack_from("<IIQ", data, pos)
            self.assertEqual(data[pos + 16:pos + size], bytes([number % 255 + 1]) * (size - 16))
            self.assertNotIn((number, i), seen)
            seen.add((number, i))
            pos += size
        self.assertEqual(len(seen), 3 * writers)

    def test_two_hundred_processes_append_and_no_record_is_lost(self):
        self.appends_lose_nothing(0)

    def test_two_hundred_processes_append_directly_and_no_record_is_lost(self):
        self.appends_lose_nothing(os.O_DIRECT)

    def test_locks_hold_between_processes(self):
        path = self.file("f", b"x" * 100)

        def try_lock(call):
            with open(path, "r+b") as other:
                return places.errno_of(call, other)

        def flock(file):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        def posix(file):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20)

        def ofd(file):
            fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 20, 10, 0))  # F_OFD_SETLK

        with open(path, "r+b") as mine:
            for call in (flock, posix, ofd):
                call(mine)
                self.assertEqual(child_ends(try_lock, call), E.EAGAIN)
                fcntl.flock(mine, fcntl.LOCK_UN)
                fcntl.lockf(mine, fcntl.LOCK_UN)
                fcntl.fcntl(mine, 37, struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0))
                self.assertEqual(child_ends(try_lock, call), 0)
            posix(mine)
        self.assertEqual(child_ends(try_lock, posix), 0)

    # --- limits ---

    def beyond_the_limit(self, call, ignore):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if ignore else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))
        return places.errno_of(call)

    def test_the_file_size_limit_of_a_process_is_a_signal_or_efbig(self):
        fd = self.open("f")
        for call in (lambda: os.pwrite(fd, b"x", 10000), lambda: os.ftruncate(fd, 10001), lambda: fallocate(fd, 0, 0, 10001)):
            self.assertEqual(child_ends(self.beyond_the_limit, call, True), E.EFBIG)
            self.assertEqual(child_ends(self.beyond_the_limit, call, False), -signal.SIGXFSZ)
        self.assertEqual(child_ends(self.beyond_the_limit, lambda: sys.exit(0 if os.pwrite(fd, b"x" * 100, 9950) == 50 else 1), True), 255)
        self.assertEqual(os.fstat(fd).st_size, 10000)

    def test_the_largest_file_ends_at_2_to_the_63_less_1(self):
        fd = self.open("f")
        self.assertEqual(os.pwrite(fd, b"end", LARGEST - 3), 3)
        self.assertEqual(os.fstat(fd).st_size, LARGEST)
        self.assert_errno(E.EINVAL, os.pwrite, fd, b"x", LARGEST)  # its end has no number
        self.assertEqual(os.pread(fd, 5, LARGEST - 5), b"\0\0end")
        self.assert_errno(E.EINVAL, os.ftruncate, fd, -1)
        os.ftruncate(fd, 0)

    def test_an_executable_that_runs_is_busy(self):
        program = self.path("sleep")
        harness.run("cp", "/bin/sleep", program)
        import subprocess
        running = subprocess.Popen([program, "60"])
        try:
            harness.wait_for(lambda: os.readlink(f"/proc/{running.pid}/exe") == program, what="exec")
            self.assert_errno(E.ETXTBSY, os.open, program, os.O_WRONLY)
        finally:
            running.kill()
            running.wait()
        fd = os.open(program, os.O_WRONLY)
        self.assert_errno(E.ETXTBSY, subprocess.run, [program, "0"])
        os.close(fd)

    # --- coherence ---

    def test_direct_buffered_and_mapped_see_each_other(self):
        fd = self.open("f")
        os.pwrite(fd, b"0" * 16 * BLOCK, 0)
        direct = self.open("f", os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 4 * BLOCK)
        with mmap.mmap(fd, 16 * BLOCK) as mapped:
            self.assertEqual(mapped[2 * BLOCK], ord("0"))
            for step in range(1, 10):
                byte = bytes([step])
                page[:] = byte * 4 * BLOCK
                self.assertEqual(os.pwritev(direct, [page], 2 * BLOCK), 4 * BLOCK)
                self.assertEqual((os.pread(fd, 9, 3 * BLOCK), mapped[3 * BLOCK:3 * BLOCK + 9]), (byte * 9, byte * 9))
                mapped[8 * BLOCK:9 * BLOCK] = byte * BLOCK
                mapped.flush()
                self.assertEqual(os.preadv(direct, [page], 8 * BLOCK), 4 * BLOCK)
                self.assertEqual((page[:BLOCK], os.pread(fd, 9, 8 * BLOCK)), (byte * BLOCK, byte * 9))
                os.pwrite(fd, byte * 5000, 12 * BLOCK)
                self.assertEqual(mapped[12 * BLOCK:12 * BLOCK + 5000], byte * 5000)
                self.assertEqual(os.preadv(direct, [page], 12 * BLOCK), 4 * BLOCK)
                self.assertEqual(page[:5000], byte * 5000)
            page[:] = b"e" * 4 * BLOCK
            os.pwritev(direct, [page], 20 * BLOCK)
            self.assertEqual(os.fstat(fd).st_size, 24 * BLOCK)
            self.assertEqual(os.pread(fd, 2, 20 * BLOCK - 1), b"\0e")
            os.ftruncate(fd, 4 * BLOCK)
            self.assertEqual(os.preadv(direct, [page], 4 * BLOCK), 0)

    def test_what_only_writes_is_seen_by_readers_and_mappings_and_keeps_what_they_stored(self):
        fd = self.open("f")
        os.pwrite(fd, b"0" * 8 * BLOCK, 0)
        writer, reader = self.open("f", os.O_WRONLY), self.open("f", os.O_RDONLY)
        with mmap.mmap(fd, 8 * BLOCK) as mapped:
            for step in range(1, 20):
                byte, at = bytes([step]), step * 997 % (7 * BLOCK)
                mapped[at + 200:at + 210] = b"m" * 10
                self.assertEqual(os.pread(reader, 100, at), mapped[at:at + 100])
                self.assertEqual(os.pwrite(writer, byte * 100, at), 100)
                self.assertEqual(os.pread(reader, 100, at), byte * 100)
                self.assertEqual(mapped[at:at + 100], byte * 100)
                self.assertEqual(mapped[at + 200:at + 210], b"m" * 10)
                os.pwrite(fd, b"b" * 50, at + 25)
                self.assertEqual(os.pread(reader, 100, at), byte * 25 + b"b" * 50 + byte * 25)
            # From the file's own pages, and past its end.
            self.assertEqual(os.pwrite(writer, memoryview(mapped)[BLOCK:3 * BLOCK], 7 * BLOCK), 2 * BLOCK)
            self.assertEqual(os.fstat(reader).st_size, 9 * BLOCK)
            self.assertEqual(os.pread(reader, 2 * BLOCK, 7 * BLOCK), mapped[BLOCK:3 * BLOCK])


places.variants(Data, globals())
del globals()["Data"]

if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
