#!/usr/bin/env python3
"""ioctls that reach a FUSE server, by the tools that people use: lsattr, chattr and xfs_io; and what they cause."""
import errno
import fcntl
import json
import os
import shutil
import struct
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import mendctl, mendctl_json, program, run

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FS_IOC_GETFSLABEL, FS_IOC_SETFSLABEL = 0x81009431, 0x41009432
NOBODY = 65534


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        print(f"SKIP: no {name}: scripts/setup installs it")
        raise SystemExit(77)
    return path


def ioctl(path, code, data=b"", flags=os.O_RDONLY):
    fd = os.open(path, flags)
    try:
        buffer = bytearray(data)
        fcntl.ioctl(fd, code, buffer)
        return bytes(buffer)
    finally:
        os.close(fd)


def as_user(function, uid=NOBODY):
    """errno of what the function does as somebody else, 0 when it succeeds."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            function()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Case(harness.Case):
    """Every mount ends with a filesystem that fsck finds nothing wrong with."""
    fsck_after = True

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        self.start("allow_other")

    def start(self, *options, size="64M"):
        self.image = self.make_image(size)
        self.addCleanup(self.check)
        self.mount = self.mounted(*options, image=self.image)

    def check(self):
        run(program("fsck.mendfs"), "-f", "-n", self.image)

    def make(self, name, data=b"text\n"):
        path = self.mount.path(name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def refused(self, number, function, *arguments):
        with self.assertRaises(OSError) as caught:
            function(*arguments)
        self.assertEqual(caught.exception.errno, number, os.strerror(caught.exception.errno))


class Flags(Case):
    def lsattr(self, path):
        return set(run(tool("lsattr"), "-d", path).stdout.split()[0]) - {"-"}

    def chattr(self, *words, check=True):
        return run(tool("chattr"), *words, check=check)

    def test_chattr_sets_and_lsattr_shows_on_files_and_directories(self):
        path, directory = self.make("file"), self.mount.path("dir")
        os.mkdir(directory)
        self.chattr("+Ad", path)
        self.chattr("+DSAd", directory)
        self.assertEqual(self.lsattr(path), set("Ad"))
        self.assertEqual(self.lsattr(directory), set("DSAd"))
        self.chattr("-A", path)
        self.mount.remount()
        self.assertEqual(self.lsattr(path), set("d"))
        self.assertEqual(self.lsattr(directory), set("DSAd"))
        self.chattr("=", path)
        self.assertEqual(self.lsattr(path), set())

    def test_what_no_filesystem_here_can_do_is_refused(self):
        path = self.make("file")
        done = self.chattr("+c", path, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("not supported", done.stderr)
        self.refused(errno.EOPNOTSUPP, ioctl, path, FS_IOC_SETFLAGS, struct.pack("q", 0x80000))
        self.assertEqual(self.lsattr(path), set())

    def test_ctime_follows_at_once(self):
        path = self.make("file")
        before = os.stat(path).st_ctime_ns
        self.chattr("+d", path)
        self.assertGreater(os.stat(path).st_ctime_ns, before)

    def test_many_set_flags_while_others_write(self):
        """The work is done on other threads than the answers; each caller sees its ctime at once."""
        failures = []

        def change(number):
            path = self.make(f"file{number}")
            for value in (0x40, 0x80, 0xC0, 0) * 25:
                before = os.stat(path).st_ctime_ns
                ioctl(path, FS_IOC_SETFLAGS, struct.pack("q", value))
                after = os.stat(path).st_ctime_ns
                now = struct.unpack("I", ioctl(path, FS_IOC_GETFLAGS, bytes(8))[:4])[0]
                if now != value or after <= before:
                    failures.append((number, value, now, after - before))
                with open(path, "ab") as file:
                    file.write(bytes(5000))

        threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual([os.path.getsize(self.mount.path(f"file{number}")) for number in range(8)], [5 + 100 * 5000] * 8)

    def test_immutable_files_cannot_be_changed_by_anybody(self):
        path, other = self.make("file"), self.make("other")
        held = os.open(path, os.O_WRONLY)
        self.addCleanup(os.close, held)
        self.chattr("+i", path)
        self.addCleanup(self.chattr, "-i", path)
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC):
            self.refused(errno.EPERM, os.open, path, flags)
        self.refused(errno.EPERM, os.write, held, b"x")
        self.refused(errno.EPERM, os.truncate, path, 0)
        self.refused(errno.EPERM, os.chmod, path, 0o600)
        self.refused(errno.EPERM, os.chown, path, 1, 1)
        self.refused(errno.EPERM, os.utime, path)
        self.refused(errno.EPERM, os.utime, path, (1, 1))
        self.refused(errno.EPERM, os.link, path, self.mount.path("link"))
        self.refused(errno.EPERM, os.unlink, path)
        self.refused(errno.EPERM, os.rename, path, self.mount.path("moved"))
        self.refused(errno.EPERM, os.rename, other, path)
        self.refused(errno.EPERM, os.posix_fallocate, held, 0, 100000)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"text\n")

    def test_immutable_directories_keep_their_names(self):
        directory = self.mount.path("dir")
        os.mkdir(directory)
        path = self.make("dir/file")
        self.chattr("+i", directory)
        self.addCleanup(self.chattr, "-i", directory)
        self.refused(errno.EPERM, open, self.mount.path("dir/new"), "w")
        self.refused(errno.EPERM, os.mkdir, self.mount.path("dir/sub"))
        self.refused(errno.EPERM, os.symlink, "to", self.mount.path("dir/symlink"))
        self.refused(errno.EPERM, os.unlink, path)
        self.refused(errno.EPERM, os.rename, path, self.mount.path("out"))
        with open(path, "a") as file:
            file.write("the file is another matter\n")

    def test_append_only_files_grow_and_do_nothing_else(self):
        path = self.make("log", b"one\n")
        held = os.open(path, os.O_WRONLY)
        self.chattr("+a", path)
        self.addCleanup(self.chattr, "-a", path)
        self.assertEqual(self.lsattr(path), set("a"))
        self.refused(errno.EPERM, os.open, path, os.O_WRONLY)
        self.refused(errno.EPERM, os.open, path, os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
        self.refused(errno.EPERM, os.pwrite, held, b"x", 0)
        self.refused(errno.EPERM, os.ftruncate, held, 0)
        self.refused(errno.EPERM, os.unlink, path)
        self.refused(errno.EPERM, os.rename, path, self.mount.path("log.1"))
        for text in ("two\n", "three\n"):
            with open(path, "a") as file:
                file.write(text)
        os.close(held)
        self.mount.remount()
        with open(path) as file:
            self.assertEqual(file.read(), "one\ntwo\nthree\n")

    def test_only_root_makes_immutable_and_only_the_owner_the_rest(self):
        path = self.make("file")
        os.chown(path, NOBODY, NOBODY)
        flag = lambda value: lambda: ioctl(path, FS_IOC_SETFLAGS, struct.pack("q", value))
        self.assertEqual(as_user(flag(0x10)), errno.EPERM)
        self.assertEqual(as_user(flag(0x20)), errno.EPERM)
        self.assertEqual(as_user(flag(0x40)), 0)
        self.assertEqual(as_user(flag(0x80), uid=1234), errno.EPERM)
        self.assertEqual(self.lsattr(path), set("d"))

    def test_directories_hand_their_flags_down(self):
        directory = self.mount.path("dir")
        os.mkdir(directory)
        self.chattr("+SDdA", directory)
        os.mkdir(self.mount.path("dir/sub"))
        self.assertEqual(self.lsattr(self.make("dir/file")), set("SdA"))
        self.assertEqual(self.lsattr(self.mount.path("dir/sub")), set("SDdA"))

    def test_a_sync_file_on_a_plain_image_is_synced_by_each_write(self):
        path = self.make("file")
        syncs = lambda: json.loads(mendctl("stats", self.mount.directory, "--json").stdout)["media"]["syncs"]
        fd = os.open(path, os.O_WRONLY)
        self.addCleanup(os.close, fd)
        self.chattr("+S", path)
        before = syncs()
        for i in range(20):
            os.pwrite(fd, b"x", i)
        self.assertGreaterEqual(syncs() - before, 20)

    def test_xfs_io_sees_and_sets_the_same(self):
        path, directory = self.make("file"), self.mount.path("dir")
        os.mkdir(directory)
        xfs_io = lambda *commands, on=path: run(tool("xfs_io"), "-r", *[word for c in commands for word in ("-c", c)], on).stdout
        xfs_io("chattr +dA")
        self.assertEqual(self.lsattr(path), set("dA"))
        xfs_io("chproj 42")
        self.assertIn("42", xfs_io("lsproj"))
        x = ioctl(path, FS_IOC_FSGETXATTR, bytes(28))
        wrong = struct.pack("2I", 0x800, 65536 + 512) + x[8:]
        self.refused(errno.EINVAL, ioctl, path, FS_IOC_FSSETXATTR, wrong)
        ioctl(path, FS_IOC_FSSETXATTR, struct.pack("2I", struct.unpack("I", x[:4])[0] | 0x800, 65536) + x[8:])
        xfs_io("chproj 7", "chattr +P", on=directory)
        self.assertIn("7", run(tool("lsattr"), "-pd", self.make("dir/inherits")).stdout.split()[0])
        self.refused(errno.EXDEV, os.link, path, self.mount.path("dir/link"))
        self.mount.remount()
        x = struct.unpack("5I8x", ioctl(path, FS_IOC_FSGETXATTR, bytes(28)))
        self.assertEqual((x[0], x[1], x[3]), (0x40 | 0x80 | 0x800, 65536, 42))

    def test_allocation_follows_the_extent_size_hint(self):
        directory = self.mount.path("dir")
        os.mkdir(directory)
        x = ioctl(directory, FS_IOC_FSGETXATTR, bytes(28))
        ioctl(directory, FS_IOC_FSSETXATTR, struct.pack("2I", 0x1000, 256 << 10) + x[8:])  # EXTSZINHERIT
        path, other = self.make("dir/file", b"a"), self.make("dir/other", b"b")
        for i in range(1, 40):
            for name in (path, other):
                with open(name, "ab") as file:
                    file.write(bytes([i]) * 5000)
        mendctl("sync", self.mount.directory)
        for name in (path, other):
            extents = harness.mendctl_json("map", name)
            self.assertEqual(os.stat(name).st_blocks * 512, 256 << 10)
            self.assertEqual(extents[0]["device_offset"] % (256 << 10), 0)
            for before, after in zip(extents, extents[1:]):
                self.assertEqual(before["device_offset"] + before["len"], after["device_offset"])
            self.assertEqual(os.path.getsize(name), 1 + 39 * 5000)

    def test_dirsync_outlives_a_change_by_xflags(self):
        directory = self.mount.path("dir")
        os.mkdir(directory)
        self.chattr("+D", directory)
        run(tool("xfs_io"), "-r", "-c", "chattr +d", directory)
        self.assertEqual(self.lsattr(directory), set("Dd"))

    def test_generation_and_unknown_codes(self):
        path = self.make("file")
        run(tool("lsattr"), "-vd", path)
        self.refused(errno.ENOTTY, ioctl, path, 0x12345678, bytes(64))
        self.refused(errno.ENOTTY, ioctl, path, 0x5401, bytes(64))  # what isatty(3) asks


class Label(Case):
    def test_the_label_is_read_by_all_and_set_by_root(self):
        where = self.mount.directory
        ioctl(where, FS_IOC_SETFSLABEL, b"a label".ljust(256, b"\0"))
        self.assertEqual(ioctl(where, FS_IOC_GETFSLABEL, bytes(256)).rstrip(b"\0"), b"a label")
        self.assertEqual(mendctl_json("list", where)[0]["label"], "a label")
        mendctl("label", where, "another")
        self.assertEqual(ioctl(where, FS_IOC_GETFSLABEL, bytes(256)).rstrip(b"\0"), b"another")
        ioctl(where, FS_IOC_SETFSLABEL, b"a label".ljust(256, b"\0"))
        self.assertEqual(as_user(lambda: ioctl(where, FS_IOC_GETFSLABEL, bytes(256))), 0)
        self.assertEqual(as_user(lambda: ioctl(where, FS_IOC_SETFSLABEL, bytes(256))), errno.EPERM)
        self.refused(errno.EINVAL, ioctl, where, FS_IOC_SETFSLABEL, b"x" * 256)
        self.refused(errno.EINVAL, ioctl, where, FS_IOC_SETFSLABEL, b"\xff\xfe".ljust(256, b"\0"))
        self.mount.remount()
        self.assertEqual(ioctl(where, FS_IOC_GETFSLABEL, bytes(256)).rstrip(b"\0"), b"a label")


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
