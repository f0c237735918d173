#!/usr/bin/env python3
"""mount(8), umount(8), mkfs(8) and fsck(8) with what `cmake --install` puts in place, in a mount namespace that leaves no trace."""
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import run

USER = "mendfshelper"
INSIDE = "MENDFS_INSTALLED_IN"
# mount(8) gives its helpers a PATH of its own; nothing may depend on the caller's.
PLAIN = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}


def install_here(folder):
    """Inside the namespace: /sbin as it was plus the helpers, /usr/local/sbin with the programs."""
    run("mount", "--make-rprivate", "/")
    real = os.path.realpath("/sbin")
    kept = os.path.join(folder, "sbin")
    os.mkdir(kept)
    run("mount", "--bind", real, kept)
    run("mount", "-t", "tmpfs", "tmpfs", real)
    for name in os.listdir(kept):
        os.symlink(os.path.join(kept, name), os.path.join(real, name))
    helpers = os.path.join(folder, "dest", "sbin")
    for name in os.listdir(helpers):
        path = os.path.join(real, name)
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(os.readlink(os.path.join(helpers, name)), path)
    run("mount", "--bind", os.path.join(folder, "dest", "usr", "local", "sbin"), "/usr/local/sbin")
    with open(os.path.join(folder, "fstab"), "w"):
        pass
    run("mount", "--bind", os.path.join(folder, "fstab"), "/etc/fstab")
    if os.stat("/dev/fuse").st_mode & 0o777 != 0o666:
        os.mknod(os.path.join(folder, "fuse"), 0o20666, os.makedev(10, 229))
        os.chmod(os.path.join(folder, "fuse"), 0o666)
        run("mount", "--bind", os.path.join(folder, "fuse"), "/dev/fuse")


def mounts_at(directory):
    with open("/proc/self/mountinfo") as file:
        return [line.split() for line in file if line.split()[4] == directory]


