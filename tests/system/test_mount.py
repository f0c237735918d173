#!/usr/bin/env python3
"""The daemon as a mount: going into the background, the claim, dead mounts, read-only, signals, ordinary users."""
import hashlib
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import program, run

USER = "mendfstest"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mount_line(directory):
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            if fields[4] == directory:
                return fields
    return None


class Background(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.make_image()
        self.directory = os.path.join(self.folder, "mnt")
        os.mkdir(self.directory)
        self.addCleanup(self.clear)

    def clear(self):
        while mount_line(self.directory):
            if run("umount", self.directory, check=False).returncode:
                run("umount", "-l", self.directory, check=False)
        # The daemon has released the image when another program gets it.
        run(program("mkfs.mendfs"), "-n", "-f", self.image, check=False)

    def daemon_pid(self):
        done = run(program("mkfs.mendfs"), "-f", self.image, check=False)
        self.assertEqual(done.returncode, 1)
        return int(re.search(r"process (\d+)", done.stderr).group(1))

    def test_returns_once_the_mount_is_up_and_shows_the_source_as_given(self):
        os.chdir(self.folder)
        self.addCleanup(os.chdir, "/")
        done = run(program("mendfs"), "image", "mnt")
        self.assertEqual(done.stdout, "")
        self.assertTrue(all("io_uring" in line for line in done.stderr.splitlines()), done.stderr)
        fields = mount_line(self.directory)
        dash = fields.index("-")
        self.assertEqual(fields[dash + 1:dash + 3], ["fuse.mendfs", "image"])
        # A relative image keeps working although the daemon has gone to /.
        with open(os.path.join(self.directory, "file"), "w") as file:
            file.write("x")
        self.assertEqual(run(program("mendctl"), "list", self.directory).returncode, 0)

    def test_failure_is_told_by_exit_status_and_one_line(self):
        for arguments, status, text in ((("/nonexistent", self.directory), 1, "/nonexistent"),
                                        ((self.image, "/nonexistent/dir"), 1, "/nonexistent/dir"),
                                        ((self.image, self.image), 1, "not a directory"), ((self.image,), 2, "usage"),
                                        (("--bogus", self.image, self.directory), 2, "--help"),
                                        ((self.image, self.directory, "-o", "commit=x"), 2, "commit")):
            with self.subTest(arguments):
                done = run(program("mendfs"), *arguments, check=False)
                self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
                self.assertIn(text, done.stderr)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)

    def test_a_second_user_of_the_image_is_refused_at_once_with_pid_and_mount_point(self):
        run(program("mendfs"), self.image, self.directory)
        second = os.path.join(self.folder, "second")
        os.mkdir(second)
        os.symlink(self.image, os.path.join(self.folder, "symlink"))
        os.link(self.image, os.path.join(self.folder, "hardlink"))
        for name in ("image", "symlink", "hardlink"):
            for command in ((program("mendfs"), os.path.join(self.folder, name), second),
                            (program("mkfs.mendfs"), "-f", os.path.join(self.folder, name))):
                begin = time.monotonic()
                done = run(*command, check=False)
                self.assertLess(time.monotonic() - begin, 1.0 if "asan" not in harness.BIN else 3.0)
                self.assertEqual(done.returncode, 1)
                self.assertIn(self.directory, done.stderr)
                pid = int(re.search(r"process (\d+)", done.stderr).group(1))
                with open(f"/proc/{pid}/cmdline") as file:
                    self.assertIn("mendfs", file.read())

    def test_kill_minus_9_frees_the_claim_and_the_dead_mount_point_is_named(self):
        run(program("mendfs"), self.image, self.directory)
        with open(os.path.join(self.directory, "acknowledged"), "w") as file:
            file.write("still there")
        os.kill(self.daemon_pid(), signal.SIGKILL)
        harness.wait_for(lambda: self.stat_errno() == 107, what="ENOTCONN")
        done = run(program("mendfs"), self.image, self.directory, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"fusermount3 -u {self.directory}", done.stderr)
        run("fusermount3", "-u", self.directory)
        run(program("mendfs"), self.image, self.directory)
        with open(os.path.join(self.directory, "acknowledged")) as file:
            self.assertEqual(file.read(), "still there")

    def stat_errno(self):
        try:
            os.stat(self.directory)
        except OSError as error:
            return error.errno
        return 0

    def test_remounting_right_after_umount_waits_for_the_daemon_to_finish(self):
        for _ in range(5):
            run(program("mendfs"), self.image, self.directory)
            with open(os.path.join(self.directory, "data"), "wb") as file:
                file.write(os.urandom(4 << 20))
            run("umount", self.directory)

    def test_sigterm_unmounts_cleanly(self):
        run(program("mendfs"), self.image, self.directory)
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGTERM)
        harness.wait_for(lambda: not mount_line(self.directory), what="the unmount")
        harness.wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="the daemon's end")

    def test_sigterm_saves_what_was_written_through_a_mapping(self):
        run(program("mendfs"), self.image, self.directory)
        path = os.path.join(self.directory, "mapped")
        with open(path, "wb") as file:
            file.write(bytes(64 * 4096))
        with open(path, "r+b") as file:
            area = mmap.mmap(file.fileno(), 0)
            area[:] = b"m" * (64 * 4096)
            pid = self.daemon_pid()
            os.kill(pid, signal.SIGTERM)
            harness.wait_for(lambda: not os.path.exists(f"/proc/{pid}"), what="the daemon's end")
            try:
                area.close()
            except OSError:
                pass
        run(program("mendfs"), self.image, self.directory)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"m" * (64 * 4096))

    def test_read_only_writes_not_one_byte_clean_or_with_a_dirty_journal(self):
        mount = harness.Mount(self.image, self.directory)
        self.addCleanup(mount.umount)
        with open(mount.path("file"), "w") as file:
            file.write("content")
        mount.kill()  # the journal is dirty
        for _ in range(2):
            before = digest(self.image)
            run(program("mendfs"), self.image, self.directory, "-o", "ro")
            with open(os.path.join(self.directory, "file")) as file:
                self.assertEqual(file.read(), "content")
            with self.assertRaises(OSError) as caught:
                os.mkdir(os.path.join(self.directory, "new"))
            self.assertEqual(caught.exception.errno, 30)
            self.clear()
            self.assertEqual(digest(self.image), before)
            run(program("mendfs"), self.image, self.directory)  # replay, and once more on a clean one
            self.clear()

    def test_mounted_by_root_it_behaves_like_a_kernel_filesystem(self):
        run(program("mendfs"), self.image, self.directory)
        options = mount_line(self.directory)
        self.assertNotIn("nosuid", options[5].split(","))
        self.assertNotIn("nodev", options[5].split(","))
        self.assertIn("allow_other", options[-1].split(","))
        self.assertIn("default_permissions", options[-1].split(","))
        os.chmod(self.directory, 0o755)
        shutil.copy("/usr/bin/id", os.path.join(self.directory, "id"))
        os.chmod(os.path.join(self.directory, "id"), 0o4755)
        os.chmod(self.folder, 0o755)
        done = run("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", os.path.join(self.directory, "id"), "-u")
        self.assertEqual(done.stdout.strip(), "0", "a setuid program must run as its owner")
        with open(os.path.join(self.directory, "secret"), "w") as file:
            file.write("secret")
        os.chmod(os.path.join(self.directory, "secret"), 0o600)
        as_user = ("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups")
        self.assertNotEqual(run(*as_user, "cat", os.path.join(self.directory, "secret"), check=False).returncode, 0)
        self.assertNotEqual(run(*as_user, "touch", os.path.join(self.directory, "theirs"), check=False).returncode, 0)
        os.mkdir(os.path.join(self.directory, "open"))
        os.chmod(os.path.join(self.directory, "open"), 0o777)
        run(*as_user, "touch", os.path.join(self.directory, "open", "theirs"))
        self.assertEqual(os.stat(os.path.join(self.directory, "open", "theirs")).st_uid, 12345)

    def test_the_defaults_of_root_can_be_turned_off(self):
        run(program("mendfs"), self.image, self.directory, "-o", "noallow_other,nosuid,nodev")
        options = mount_line(self.directory)
        self.assertIn("nosuid", options[5].split(","))
        self.assertIn("nodev", options[5].split(","))
        self.assertNotIn("allow_other", options[-1].split(","))

    def test_harmless_options_of_fstab_are_accepted(self):
        run(program("mendfs"), self.image, self.directory, "-o", "rw,suid,dev,exec,relatime,nofail,_netdev,x-systemd.automount,defaults")


