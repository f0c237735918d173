#!/usr/bin/env python3
"""FS_IOC_SHUTDOWN and mendctl shutdown: who may, what works afterwards, what the next mount has."""
import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import mendctl, program, run, wait_for

FS_IOC_SHUTDOWN = 0x8004587D
MODES = {"default": 0, "logflush": 1, "nologflush": 2}


def ask(path, mode):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, bytearray(struct.pack("I", mode)))
    finally:
        os.close(fd)


def by_ioctl(mount, mode):
    ask(mount.directory, MODES[mode])


def by_mendctl(mount, mode):
    answer = json.loads(mendctl("shutdown", mount.directory, "--mode", mode, "--json").stdout)
    assert answer["version"] == 1 and [f["state"] for f in answer["filesystems"]] == ["shutdown"], answer


def error_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


class Writer(threading.Thread):
    """Makes and syncs small files, then writes the same to them again, until something fails; counts what was acknowledged."""
    FILES = 400

    def __init__(self, mount, number):
        super().__init__()
        self.mount, self.number, self.next, self.done, self.error = mount, number, 0, 0, 0

    def name(self, i):
        return self.mount.path(f"w{self.number}-{i}")

    def content(self, i):
        return struct.pack("<QQ", self.number, i) * 700

    def run(self):
        while not self.error:
            self.error = error_of(self.write)

    def write(self):
        i = self.next % self.FILES
        fd = os.open(self.name(i), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(fd, self.content(i))
            os.fsync(fd)
            self.next += 1
            self.done = max(self.done, i + 1)
        finally:
            os.close(fd)

    def check(self, case):
        for i in range(self.done):
            with open(self.name(i), "rb") as file:
                case.assertEqual(file.read(), self.content(i), self.name(i))


class Case(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        self.mount = self.mounted("allow_other")

    def digest(self):
        with open(self.mount.image, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    def make(self, name, data=b"text\n"):
        with open(self.mount.path(name), "wb") as file:
            file.write(data)
        return self.mount.path(name)

    def read(self, name):
        with open(self.mount.path(name), "rb") as file:
            return file.read()


class Modes(Case):
    def each(self, stop):
        for mode in MODES:
            with self.subTest(mode=mode):
                self.stop_once(stop, mode)

    def stop_once(self, stop, mode):
        path = self.make(f"file-{mode}")
        held = os.open(path, os.O_RDWR)
        try:
            os.pread(held, 5, 0)
            monitor = self.monitor(self.mount.directory)
            stop(self.mount, mode)
            self.assertEqual(monitor.wait("shutdown")["reasons"], ["force_umount"])
            monitor.close()
            self.expect_nothing_works(path, held)
        finally:
            os.close(held)
        self.mount.remount()
        self.assertEqual(self.read(f"file-{mode}"), b"text\n")
        self.make(f"again-{mode}")

    def expect_nothing_works(self, path, held):
        there = self.mount.path("new")
        for call in ((os.stat, path), (os.open, path, os.O_RDONLY), (os.mkdir, there), (os.unlink, path), (os.rename, path, there),
                     (os.listdir, self.mount.directory), (os.fsync, held), (os.pwrite, held, b"x", 0), (os.fchmod, held, 0o600),
                     (os.ftruncate, held, 0), (os.posix_fallocate, held, 0, 10000), (os.getxattr, path, "user.a"), (os.symlink, "a", there)):
            self.assertEqual(error_of(*call), errno.EIO, call)
        # Pages go a moment after the attributes.
        wait_for(lambda: error_of(os.pread, held, 5, 0) == errno.EIO, what="EIO of a read that was cached")
        self.assertGreater(os.statvfs(self.mount.directory).f_blocks, 0)
        self.assertEqual(json.loads(mendctl("list", self.mount.directory, "--json").stdout)["filesystems"][0]["state"], "shutdown")
        self.assertEqual(json.loads(mendctl("damaged", self.mount.directory, "--json").stdout)["damaged"], [])

    def test_by_ioctl(self):
        self.each(by_ioctl)

    def test_by_mendctl(self):
        self.each(by_mendctl)

    def test_by_xfs_io(self):
        tool = shutil.which("xfs_io", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if not tool:
            self.skipTest("no xfs_io: scripts/setup installs xfsprogs")
        for command in ("shutdown", "shutdown -f"):
            self.make("file")
            run(tool, "-x", "-c", command, self.mount.directory)
            self.assertEqual(error_of(os.stat, self.mount.path("file")), errno.EIO)
            self.mount.remount()
            self.assertEqual(self.read("file"), b"text\n")

    def test_twice_is_once(self):
        by_ioctl(self.mount, "nologflush")
        self.assertIn(error_of(by_ioctl, self.mount, "default"), (0, errno.EIO))  # EIO where opening a directory is a request
        by_mendctl(self.mount, "default")

    def test_what_was_mapped_is_saved_by_the_default_mode(self):
        path = self.make("mapped", bytes(16384))
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 16384) as view:
            view[:] = b"m" * 16384
            by_mendctl(self.mount, "default")
        self.mount.remount()
        self.assertEqual(self.read("mapped"), b"m" * 16384)

    def test_nothing_reaches_the_image_after_nologflush(self):
        path = self.make("mapped", bytes(16384))
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 16384) as view:
            view[:4096] = b"m" * 4096
            by_ioctl(self.mount, "nologflush")
            before = self.digest()
            pid = os.fork()
            if pid == 0:  # a SIGBUS as soon as the page has been dropped
                view[:8192] = b"n" * 8192
                os._exit(0)
            os.waitpid(pid, 0)
            error_of(view.flush)
        self.mount.umount()
        self.assertEqual(self.digest(), before)
        self.mount.mount()


class Load(Case):
    def start(self):
        writers = [Writer(self.mount, number) for number in range(4)]
        for writer in writers:
            writer.start()
        wait_for(lambda: all(writer.done >= 10 for writer in writers), what="writers at work")
        return writers

    def stop_beside_writers(self, stop, mode):
        writers = self.start()
        stop(self.mount, mode)
        before = self.digest()
        for writer in writers:
            writer.join(harness.TIMEOUT)
            self.assertEqual(writer.error, errno.EIO)
        self.assertEqual(self.digest(), before)
        self.mount.umount()
        self.assertEqual(self.digest(), before)
        run(program("fsck.mendfs"), "-f", "-n", self.mount.image)
        self.mount.mount()
        for writer in writers:
            writer.check(self)
            for i in range(writer.done + 1):
                if os.path.exists(writer.name(i)):
                    os.unlink(writer.name(i))

    def test_what_was_acknowledged_is_there(self):
        for stop in (by_ioctl, by_mendctl):
            for mode in MODES:
                with self.subTest(mode=mode, stop=stop.__name__):
                    self.stop_beside_writers(stop, mode)

    def test_fio_ends_with_eio_and_umount_works(self):
        if not shutil.which("fio"):
            self.skipTest("no fio: scripts/setup installs it")
        fio = subprocess.Popen(["fio", "--name=load", f"--directory={self.mount.directory}", "--rw=randrw", "--bs=4k", "--size=8M", "--direct=1",
                                "--time_based", "--runtime=60", "--numjobs=2", "--minimal"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, cwd=self.folder)
        self.addCleanup(fio.stdout.close)
        writes = lambda: sum(r["count"] for r in json.loads(mendctl("stats", self.mount.directory, "--json").stdout)["requests"] if r["opcode"] == "WRITE")
        wait_for(lambda: writes() > 200, what="fio at work")
        by_ioctl(self.mount, "nologflush")
        text = fio.communicate(timeout=harness.TIMEOUT)[0].decode()
        self.assertIn("Input/output error", text)
        self.mount.remount()


class Refused(Case):
    def works(self):
        self.make("works")
        self.assertEqual(self.read("works"), b"text\n")

    def in_child(self, prepare, mode=2):
        pid = os.fork()
        if pid == 0:
            try:
                prepare()
                os._exit(error_of(ask, self.mount.directory, mode))
            except BaseException:
                os._exit(255)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_without_the_capability(self):
        def nobody():
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)

        self.assertEqual(self.in_child(nobody), errno.EPERM)
        self.works()

    def test_root_that_has_dropped_it(self):
        script = ("import fcntl,os,sys\nfd=os.open(sys.argv[1],os.O_RDONLY)\ntry:\n fcntl.ioctl(fd,0x8004587D,bytearray(4))\n"
                  "except OSError as e:\n sys.exit(e.errno)\n")
        for words in (("setpriv", "--bounding-set=-sys_admin"), ("unshare", "-U", "-r")):
            if run(*words, "true", check=False).returncode:
                continue
            done = run(*words, sys.executable, "-c", script, self.mount.directory, check=False)
            self.assertEqual(done.returncode, errno.EPERM, done.stderr)
        self.works()

    def test_modes_that_do_not_exist_and_words_that_are_not_there(self):
        self.assertEqual(error_of(ask, self.mount.directory, 3), errno.EINVAL)
        self.assertEqual(error_of(ask, self.mount.directory, 0xFFFFFFFF), errno.EINVAL)
        fd = os.open(self.mount.directory, os.O_RDONLY)
        try:
            self.assertEqual(error_of(fcntl.ioctl, fd, FS_IOC_SHUTDOWN, 8), errno.EFAULT)
        finally:
            os.close(fd)
        self.assertEqual(mendctl("shutdown", self.mount.directory, "--mode", "sudden", check=False).returncode, 2)
        self.assertEqual(mendctl("shutdown", self.mount.image + ".not", check=False).returncode, 1)
        self.works()


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
