#!/usr/bin/env python3
"""Random operations in every way that a file can be worked on (tests/exercise), on each kind of mount, with remounts and kills in between; fsck after each."""
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BIN, run

PROGRAM = os.path.join(os.path.dirname(BIN), "tests", "exercise")
SEED = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
LONG = os.environ.get("MENDFS_LONG") == "1"
ROUNDS = 20 if LONG else 3
OPERATIONS = 50000 if LONG else 1500


class Exercise(harness.Case):
    def exercise(self, directory, number, *options):
        seed = SEED + number
        print(f"seed {seed}", flush=True)
        done = run(PROGRAM, *options, "--ops", OPERATIONS, directory, os.path.join(self.folder, "state"), check=False, timeout=3600,
                   env=dict(os.environ, MENDFS_SEED=str(seed)))
        self.assertEqual(done.returncode, 0, f"MENDFS_SEED={seed}\n{done.stdout}{done.stderr}")

    def fsck(self, image):
        run(harness.program("fsck.mendfs"), "-f", "-n", image)

    def rounds(self, *options, size="64M", how=(), image=None, count=ROUNDS):
        mount = self.mounted(*options, size=size, image=image)
        for number in range(count):
            self.exercise(mount.directory, number, *how)
            if number % 2:
                mount.kill()
                mount.mount()
            mount.umount()
            self.fsck(mount.image)
            mount.mount()

    def test_a_kernel_filesystem_agrees_with_the_model(self):
        """The model is right, and the program asks for nothing that only mendfs does."""
        self.exercise(self.folder, 0)

    def test_write_through(self):
        self.rounds()

    def test_writeback(self):
        self.rounds("writeback")

    def test_with_little_space(self):
        self.rounds(size="16M", how=("--full", "--max", str(6 << 20)))

    def test_on_a_loop_device(self):
        self.rounds(image=self.make_device("64M"), count=max(2, ROUNDS // 4))


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
