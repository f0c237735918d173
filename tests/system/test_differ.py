#!/usr/bin/env python3
"""The same random operations on mendfs and on ext4, in step (tests/differ): answers, errno and trees are the same, or differ by what tests/differ/allowed.c lists.

Without loop devices the other side is the host's filesystem, where that is ext4 or XFS. $MENDFS_SEED reruns a seed; MENDFS_DIFFER_FS=xfs takes XFS instead of ext4.
"""
import os
import random
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BIN, ROOT, run

PROGRAM = os.path.join(os.path.dirname(BIN), "tests", "differ")
SEED = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
LONG = os.environ.get("MENDFS_LONG") == "1"
KIND = os.environ.get("MENDFS_DIFFER_FS", "ext4")
# 400,000 in a run of CI (of which 200,000 are asked for); on other transports, with sanitizers and with other libraries a part of that.
ALL = harness.TRANSPORT == "io_uring" and harness.libfuse_version() >= (3, 18) and os.path.basename(os.path.dirname(BIN)) == "build"
OPERATIONS = harness.scaled(1000000 if LONG else 300000 if ALL else 30000)
WRITEBACK_OPERATIONS = harness.scaled(400000 if LONG else 100000 if ALL else 15000)
WALK_EVERY = 10000
SPOILS = ("bytes", "map", "size", "mode", "owner", "xattr", "xattr-name", "time", "link", "answer")
# Each ends with a directory that is empty on both sides.
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256"), "xfs": ("mkfs.xfs", "-q", "-f")}


class Differ(harness.Case):
    fsck_after = True

    def other_on_loop(self):
        """A new filesystem of the kernel's on a loop device; always unmounted."""
        image, directory = os.path.join(self.folder, "other.img"), os.path.join(self.folder, "other")
        run("truncate", "-s", "512M", image)
        run(*MAKE[KIND], image)
        device = self.attach(image)
        os.mkdir(directory)
        # What a crash of this machine leaves of it is nobody's concern.
        run("mount", "-t", KIND, "-o", "noatime,nobarrier" if KIND == "ext4" else "noatime", device, directory)
        self.addCleanup(self.unmount, directory)
        return directory

    def unmount(self, directory):
        if run("umount", directory, check=False).returncode:
            run("umount", "-l", directory)

    def other_on_host(self):
        """The host's own filesystem will do, if it is one of those."""
        for base in (os.path.join(ROOT, "build"), tempfile.gettempdir()):
            kind = run("stat", "-f", "-c", "%T", base).stdout.strip()
            if kind in ("ext2/ext3", "xfs"):
                self.less += ["--xfs"] if kind == "xfs" and not self.less else []
                directory = tempfile.mkdtemp(prefix="mendfs-differ.", dir=base)
                self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
                # Itself on itself: only so it can be mounted noatime.
                run("mount", "--bind", directory, directory)
                self.addCleanup(self.unmount, directory)
                run("mount", "-o", "remount,bind,noatime", directory)
                return directory
        self.skipTest(f"no loop device can be made here, and {ROOT} is on neither ext4 nor XFS")
        return None

    def sides(self, *options):
        """The mount, and the program's last arguments: a directory on either side."""
        self.less = ["--xfs"] if KIND == "xfs" else []
        if harness.libfuse_version() < (3, 17):
            self.less.append("--no-tmpfile")
        if harness.libfuse_version() < (3, 18):
            self.less.append("--no-setid")
        mount = self.mounted("noatime", *options, size="256M")
        other = self.other_on_loop() if harness.has_loops() else self.other_on_host()
        directories = [mount.path("tree"), os.path.join(other, "tree")]
        for directory in directories:
            os.mkdir(directory)
            os.chmod(directory, 0o777)
        return mount, directories

    def differ(self, directories, *options, count, seed=SEED, walk=WALK_EVERY):
        env = dict(os.environ, MENDFS_SEED=str(seed))
        return run(PROGRAM, "--ops", count, "--walk", walk, *self.less, *options, *directories, check=False, timeout=3600 if LONG else 840, env=env)

    def agree(self, *options, how=(), count, seed):
        mount, directories = self.sides(*options)
        done = self.differ(directories, *how, count=count, seed=seed)
        self.assertEqual(done.returncode, 0, f"MENDFS_SEED={seed}\n{done.stdout}{done.stderr}")
        print("\n" + done.stdout[done.stdout.index("sample:"):].strip() + f", {' '.join(options) or 'write-through'}, {harness.TRANSPORT}", flush=True)
        mount.remount()
        done = self.differ(directories, *how, count=0)
        self.assertEqual(done.returncode, 0, f"MENDFS_SEED={seed}, after a remount\n{done.stdout}{done.stderr}")

    def test_write_through(self):
        self.agree(count=OPERATIONS, seed=SEED)

    def test_writeback(self):
        self.agree("writeback", how=("--writeback",), count=WRITEBACK_OPERATIONS, seed=SEED + 1)

    def test_what_is_spoiled_is_noticed(self):
        """Everything that a tree is compared by, changed behind the program's back; and a name, with no comparison of trees."""
        _, directories = self.sides()
        for kind in SPOILS:
            done = self.differ(directories, "--spoil", f"{kind}@100", count=2000 if kind == "answer" else 200, walk=0 if kind == "answer" else 200, seed=7)
            self.assertEqual(done.returncode, 1, f"{kind} was not noticed\n{done.stdout}{done.stderr}")
            self.assertIn("MENDFS_SEED=7 differ --until", done.stdout)
            for directory in directories:
                shutil.rmtree(directory)
                os.mkdir(directory)
                os.chmod(directory, 0o777)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
