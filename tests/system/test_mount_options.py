#!/usr/bin/env python3
"""Mount options: what mount(8) and fstab may say is taken or refused by name; access times; read-only; remount."""
import errno
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import program, run

DAY_NS = 86400 * 10 ** 9
HARMLESS = ("rw suid dev exec async sync dirsync relatime norelatime strictatime nostrictatime noatime atime diratime nodiratime lazytime nolazytime "
            "defaults auto noauto user users nouser owner group nofail _netdev mand nomand iversion noiversion silent loud symfollow "
            "x-systemd.automount x-foo=bar X-mount.mkdir comment=why user=root uhelper=x io_uring default_permissions").split()


def mount_options(directory):
    """Those of the mount, and those of its superblock."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            if fields[4] == directory:
                found = fields[5].split(","), fields[-1].split(",")
    return found


class Options(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.image = self.make_image()
        self.directory = os.path.join(self.folder, "mnt")
        os.mkdir(self.directory)
        self.addCleanup(self.fsck)  # after every mount has ended

    def fsck(self):
        run(program("fsck.mendfs"), "-f", "-n", self.image)

    def check(self, options):
        """As the daemon judges them, without a mount: mount.mendfs -f is mount(8)'s --fake."""
        helper = os.path.join(self.folder, "mount.mendfs")
        if not os.path.lexists(helper):
            os.symlink(os.path.abspath(program("mendfs")), helper)
        return run(helper, self.image, self.directory, "-f", "-o", options, check=False)

    def test_harmless_ones_are_taken_one_by_one_and_all_at_once(self):
        for option in HARMLESS:
            with self.subTest(option):
                done = self.check(option)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(self.check(",".join(HARMLESS)).returncode, 0)

    def test_unknown_ones_are_refused_by_name(self):
        for option in ("bogus", "commit", "nocommit", "usrquota", "data=journal", "relatim", "loop", "xfoo", "fd=3", "rootmode=40000", "blkdev",
                       "blksize=512", "discard", "norw"):
            with self.subTest(option):
                done = self.check("rw," + option)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(option, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_what_the_kernel_honours_reaches_it(self):
        mount = self.mounted("nosuid,nodev,noexec,sync,nodiratime,nosymfollow,strictatime", image=self.image)
        # In the foreground nobody says when it is complete.
        harness.wait_for(lambda: "nosymfollow" in mount_options(mount.directory)[0], what="nosymfollow")
        of_mount, of_super = mount_options(mount.directory)
        for word in ("rw", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"):
            self.assertIn(word, of_mount)
        self.assertIn("sync", of_super)
        self.assertNotIn("relatime", of_mount)
        os.symlink("/etc/passwd", mount.path("link"))
        with self.assertRaises(OSError) as caught:
            os.stat(mount.path("link"))
        self.assertEqual(caught.exception.errno, errno.ELOOP)
        with open(mount.path("script"), "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(mount.path("script"), 0o755)
        with self.assertRaises(PermissionError):
            os.execv(mount.path("script"), ["script"])

    def test_of_two_that_contradict_each_other_the_later_wins(self):
        mount = self.mounted("ro,nosuid,noatime,noexec,rw,suid,relatime,exec", image=self.image)
        of_mount, of_super = mount_options(mount.directory)
        self.assertEqual(of_mount, ["rw", "relatime"])
        self.assertIn("rw", of_super)
        os.mkdir(mount.path("directory"))

    def test_the_source_and_the_type_are_shown_exactly(self):
        name = os.path.join(self.folder, "an image, with a comma and a \\")
        os.rename(self.image, name)
        self.image = name
        mount = self.mounted(image=name)
        done = run("findmnt", "-n", "-r", "-o", "FSTYPE", mount.directory)
        self.assertEqual(done.stdout.strip(), "fuse.mendfs")
        done = run("findmnt", "-n", "--json", "-o", "SOURCE", mount.directory)
        self.assertIn('"source": "' + name.replace("\\", "\\\\") + '"', done.stdout.replace("\\x5c", "\\\\"))

    def remount(self, directory, options):
        helper = os.path.join(self.folder, "mount.fuse.mendfs")
        if not os.path.lexists(helper):
            os.symlink(os.path.abspath(program("mendfs")), helper)
        # As mount(8) passes it on: the mount's present options, with the new ones among them.
        return run(helper, self.image, directory, "-o", options + ",remount,user_id=0,group_id=0,default_permissions,allow_other", check=False)

    def test_remount_changes_the_kernels_flags_and_nothing_else(self):
        mount = self.mounted(image=self.image)
        with open(mount.path("file"), "w") as file:
            file.write("before")
            file.flush()
            # Open for writing: the kernel refuses, and nothing is changed.
            done = self.remount(mount.directory, "ro,relatime")
            self.assertEqual(done.returncode, 1)
            self.assertIn("busy", done.stderr)
        self.assertEqual(self.remount(mount.directory, "ro,relatime").returncode, 0)
        self.assertIn("ro", mount_options(mount.directory)[0])
        self.assertIn("ro", mount_options(mount.directory)[1])
        for change in (lambda: open(mount.path("file"), "a"), lambda: os.mkdir(mount.path("new")), lambda: os.utime(mount.path("file")),
                       lambda: os.chmod(mount.path("file"), 0o600)):
            with self.assertRaises(OSError) as caught:
                change()
            self.assertEqual(caught.exception.errno, errno.EROFS)
        with open(mount.path("file")) as file:
            self.assertEqual(file.read(), "before")
        self.assertEqual(self.remount(mount.directory, "rw,nosuid,relatime").returncode, 0)
        self.assertIn("nosuid", mount_options(mount.directory)[0])
        os.mkdir(mount.path("new"))

    def test_remount_of_what_is_no_mendfs_is_refused(self):
        for directory in (self.directory, "/proc"):
            done = self.remount(directory, "ro")
            self.assertEqual(done.returncode, 1)
            self.assertIn("no mendfs mount", done.stderr)
        self.assertNotIn("ro", mount_options("/proc")[0])

    def test_rw_over_a_daemon_that_began_read_only_is_refused_by_it(self):
        mount = self.mounted("ro", image=self.image)
        self.assertEqual(self.remount(mount.directory, "rw").returncode, 0)
        with self.assertRaises(OSError) as caught:
            os.mkdir(mount.path("new"))
        self.assertEqual(caught.exception.errno, errno.EROFS)


class AccessTimes(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.image = self.make_image()
        self.addCleanup(lambda: run(program("fsck.mendfs"), "-f", "-n", self.image))  # after every mount has ended

    def make(self, mount, name="file"):
        with open(mount.path(name), "wb") as file:
            file.write(bytes(8192))

    def read(self, mount, name="file", flags=0):
        """Reaches the daemon: what is cached is read without it, and its access is not seen."""
        fd = os.open(mount.path(name), os.O_RDONLY | os.O_DIRECT | flags)
        try:
            os.preadv(fd, [memoryview(harness_buffer())], 0)
        finally:
            os.close(fd)

    def atime(self, mount, name="file"):
        return os.stat(mount.path(name), follow_symlinks=False).st_atime_ns

    def age(self, mount, atime, mtime, name="file"):
        os.utime(mount.path(name), ns=(atime, mtime))

    def test_relatime_is_the_default(self):
        mount = self.mounted(image=self.image)
        self.make(mount)
        old = time.time_ns() - 3600 * 10 ** 9
        self.age(mount, old, old - 10)
        ctime = os.stat(mount.path("file")).st_ctime_ns
        self.read(mount)  # ctime is newer
        first = self.atime(mount)
        self.assertGreater(first, ctime)
        self.read(mount)
        self.assertEqual(self.atime(mount), first, "read since it was changed: nothing to tell")
        with open(mount.path("file"), "r+b") as file:
            file.write(b"x" * 8192)
        self.read(mount)
        self.assertGreater(self.atime(mount), first)

    def test_relatime_sets_one_that_is_a_day_old(self):
        mount = self.mounted(image=self.image)
        self.make(mount)
        now = time.time_ns()
        # ctime is now, so that only a time in the future is newer than it.
        self.age(mount, now + 3600 * 10 ** 9, now)
        before = self.atime(mount)
        self.read(mount)
        self.assertEqual(self.atime(mount), before)
        self.age(mount, now - 2 * DAY_NS, now - 3 * DAY_NS)
        self.read(mount)
        self.assertGreater(self.atime(mount), now - DAY_NS)

    def test_strictatime_sets_it_at_each_read_that_reaches_the_daemon(self):
        mount = self.mounted("strictatime", image=self.image)
        self.make(mount)
        last = 0
        for _ in range(3):
            self.read(mount)
            self.assertGreater(self.atime(mount), last)
            last = self.atime(mount)

    def test_noatime_and_o_noatime_leave_it(self):
        for options, flags in (("noatime", 0), ("strictatime", os.O_NOATIME)):
            with self.subTest(options):
                mount = self.mounted(options, image=self.image)
                self.make(mount)
                before = self.atime(mount)
                self.read(mount, flags=flags)
                self.assertEqual(self.atime(mount), before)
                mount.umount()

    def test_directories_and_symbolic_links_are_read_too_and_nodiratime_spares_the_first(self):
        for options, changes in (("strictatime", True), ("strictatime,nodiratime", False)):
            with self.subTest(options):
                mount = self.mounted(options, image=self.image)
                os.makedirs(mount.path("directory"), exist_ok=True)
                if not os.path.lexists(mount.path("link")):
                    os.symlink("target", mount.path("link"))
                mount.remount()  # nothing is cached
                before = self.atime(mount, "directory"), self.atime(mount, "link")
                os.listdir(mount.path("directory"))
                os.readlink(mount.path("link"))
                self.assertEqual(self.atime(mount, "directory") > before[0], changes)
                self.assertGreater(self.atime(mount, "link"), before[1])
                mount.umount()

    def test_it_survives_a_remount_and_a_kill_after_fsync(self):
        mount = self.mounted("strictatime", image=self.image)
        self.make(mount)
        self.read(mount)
        before = self.atime(mount)
        mount.remount()
        self.assertEqual(self.atime(mount), before)
        self.read(mount)
        before = self.atime(mount)
        fd = os.open(mount.path("file"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        mount.kill()
        mount.mount()
        self.assertEqual(self.atime(mount), before)

    def test_a_read_only_mount_changes_none(self):
        mount = self.mounted(image=self.image)
        self.make(mount)
        mount.umount()
        mount = self.mounted("ro,strictatime", image=self.image)
        before = self.atime(mount)
        self.read(mount)
        self.assertEqual(self.atime(mount), before)

    def requests(self, mount):
        return {entry["opcode"]: entry["count"] for entry in harness.mendctl_json("stats", mount.directory)}

    def test_a_cached_read_costs_no_request_and_a_read_no_transaction(self):
        mount = self.mounted("strictatime,commit=3600", image=self.image)
        self.make(mount)
        fd = os.open(mount.path("file"), os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.pread(fd, 8192, 0)
        before = self.requests(mount)
        for _ in range(100):
            os.pread(fd, 8192, 0)
        after = self.requests(mount)
        for opcode in after:
            self.assertEqual(after[opcode], before.get(opcode, 0), opcode)


def harness_buffer():
    """Aligned for O_DIRECT."""
    import mmap
    return mmap.mmap(-1, 4096)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