class Helpers(harness.Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        self.image = os.path.join(self.folder, "image")
        self.directory = os.path.join(self.folder, "mnt")
        os.mkdir(self.directory)
        with open(self.image, "wb") as file:
            file.truncate(64 << 20)
        self.call("mkfs", "-t", "mendfs", "-q", self.image)
        self.addCleanup(self.check)
        self.addCleanup(self.clear)

    def clear(self):
        while mounts_at(self.directory):
            run("umount", "-l", self.directory, check=False)

    def check(self):
        self.call("fsck", "-t", "mendfs", self.image, "-f", "-n")

    def call(self, *command, check=True):
        return run(*command, check=check, env=PLAIN)

    def mount(self, *options, kind="mendfs"):
        self.call("mount", "-t", kind, *options, self.image, self.directory)

    def assert_released(self):
        """Nobody holds the image at this moment: no retry, no wait."""
        with open(self.image, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def assert_held(self):
        with open(self.image, "r+b") as file, self.assertRaises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, name="data", size=4 << 20):
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(os.urandom(size))

    def test_mount_by_either_type_shows_the_source_and_fuse_mendfs(self):
        for kind in ("mendfs", "fuse.mendfs"):
            self.mount("-o", "noatime,x-test=1,_netdev", kind=kind)
            done = self.call("findmnt", "-n", "-o", "SOURCE,FSTYPE", self.directory)
            self.assertEqual(done.stdout.split(), [self.image, "fuse.mendfs"])
            self.write()
            self.call("umount", self.directory)

    def test_umount_returns_when_the_daemon_has_finished_and_the_image_is_free(self):
        for _ in range(10):
            self.mount()
            self.write()
            self.assert_held()
            self.call("umount", self.directory)
            self.assertFalse(mounts_at(self.directory))
            self.assert_released()

    def test_umount_by_source_and_verbosely(self):
        self.mount()
        self.call("umount", "-v", self.image)
        self.assert_released()

    def test_a_busy_mount_is_told_before_anything_happens(self):
        self.mount()
        self.write()
        with open(os.path.join(self.directory, "data"), "r+b") as file:
            done = self.call("umount", self.directory, check=False)
            self.assertEqual((done.returncode, done.stdout), (32, ""))
            self.assertIn("target is busy", done.stderr)
            self.assertTrue(mounts_at(self.directory))
            file.write(b"goes on")
        self.write("more")
        self.call("umount", self.directory)
        self.assert_released()

    def test_a_lazy_umount_of_a_busy_mount_does_not_wait_and_of_a_quiet_one_does(self):
        self.mount()
        self.write()
        with open(os.path.join(self.directory, "data"), "r+b") as file:
            self.call("umount", "-l", self.directory)
            self.assertFalse(mounts_at(self.directory))
            self.assert_held()
            file.write(b"goes on")
        # Waits for the daemon, which ends now.
        self.mount()
        with open(os.path.join(self.directory, "data"), "rb") as file:
            self.assertEqual(file.read(7), b"goes on")
        self.call("umount", "-l", self.directory)
        self.assert_released()

    def test_a_forced_umount_ends_the_daemon_and_keeps_what_was_acknowledged(self):
        self.mount()
        self.write()
        self.call("umount", "-f", self.directory)
        self.assert_released()
        self.mount()
        self.assertEqual(os.stat(os.path.join(self.directory, "data")).st_size, 4 << 20)

    def test_only_the_last_of_several_mount_points_waits(self):
        second = os.path.join(self.folder, "second")
        os.mkdir(second)
        self.mount()
        run("mount", "--bind", self.directory, second)
        self.call("/sbin/umount.fuse.mendfs", second)
        self.assertFalse(mounts_at(second))
        self.assert_held()
        self.write()
        self.call("umount", self.directory)
        self.assert_released()

    def test_umount_leaves_nothing_in_utab(self):
        self.mount("-o", "x-test=1,_netdev")
        self.assertIn(self.directory, self.utab())
        self.call("umount", self.directory)
        self.assertNotIn(self.directory, self.utab())

    def utab(self):
        with open("/run/mount/utab") as file:
            return file.read()

    def test_a_mount_kept_by_another_namespace_does_not_hang_umount(self):
        self.mount()
        other = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo up; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(other.stdout.close)
        self.assertEqual(other.stdout.readline(), b"up\n")
        self.call("umount", self.directory)
        self.assertFalse(mounts_at(self.directory))
        self.assert_held()
        other.communicate(b"\n", timeout=harness.TIMEOUT)
        self.mount()  # waits for what ends now

    def test_the_mount_of_a_killed_daemon_can_be_unmounted(self):
        self.mount()
        self.write()
        done = self.call("mkfs", "-t", "mendfs", "-f", self.image, check=False)
        os.kill(int(re.search(r"process (\d+)", done.stderr).group(1)), 9)
        harness.wait_for(lambda: not os.path.ismount(self.directory), what="the dead mount")
        self.call("umount", self.directory)
        self.assertFalse(mounts_at(self.directory))

    def fstab(self, options, check_pass=0):
        with open("/etc/fstab", "w") as file:
            file.write(f"{self.image} {self.directory} fuse.mendfs {options} 0 {check_pass}\n")

    def test_mount_minus_a_takes_the_line_of_fstab_once(self):
        self.fstab("defaults,nofail,_netdev,x-systemd.automount,relatime,lazytime,commit=2", 2)
        self.call("mount", "-a")
        self.call("mount", "-a")
        self.assertEqual(len(mounts_at(self.directory)), 1)
        self.call("umount", self.directory)
        self.call("fsck", "-A", "-t", "fuse.mendfs")  # pass 2 asks for it at boot
        self.call("mount", self.directory)
        self.call("umount", self.directory)
        self.assert_released()

    def test_failures_are_told_by_mount(self):
        for options, text in (("bogus", "bogus"), ("commit=x", "commit=x")):
            done = self.call("mount", "-t", "mendfs", "-o", options, self.image, self.directory, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(text, done.stderr)
        done = self.call("mount", "-t", "mendfs", "/nonexistent", self.directory, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("/nonexistent", done.stderr)
        self.mount()
        second = os.path.join(self.folder, "second")
        os.mkdir(second)
        done = self.call("mount", "-t", "mendfs", self.image, second, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(self.directory, done.stderr)
        self.assertFalse(mounts_at(second))

    def test_remount_by_mount(self):
        self.mount()
        self.write()
        self.call("mount", "-o", "remount,ro", self.directory)
        with self.assertRaises(OSError):
            self.write("new")
        self.call("mount", "-o", "remount,rw,noexec", self.directory)
        self.write("new")
        self.assertIn("noexec", mounts_at(self.directory)[0][5].split(","))

    def test_fsck_of_a_mounted_one_is_refused(self):
        self.mount()
        self.assertEqual(self.call("fsck", "-t", "mendfs", self.image, "-f", "-n", check=False).returncode, 8)

    def test_a_user_mounts_and_unmounts_where_fstab_lets_him(self):
        if run("id", "-u", USER, check=False).returncode:
            run("useradd", "-M", "-s", "/bin/sh", USER)
            self.addCleanup(run, "userdel", USER, check=False)
        uid = run("id", "-u", USER).stdout.strip()
        run("chown", uid, self.image, self.directory)
        self.fstab("noauto,user")
        as_user = ("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups")
        self.call(*as_user, "mount", self.directory)
        options = mounts_at(self.directory)[0]
        for word in ("nosuid", "nodev", "noexec"):
            self.assertIn(word, options[5].split(","))
        self.assertIn(f"user_id={uid}", options[-1].split(","))
        self.call(*as_user, "umount", self.directory)
        self.assertFalse(mounts_at(self.directory))
        self.assert_released()


class Block(harness.Case):
    def setUp(self):
        super().setUp()
        self.backing = os.path.join(self.folder, "backing")
        self.directory = os.path.join(self.folder, "mnt")
        os.mkdir(self.directory)
        with open(self.backing, "wb") as file:
            file.truncate(64 << 20)
        self.device = self.attach(self.backing)
        self.call("mkfs", "-t", "mendfs", "-q", self.device)

    def call(self, *command, check=True):
        return run(*command, check=check, env=PLAIN)

    def clear(self):
        while mounts_at(self.directory):
            run("umount", "-l", self.directory, check=False)

    def test_mount_umount_fsck_and_fstab(self):
        self.addCleanup(self.clear)
        with open("/etc/fstab", "w") as file:
            file.write(f"{self.device} {self.directory} fuse.mendfs defaults,nofail 0 2\n")
        for command in (("mount", "-t", "mendfs", self.device, self.directory), ("mount", self.directory), ("mount", "-a")):
            self.call(*command)
            self.call("mount", "-a")
            self.assertEqual(len(mounts_at(self.directory)), 1)
            self.assertIn("fuseblk.mendfs", mounts_at(self.directory)[0])
            with open(os.path.join(self.directory, "data"), "wb") as file:
                file.write(os.urandom(1 << 20))
            self.call("umount", self.directory)
            os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL))
            self.call("fsck", "-t", "mendfs", self.device, "-f", "-n")

    def test_mount_makes_a_loop_device_and_takes_it_away(self):
        self.addCleanup(self.clear)
        self.call("losetup", "-d", self.device)
        self.call("mount", "-t", "mendfs", "-o", "loop", self.backing, self.directory)
        device = mounts_at(self.directory)[0][-2]
        self.assertTrue(device.startswith("/dev/loop"), device)
        self.assertIn("fuseblk.mendfs", mounts_at(self.directory)[0])
        self.call("umount", self.directory)
        self.assertFalse(os.path.exists(f"/sys/block/{os.path.basename(device)}/loop"))
        self.call("fsck", "-t", "mendfs", self.backing, "-f", "-n")

    def test_the_helper_itself_unmounts_it(self):
        self.addCleanup(self.clear)
        self.call("mount", "-t", "mendfs", self.device, self.directory)
        self.call("/sbin/umount.fuse.mendfs", self.directory)
        self.assertFalse(mounts_at(self.directory))
        os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL))


def main():
    harness.need_mounts()
    folder = os.environ.get(INSIDE)
    if folder:
        install_here(folder)
        unittest.main()
    folder = tempfile.mkdtemp(prefix="mendfs-helpers.")
    try:
        os.chmod(folder, 0o755)
        build = os.path.dirname(os.path.abspath(harness.BIN))
        run("cmake", "--install", build, "--prefix", "/usr/local", env={**os.environ, "DESTDIR": os.path.join(folder, "dest")})
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", os.path.abspath(__file__), *sys.argv[1:]]
        # What is still mounted there in the end goes with the namespace, and its daemon with it.
        status = subprocess.run(command, env={**os.environ, INSIDE: folder, "BIN_DIR": os.path.abspath(harness.BIN)}, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
