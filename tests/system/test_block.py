#!/usr/bin/env python3
"""Block devices: loop devices over files, mounted as fuseblk, and as plain FUSE where that is asked for."""
import ctypes
import errno
import mmap
import os
import shutil
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, mendctl_json, program, run

MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


class BlockCase(harness.Case):
    fsck_after = True

    def make_backing(self, size=128 * MIB, name="backing"):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def fill(self, mount, name, size):
        data = os.urandom(size)
        with open(mount.path(name), "wb") as file:
            file.write(data)
        return data

    def content(self, mount, name):
        with open(mount.path(name), "rb") as file:
            return file.read()


class Files(BlockCase):
    def test_files_names_and_clones_survive_a_remount(self):
        mount = self.mounted(image=self.make_device())
        data = self.fill(mount, "file", 5 * MIB + 123)
        run("cp", mount.path("file"), mount.path("copy"))
        os.makedirs(mount.path("a", "b"))
        os.rename(mount.path("copy"), mount.path("a", "b", "moved"))
        os.symlink("a/b/moved", mount.path("link"))
        self.assertTrue(all(extent["shared"] for extent in mendctl_json("map", mount.path("file"))))
        mount.remount()
        self.assertEqual(self.content(mount, "file"), data)
        self.assertEqual(self.content(mount, "link"), data)

    def test_what_was_synced_is_in_the_backing_file(self):
        device = self.make_device()
        mount = self.mounted(image=device)
        with open(mount.path("file"), "wb") as file:
            file.write(b"needle in a loop device" * 100)
            file.flush()
            os.fsync(file.fileno())
        with open(os.path.join(self.folder, "backing"), "rb") as file:
            self.assertIn(b"needle in a loop device", file.read())

    def test_kill_9_of_the_daemon_loses_nothing(self):
        mount = self.mounted(image=self.make_device())
        for i in range(50):
            self.fill(mount, f"file{i}", 1000 * i)
        sizes = {name: os.path.getsize(mount.path(name)) for name in os.listdir(mount.directory)}
        mount.kill()
        run(program("fsck.mendfs"), "-f", "-n", mount.image, check=False)
        mount.mount()
        self.assertEqual({name: os.path.getsize(mount.path(name)) for name in os.listdir(mount.directory)}, sizes)

    def test_a_device_that_became_larger_is_grown_into(self):
        device = self.make_device()
        mount = self.mounted(image=device)
        data = self.fill(mount, "before", 3 * MIB)
        before = os.statvfs(mount.directory).f_blocks
        os.truncate(os.path.join(self.folder, "backing"), 256 * MIB)
        run("losetup", "-c", device)
        mendctl("resize", mount.directory)
        self.assertGreater(os.statvfs(mount.directory).f_blocks, before * 3 // 2)
        more = self.fill(mount, "after", 120 * MIB)
        mount.remount()
        self.assertEqual(self.content(mount, "before"), data)
        self.assertEqual(self.content(mount, "after"), more)

    def test_a_write_protected_device_is_mounted_read_only(self):
        device = self.make_device()
        mount = harness.Mount(device, os.path.join(self.folder, "mnt"))
        try:
            data = self.fill(mount, "file", MIB)
        finally:
            mount.umount()
        self.detach(device)
        protected = self.attach(os.path.join(self.folder, "backing"), "-r")
        done = run(program("mendfs"), protected, mount.directory, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("-o ro", done.stderr)
        readonly = self.mounted("ro", image=protected, name="ro")
        self.assertEqual(self.content(readonly, "file"), data)
        with self.assertRaises(OSError) as caught:
            open(readonly.path("new"), "w")
        self.assertEqual(caught.exception.errno, errno.EROFS)


class Claim(BlockCase):
    def refused(self, *command):
        done = run(*command, check=False)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return done.stderr

    def test_a_mounted_device_is_refused_to_everybody_else(self):
        device = self.make_device()
        mount = self.mounted(image=device)
        other = os.path.join(self.folder, "other")
        os.mkdir(other)
        self.assertIn(mount.directory, self.refused(program("mendfs"), device, other))
        self.assertIn(mount.directory, self.refused(program("mkfs.mendfs"), "-f", device))
        self.assertIn(mount.directory, self.refused(program("fsck.mendfs"), "-n", device))
        with self.assertRaises(OSError) as caught:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        self.assertEqual(caught.exception.errno, errno.EBUSY)
        self.assertEqual({item["mountpoint"]: item["device"] for item in mendctl_json("list")}[mount.directory], device)

    def test_what_a_kernel_filesystem_has_mounted_is_refused_with_its_place(self):
        device = self.attach(self.make_backing())
        if run("mkfs.ext4", "-q", device, check=False).returncode:
            self.skipTest("no mkfs.ext4")
        place = os.path.join(self.folder, "ext4")
        os.mkdir(place)
        run("mount", device, place)
        try:
            self.assertIn(place, self.refused(program("mkfs.mendfs"), "-f", device))
        finally:
            run("umount", place)
        self.assertIn("ext4", self.refused(program("mkfs.mendfs"), device))
        run(program("mkfs.mendfs"), "-q", "-f", device)


class Fuseblk(BlockCase):
    def line(self, mount):
        with open("/proc/self/mountinfo") as file:
            return next(line.split() for line in file if line.split()[4] == mount.directory)

    def requests(self, mount):
        return {item["opcode"]: item["count"] for item in mendctl_json("stats", mount.directory)}

    def test_the_mount_table_shows_fuseblk_and_the_device(self):
        mount = self.mounted(image=self.make_device())
        line = self.line(mount)
        dash = line.index("-")
        number = os.stat(mount.image).st_rdev
        self.assertEqual(line[dash + 1:dash + 3], ["fuseblk.mendfs", mount.image])
        self.assertEqual(line[2], f"{os.major(number)}:{os.minor(number)}")
        self.assertEqual(os.stat(mount.directory).st_dev, number)
        self.assertEqual({item["mountpoint"]: item["device"] for item in mendctl_json("list")}[mount.directory], mount.image)

    def test_umount_returns_when_the_daemon_has_let_go_of_everything(self):
        """The system call itself, no helper: at its return nobody has the device open."""
        backing = self.make_backing(64 * MIB)
        for round_ in range(8):
            device = self.attach(backing)
            run(program("mkfs.mendfs"), "-q", "-f", device)
            mount = harness.Mount(device, os.path.join(self.folder, "mnt"), "commit=3600")
            self.addCleanup(mount.umount)
            data = self.fill(mount, "file", 8 * MIB)
            self.assertEqual(LIBC.umount2(mount.directory.encode(), 0), 0)
            run("losetup", "-d", device)
            self.assertFalse(os.path.exists(f"/sys/block/{os.path.basename(device)}/loop"), f"round {round_}: it was still open")
            mount.umount()
            run(program("fsck.mendfs"), "-f", "-n", backing)
            plain = harness.Mount(backing, os.path.join(self.folder, "plain"))  # the same bytes, as an image file
            try:
                self.assertEqual(self.content(plain, "file"), data)
            finally:
                plain.umount()

    def names_after_a_host_crash(self):
        """What the backing file has at this moment, seen by another boot."""
        copy = os.path.join(self.folder, "copy")
        shutil.copyfile(os.path.join(self.folder, "backing"), copy)
        os.environ["MENDFS_BOOT_ID"] = "another boot"
        self.addCleanup(os.environ.pop, "MENDFS_BOOT_ID", None)
        mount = harness.Mount(copy, os.path.join(self.folder, "crashed"))
        try:
            return {name: self.content(mount, name) for name in os.listdir(mount.directory)}
        finally:
            mount.umount()
            del os.environ["MENDFS_BOOT_ID"]

    def test_sync_and_syncfs_reach_the_daemon_and_make_durable(self):
        mount = self.mounted("commit=3600", image=self.make_device("64M"))
        fd = os.open(mount.directory, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        first = self.fill(mount, "first", 100000)
        self.assertEqual(LIBC.syncfs(fd), 0)
        self.assertEqual(self.requests(mount)["SYNCFS"], 1)
        second = self.fill(mount, "second", 5000)
        found = self.names_after_a_host_crash()
        self.assertEqual(found.get("first"), first)
        self.assertNotIn("second", found)
        os.sync()
        self.assertEqual(self.requests(mount)["SYNCFS"], 2)
        self.assertEqual(self.names_after_a_host_crash().get("second"), second)

    def test_after_sigterm_everything_is_written_and_free(self):
        device = self.make_device()
        mount = self.mounted("commit=3600", image=device)
        data = self.fill(mount, "file", 3 * MIB)
        mount.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(mount.daemon.wait(harness.TIMEOUT), 0)
        self.assertFalse(mount.is_mounted())
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
        mount.remount()
        self.assertEqual(self.content(mount, "file"), data)

    def test_the_dead_mount_of_a_killed_daemon_keeps_the_device_and_is_named(self):
        mount = self.mounted(image=self.make_device())
        data = self.fill(mount, "file", MIB)
        mount.daemon.kill()
        mount.daemon.wait()
        done = run(program("fsck.mendfs"), "-n", mount.image, check=False)
        self.assertEqual(done.returncode, 8)
        self.assertIn(f"umount {mount.directory}", done.stderr)
        run("umount", mount.directory)
        mount.log.close()
        mount.mount()
        self.assertEqual(self.content(mount, "file"), data)

    def test_forced_and_lazy_unmounts_end_the_daemon(self):
        mount = self.mounted(image=self.make_device())
        for flag in ("-f", "-l"):
            data = self.fill(mount, "file", MIB)
            run("umount", flag, mount.directory)
            self.assertEqual(mount.daemon.wait(harness.TIMEOUT), 0)
            mount.remount()
            self.assertEqual(self.content(mount, "file"), data)

    def test_mapped_and_cached_writes_are_there_after_umount(self):
        device = self.make_device()
        for option in ("rw", "writeback"):
            mount = self.mounted(option, image=device, name=option)
            self.fill(mount, "file", MIB)
            with open(mount.path("file"), "r+b") as file:
                with mmap.mmap(file.fileno(), MIB) as mapped:
                    mapped[5000:5004] = b"page"
                file.seek(9000)
                file.write(b"buffered")
            mount.remount()
            content = self.content(mount, "file")
            self.assertEqual((content[5000:5004], content[9000:9008]), (b"page", b"buffered"))
            mount.umount()

    def test_it_can_be_mounted_as_plain_fuse(self):
        mount = self.mounted("no_fuseblk", image=self.make_device())
        self.assertIn("fuse.mendfs", self.line(mount))
        self.fill(mount, "file", MIB)
        os.sync()
        self.assertNotIn("SYNCFS", self.requests(mount))
        with self.assertRaises(OSError):  # still claimed, by the daemon itself
            os.open(mount.image, os.O_RDONLY | os.O_EXCL)

    def test_where_fuseblk_cannot_be_had_it_is_plain_fuse(self):
        """The kernel takes the name that the mount table is to show for the device of a fuseblk mount."""
        device = self.make_device()
        mount = self.mounted("fsname=another", image=device)
        self.assertIn("fuse.mendfs", self.line(mount))
        self.assertIn("cannot be mounted as fuseblk", mount.read_log())
        self.fill(mount, "file", MIB)
        with self.assertRaises(OSError):
            os.open(device, os.O_RDONLY | os.O_EXCL)


class Poison(BlockCase):
    def eio(self, path, offset):
        with open(path, "rb", buffering=0) as file, self.assertRaises(OSError) as caught:
            os.pread(file.fileno(), BLOCK, offset)
        self.assertEqual(caught.exception.errno, errno.EIO)

    def test_injected_errors_last_until_unmount_and_the_record_stays(self):
        device = self.make_device()
        mount = self.mounted(image=device)
        data = self.fill(mount, "file", 10 * BLOCK)
        monitor = self.monitor(mount.directory)
        mendctl("inject-error", mount.directory, "--file", mount.path("file"), "--offset", 5000, "--length", 1)
        self.assertEqual(monitor.wait("file_damaged")["paths"], ["/file"])
        self.eio(mount.path("file"), BLOCK)
        self.assertFalse(os.path.exists(device + ".poison"))
        mount.remount()
        self.eio(mount.path("file"), BLOCK)
        with open(mount.path("file"), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data[BLOCK:2 * BLOCK], BLOCK)
        self.assertEqual(self.content(mount, "file"), data)
        mount.umount()
        done = run(program("mendctl"), "inject-error", device, "--device-offset", 8 * MIB, "--length", 1, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("mount it first", done.stderr)

    def test_an_io_error_of_the_device_is_found_told_and_healed(self):
        """A loop device over a file of another mendfs, in which one block is bad: EIO for exactly that block."""
        outer = self.mounted(size="256M", name="outer")
        path = outer.path("backing")
        with open(path, "wb") as file:
            file.truncate(96 * MIB)
        device = self.attach(path)
        run(program("mkfs.mendfs"), "-q", device)
        inner = self.mounted(image=device, name="inner")
        data = self.fill(inner, "file", 40 * BLOCK)
        place = mendctl_json("map", inner.path("file"))[0]["device_offset"] + 7 * BLOCK
        inner.umount()  # nothing of it is in the page cache of the device any more
        run("blockdev", "--flushbufs", device)
        mendctl("inject-error", outer.directory, "--file", path, "--offset", place, "--length", 1)
        inner.mount()
        monitor = self.monitor(inner.directory)
        self.eio(inner.path("file"), 7 * BLOCK)
        event = monitor.wait("media_failure")
        self.assertEqual((event["device_offset"], event["len"], event["source"]), (place, BLOCK, "sigbus"))
        self.assertEqual(monitor.wait("file_damaged")["paths"], ["/file"])
        for block in range(40):
            if block != 7:
                with open(inner.path("file"), "rb", buffering=0) as file:
                    self.assertEqual(os.pread(file.fileno(), BLOCK, block * BLOCK), data[block * BLOCK:(block + 1) * BLOCK])
        with open(inner.path("file"), "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data[7 * BLOCK:8 * BLOCK], 7 * BLOCK)
            os.fsync(file.fileno())
        self.assertEqual(mendctl_json("damaged", inner.directory), [])
        inner.remount()
        self.assertEqual(self.content(inner, "file"), data)


if __name__ == "__main__":
    harness.need_mounts()
    if not harness.has_loops():
        print("SKIP: no loop device can be made here")
        raise SystemExit(77)
    unittest.main()
