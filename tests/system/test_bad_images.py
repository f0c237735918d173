#!/usr/bin/env python3
"""Images that are truncated, zeroed, bit-flipped or foreign: refused with one line and exit 1, or mounted where replicas make them whole; never a
crash, a hang, or a byte written by a refusal."""
import hashlib
import os
import random
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import mendctl, program, run

SEED = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
MIB = 1 << 20


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class BadImages(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.make_image("32M")
        self.directory = os.path.join(self.folder, "mnt")
        mount = harness.Mount(self.image, self.directory)
        try:
            for i in range(200):
                with open(mount.path(f"file{i}"), "wb") as file:
                    file.write(b"%d " % i * 3000)
        finally:
            mount.umount()

    def try_mount(self, image):
        """exit status; the image is unmounted again when it mounted. Refusals are checked for their form."""
        before = digest(image)
        done = run(program("mendfs"), image, self.directory, check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        if done.returncode:
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
            self.assertEqual(digest(image), before, "a refused image was written to")
        else:
            self.walk()
            run("umount", self.directory)
            # The daemon's end is seen by getting the image.
            run(program("mendctl"), "badblocks", image, check=False)
        return done.returncode

    def walk(self):
        for folder, _, names in os.walk(self.directory):
            for name in names:
                try:
                    with open(os.path.join(folder, name), "rb") as file:
                        file.read()
                except OSError as error:
                    self.assertIn(error.errno, (5, 117), name)

    def copy(self):
        path = os.path.join(self.folder, "copy")
        shutil.copyfile(self.image, path)
        return path

    def test_truncated_images_are_refused_naming_both_sizes(self):
        for size in (0, 1, 4096, MIB, 16 * MIB, 32 * MIB - 4096):
            with self.subTest(size):
                path = self.copy()
                os.truncate(path, size)
                self.assertEqual(self.try_mount(path), 1)

    def test_zeroed_and_foreign_images_are_refused(self):
        for name, content in (("zeros", bytes(32 * MIB)), ("random", random.Random(SEED).randbytes(32 * MIB)), ("text", b"hello\n" * 4000000)):
            with self.subTest(name):
                path = os.path.join(self.folder, name)
                with open(path, "wb") as file:
                    file.write(content)
                self.assertEqual(self.try_mount(path), 1)

    def test_every_superblock_copy_but_one_may_be_gone(self):
        path = self.copy()
        with open(path, "r+b") as file:
            for slot in range(7):
                file.seek(slot * 2 * MIB)
                file.write(bytes(4096))
        self.assertEqual(self.try_mount(path), 0)

    def test_bit_flips_anywhere_never_crash_or_hang(self):
        rng = random.Random(SEED)
        print(f"seed {SEED}", flush=True)
        with open(self.image, "rb") as file:
            data = file.read()
        used = [offset for offset in range(0, len(data), 4096) if any(data[offset:offset + 4096])]
        for round_number in range(40):
            path = os.path.join(self.folder, "flipped")
            changed = bytearray(data)
            for _ in range(rng.choice((1, 10, 200))):
                changed[rng.choice(used) + rng.randrange(4096)] ^= 1 << rng.randrange(8)
            with open(path, "wb") as file:
                file.write(changed)
            with self.subTest(round_number):
                self.try_mount(path)

    def test_whole_regions_of_garbage_never_crash_or_hang(self):
        rng = random.Random(SEED + 1)
        for round_number in range(16):
            path = self.copy()
            with open(path, "r+b") as file:
                start = rng.randrange(0, 31) * MIB
                file.seek(start)
                file.write(rng.choice((bytes, rng.randbytes))(rng.randrange(1, 4) * MIB)[:32 * MIB - start])
            with self.subTest(round_number):
                self.try_mount(path)


class Mistakes(harness.Case):
    """Every mendctl mistake is one line that says what to do, exit 1, nothing on stdout; usage is exit 2."""

    def expect(self, status, *arguments):
        done = mendctl(*arguments, check=False)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        if status == 1:
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        return done.stderr

    def test_unknown_targets_and_ranges(self):
        image = self.make_image("32M")
        mount = self.mounted(image=image)
        with open(mount.path("file"), "wb") as file:
            file.write(bytes(10000))
        self.expect(1, "badblocks", "/nonexistent")
        self.expect(1, "badblocks", "/etc/passwd")
        self.expect(1, "owners", mount.directory, "--offset", 1 << 40, "--length", 1)
        self.expect(1, "inject-error", mount.directory, "--device-offset", 1 << 40, "--length", 1)
        self.expect(1, "inject-error", mount.directory, "--file", mount.path("file"), "--offset", 20000, "--length", 1)
        self.expect(1, "inject-error", mount.directory, "--file", mount.path("nothing"), "--offset", 0, "--length", 1)
        self.expect(1, "map", mount.path("nothing"))
        self.expect(2, "inject-error", mount.directory, "--device-offset", 0, "--length", 0)
        self.expect(2, "no-such-command")
        self.expect(2, "owners")
        self.expect(2)

    def test_no_daemon(self):
        self.expect(1, "monitor", self.make_image("32M"))


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
