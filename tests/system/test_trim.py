#!/usr/bin/env python3
"""FITRIM by fstrim(8): the host gets space back, nobody loses a byte."""
import errno
import fcntl
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import mendctl, program, run, wait_for

FITRIM = 0xC0185879
MIB = 1 << 20


def trim(path, start=0, length=(1 << 64) - 1, least=0):
    fd = os.open(path, os.O_RDONLY)
    try:
        answer = bytearray(struct.pack("QQQ", start, length, least))
        fcntl.ioctl(fd, FITRIM, answer)
        return struct.unpack("QQQ", answer)[1]
    finally:
        os.close(fd)


def error_of(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except OSError as error:
        return error.errno
    return 0


class Case(harness.Case):
    fsck_after = True

    def start(self, size="256M", *options):
        os.chmod(self.folder, 0o755)
        self.mount = self.mounted("allow_other", *options, size=size)

    def host_bytes(self):
        return os.stat(self.mount.image).st_blocks * 512

    def make(self, name, size, seed=1):
        data = hashlib.shake_128(f"{name} {seed}".encode()).digest(65536) * (size // 65536)
        with open(self.mount.path(name), "wb") as file:
            file.write(data)
        return data

    def remove(self, name):
        os.truncate(self.mount.path(name), 0)
        os.unlink(self.mount.path(name))
        mendctl("sync", self.mount.directory)


class Trim(Case):
    def test_fstrim_gives_the_host_what_was_freed(self):
        tool = shutil.which("fstrim", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if not tool:
            self.skipTest("no fstrim")
        self.start()
        kept = self.make("kept", 8 * MIB)
        self.make("gone", 64 * MIB)
        self.remove("gone")
        before = self.host_bytes()
        text = run(tool, "-v", self.mount.directory).stdout
        self.assertIn("bytes) trimmed", text)
        trimmed = int(text.split("(")[1].split()[0])
        free = os.statvfs(self.mount.directory).f_bfree * 4096
        self.assertEqual(trimmed, free)
        self.assertLessEqual(self.host_bytes(), before - 64 * MIB)
        self.mount.remount()
        with open(self.mount.path("kept"), "rb") as file:
            self.assertEqual(file.read(), kept)

    def test_ranges_and_lengths(self):
        self.start()
        where, size = self.mount.directory, 256 * MIB
        self.assertLessEqual(trim(where, 64 * MIB, 16 * MIB), 16 * MIB)
        self.assertGreater(trim(where, 64 * MIB, 16 * MIB), 15 * MIB)
        self.assertEqual(trim(where, size - 4096, 1 << 60) % 4096, 0)
        self.assertEqual(trim(where, 0, size, size), 0)
        self.assertEqual(error_of(trim, where, start=size), errno.EINVAL)
        self.assertEqual(error_of(trim, where, length=1000), errno.EINVAL)
        self.assertEqual(error_of(trim, where, least=1 << 62), errno.EINVAL)
        self.assertEqual(error_of(trim, self.mount.directory), 0)
        self.make("file", MIB)
        self.assertGreater(trim(self.mount.path("file")), 0)  # any file of it, as elsewhere

    def test_only_who_may(self):
        self.start()
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os._exit(error_of(trim, self.mount.directory))
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), errno.EPERM)

    def test_a_read_only_mount_is_not_trimmed(self):
        image = self.make_image("64M")
        mount = self.mounted("ro", image=image)
        self.assertEqual(error_of(trim, mount.directory), errno.EROFS)

    def test_a_block_device_is_not(self):
        mount = self.mounted(image=self.attach(self.make_image("64M")))
        self.assertEqual(error_of(trim, mount.directory), errno.EOPNOTSUPP)

    def test_after_a_shutdown_nothing_is_trimmed(self):
        self.start()
        fd = os.open(self.mount.directory, os.O_RDONLY)
        try:
            mendctl("shutdown", self.mount.directory)
            before = self.host_bytes()
            self.assertEqual(error_of(fcntl.ioctl, fd, FITRIM, bytearray(struct.pack("QQQ", 0, 1 << 60, 0))), errno.EIO)
            self.assertEqual(self.host_bytes(), before)
        finally:
            os.close(fd)


class Beside(Case):
    def test_writers_lose_nothing(self):
        self.start("192M")
        wrong, is_over = [], threading.Event()

        def write(number):
            for seed in range(12):
                name = f"file{number}"
                data = self.make(name, 8 * MIB, seed)
                with open(self.mount.path(name), "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    if file.read() != data:
                        wrong.append((number, seed))
                if seed % 3:
                    os.unlink(self.mount.path(name))

        def trim_all():
            while not is_over.is_set():
                trim(self.mount.directory)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        trimmer = threading.Thread(target=trim_all)
        for thread in (*writers, trimmer):
            thread.start()
        for thread in writers:
            thread.join()
        is_over.set()
        trimmer.join()
        self.assertEqual(wrong, [])

    CALLER = """
import ctypes, os, signal, struct, sys
signal.signal(signal.SIGINT, lambda *_: None)
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDONLY)
print("begins", flush=True)
rc = libc.ioctl(fd, ctypes.c_ulong(FITRIM), struct.pack("QQQ", 0, 2**63, 0))
print("ends", rc and ctypes.get_errno(), flush=True)
""".replace("FITRIM", str(FITRIM))

    def call(self):
        child = subprocess.Popen([sys.executable, "-c", self.CALLER, self.mount.directory], stdout=subprocess.PIPE)
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline(), b"begins\n")
        time.sleep(0.1)
        return child

    def test_it_ends_when_its_caller_has_a_signal(self):
        self.start("8T")
        child = self.call()
        self.make("file", MIB)  # others are served meanwhile
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.stdout.readline().split(), [b"ends", str(errno.EINTR).encode()])
        child.wait(harness.TIMEOUT)
        child = self.call()
        child.kill()
        child.wait(harness.TIMEOUT)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