class OrdinaryUser(harness.Case):
    """fusermount3 and an unprivileged daemon, in a mount namespace of its own where /dev/fuse is open to all."""

    SCRIPT = """set -e
mount --make-rprivate /
if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
	mknod "$1/fuse" c 10 229; chmod 0666 "$1/fuse"; mount --bind "$1/fuse" /dev/fuse
fi
exec setpriv --reuid "$2" --regid "$2" --clear-groups env HOME=/ sh -c "$3"
"""

    def setUp(self):
        super().setUp()
        if run("id", "-u", USER, check=False).returncode:
            run("useradd", "-M", "-s", "/bin/sh", USER)
            self.addCleanup(run, "userdel", USER, check=False)
        self.uid = run("id", "-u", USER).stdout.strip()
        os.chmod(self.folder, 0o755)
        # The programs may lie where the user cannot go.
        self.bin = os.path.join(self.folder, "bin")
        shutil.copytree(harness.BIN, self.bin)
        self.home = os.path.join(self.folder, "home")
        os.mkdir(self.home)
        os.mkdir(os.path.join(self.home, "mnt"))
        run("chown", "-R", self.uid, self.home)
        # The root directory belongs to whoever made the filesystem.
        run("setpriv", "--reuid", self.uid, "--regid", self.uid, "--clear-groups", os.path.join(self.bin, "mkfs.mendfs"), "-q", "-s", "64M",
            os.path.join(self.home, "image"))

    def as_user(self, script, check=True):
        return run("unshare", "--mount", "sh", "-c", self.SCRIPT, "sh", self.folder, self.uid, f"cd {self.home}; {script}", check=check)

    def test_mounts_nosuid_nodev_without_allow_other(self):
        done = self.as_user(f"{self.bin}/mendfs image mnt && trap 'fusermount3 -u mnt' EXIT && grep fuse.mendfs /proc/self/mountinfo && "
                            f"echo hello > mnt/file && cat mnt/file && {self.bin}/mendctl list mnt")
        self.assertIn("hello", done.stdout)
        line = next(line for line in done.stdout.splitlines() if "fuse.mendfs" in line and self.home in line)
        self.assertIn("nosuid", line)
        self.assertIn("nodev", line)
        self.assertNotIn("allow_other", line)

    def test_allow_other_is_refused_plainly_when_fuse_conf_forbids_it(self):
        with open("/etc/fuse.conf") as file:
            if any(line.strip() == "user_allow_other" for line in file):
                self.skipTest("/etc/fuse.conf here allows it")
        done = self.as_user(f"{self.bin}/mendfs image mnt -o allow_other", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("user_allow_other", done.stderr)
        self.assertIn("/etc/fuse.conf", done.stderr)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
