#!/usr/bin/env python3
"""Times: which of mtime and ctime each call changes, of the object and of the directory; every second that 64 bits can say; utimensat's NOW, OMIT and who may."""
import ctypes
import errno
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import places
from places import EXCHANGE, KEEP_SIZE, PUNCH_HOLE, as_user, fallocate, renameat2

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
PAST = 10**18


def utimensat(path, access, modification):
    """Pairs of seconds and nanoseconds."""
    spec = (ctypes.c_int64 * 4)(*access, *modification)
    places.checked(places.libc.utimensat(-100, os.fsencode(path), spec, 0), path)


class Times:
    def on_fd(self, name, flags, call):
        fd = os.open(self.path(name), flags)
        try:
            call(fd)
            os.fsync(fd)
        finally:
            os.close(fd)

    def calls(self):
        """(what, call, path of the object or None, changes of it, changes of the directory): m and c."""
        path = self.path
        rw = os.O_RDWR
        return (
            ("write", lambda: self.on_fd("f", rw, lambda fd: os.write(fd, b"x")), "f", "mc", ""),
            ("append", lambda: self.on_fd("f", rw | os.O_APPEND, lambda fd: os.write(fd, b"x" * 9000)), "f", "mc", ""),
            ("read", lambda: self.on_fd("f", rw, lambda fd: os.read(fd, 9)), "f", "", ""),
            ("truncate", lambda: os.truncate(path("f"), 3), "f", "mc", ""),
            ("ftruncate to the same size", lambda: self.on_fd("f", rw, lambda fd: os.ftruncate(fd, os.fstat(fd).st_size)), "f", "mc", ""),
            ("open with O_TRUNC", lambda: self.on_fd("f", rw | os.O_TRUNC, lambda fd: None), "f", "mc", ""),
            ("punch", lambda: self.on_fd("big", rw, lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 4096)), "big", "mc", ""),
            ("allocate", lambda: self.on_fd("f", rw, lambda fd: fallocate(fd, 0, 0, 20000)), "f", "mc", ""),
            ("allocate what is there", lambda: self.on_fd("f", rw, lambda fd: fallocate(fd, 0, 0, 20000)), "f", "mc", ""),
            ("copy", lambda: self.on_fd("f", rw, lambda fd: self.on_fd("big", rw, lambda src: os.copy_file_range(src, fd, 4096))), "f", "mc", ""),
            ("chmod", lambda: os.chmod(path("f"), 0o600), "f", "c", ""),
            ("chown", lambda: os.chown(path("f"), 3, 4), "f", "c", ""),
            ("utime", lambda: os.utime(path("f"), ns=(PAST, PAST)), "f", "c", ""),
            ("link", lambda: os.link(path("f"), path("f2")), "f", "c", "mc"),
            ("unlink one of two", lambda: os.unlink(path("f2")), "f", "c", "mc"),
            ("rename", lambda: os.rename(path("f"), path("g")), "g", None, "mc"),
            ("rename onto itself", lambda: os.rename(path("g"), path("g")), "g", "", ""),
            ("exchange", lambda: renameat2(path("g"), path("d"), EXCHANGE), None, "", "mc"),
            ("exchange back", lambda: renameat2(path("g"), path("d"), EXCHANGE), None, "", "mc"),
            ("create", lambda: os.close(os.open(path("new"), rw | os.O_CREAT)), None, "", "mc"),
            ("open what is there with O_CREAT", lambda: os.close(os.open(path("new"), rw | os.O_CREAT)), "new", "", ""),
            ("mkdir", lambda: os.mkdir(path("d/sub")), "d", "mc", ""),
            ("rmdir", lambda: os.rmdir(path("d/sub")), "d", "mc", ""),
            ("mkfifo", lambda: os.mkfifo(path("fifo")), None, "", "mc"),
            ("symlink", lambda: os.symlink("t", path("s")), None, "", "mc"),
            ("list", lambda: os.listdir(self.dir), "d", "", ""),
            ("failing unlink", lambda: places.errno_of(os.unlink, path("nothing")), "f", "", ""),
            ("failing mkdir", lambda: places.errno_of(os.mkdir, path("d")), "d", "", ""),
            ("failing rmdir", lambda: places.errno_of(os.rmdir, self.dir + "/full"), "full", "", ""),
        )

    def changes(self, path, before):
        after = os.lstat(path)
        return ("m" if after.st_mtime_ns != before.st_mtime_ns else "") + ("c" if after.st_ctime_ns != before.st_ctime_ns else "")

    def test_each_call_changes_the_times_that_posix_says(self):
        self.file("f", b"content")
        self.file("big", b"z" * 8192)
        os.mkdir(self.path("d"))
        os.mkdir(self.path("full"))
        self.file("full/inside")
        wrong = []
        for what, call, name, of_object, of_dir in self.calls():
            if name == "f" and not os.path.exists(self.path("f")):
                name = "g"
            before = os.lstat(self.path(name)) if name and os.path.lexists(self.path(name)) else None
            directory = os.stat(self.dir)
            time.sleep(0.011)  # the clock that stamps has ticks
            call()
            if before and of_object is not None and self.changes(self.path(name), before) != of_object and what != "utime":
                wrong.append(f"{what}: {self.changes(self.path(name), before)!r} of the object, not {of_object!r}")
            if self.changes(self.dir, directory) != of_dir:
                wrong.append(f"{what}: {self.changes(self.dir, directory)!r} of the directory, not {of_dir!r}")
        self.assertEqual(wrong, [])

    def test_every_second_can_be_told_to_the_nanosecond(self):
        moments = (-1, -1500000001, -2**31 * 10**9 - 999999999, 2**31 * 10**9 + 1, 2**32 * 10**9 + 123456789, 4102444800 * 10**9, 10**11 * 10**9 + 999999999,
                   -(10**11) * 10**9 + 1)
        for number, moment in enumerate(moments):
            path = self.file(f"t{number}")
            utimensat(path, divmod(moment + 7, 10**9), divmod(moment, 10**9))
        self.again()
        for number, moment in enumerate(moments):
            st = os.stat(self.path(f"t{number}"))
            self.assertEqual((st.st_mtime_ns, st.st_atime_ns), (moment, moment + 7))

    def test_now_and_omit_and_wrong_nanoseconds(self):
        path = self.file("f")
        os.utime(path, ns=(PAST, PAST))
        begin = time.time_ns() - 10**9
        utimensat(path, (0, UTIME_OMIT), (0, UTIME_NOW))
        self.assertEqual(os.stat(path).st_atime_ns, PAST)
        self.assertGreater(os.stat(path).st_mtime_ns, begin)
        utimensat(path, (0, UTIME_NOW), (5, 6))
        self.assertEqual(os.stat(path).st_mtime_ns, 5 * 10**9 + 6)
        self.assertGreater(os.stat(path).st_atime_ns, begin)
        before = os.stat(path)
        utimensat(path, (0, UTIME_OMIT), (0, UTIME_OMIT))
        after = os.stat(path)
        self.assertEqual((before.st_mtime_ns, before.st_atime_ns, before.st_ctime_ns), (after.st_mtime_ns, after.st_atime_ns, after.st_ctime_ns))
        self.assert_errno(errno.EINVAL, utimensat, path, (0, 10**9), (0, 0))

    def test_only_the_owner_sets_times_and_whoever_writes_sets_them_to_now(self):
        path = self.file("f", mode=0o666)
        self.assertEqual(as_user(lambda: utimensat(path, (0, UTIME_NOW), (0, UTIME_NOW))), 0)
        self.assertEqual(as_user(lambda: utimensat(path, (1, 1), (1, 1))), errno.EPERM)
        self.assertEqual(as_user(lambda: utimensat(path, (0, UTIME_NOW), (0, UTIME_OMIT))), errno.EPERM)
        os.chmod(path, 0o644)
        self.assertEqual(as_user(lambda: utimensat(path, (0, UTIME_NOW), (0, UTIME_NOW))), errno.EACCES)

    def test_the_time_of_birth_is_told_and_stays(self):
        path = self.file("f")
        born = harness.run("stat", "-c", "%.9W", path).stdout
        if self.is_mendfs and harness.libfuse_version() < (3, 18):
            self.assertEqual(float(born), 0)
            return
        self.assertGreater(float(born), time.time() - 3600)
        os.utime(path, (1, 1))
        with open(path, "wb") as file:
            file.write(b"later")
        self.again()
        if self.is_mendfs:
            self.assertEqual(harness.run("stat", "-c", "%.9W", path).stdout, born)

    def test_mapped_stores_change_mtime_at_msync(self):
        import mmap
        fd = self.open("f")
        os.write(fd, b"x" * 8192)
        os.fsync(fd)
        os.utime(self.path("f"), ns=(PAST, PAST))
        with mmap.mmap(fd, 8192) as mapped:
            mapped[5000] = 1
            mapped.flush()
        self.assertGreater(os.stat(self.path("f")).st_mtime_ns, PAST)


places.variants(Times, globals())
del globals()["Times"]

if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
