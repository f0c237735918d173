#!/usr/bin/env python3
"""Images of every format version that was ever given out are mounted, checked and upgraded. tests/images/ has them, with what they hold."""
import glob
import json
import lzma
import os
import shutil
import sys
import unittest

from harness import ROOT, Case, mendctl, mendctl_json, need_mounts, program, run

IMAGES = os.path.join(ROOT, "tests", "images")
sys.path.insert(0, IMAGES)
import manifest  # noqa: E402


class Formats(Case):
    def unpack(self, name):
        image = os.path.join(self.folder, name + ".img")
        with lzma.open(os.path.join(IMAGES, name + ".img.xz")) as packed, open(image, "wb") as file:
            while piece := packed.read(1 << 20):
                if piece.strip(b"\0"):
                    file.write(piece)
                else:
                    file.seek(len(piece), os.SEEK_CUR)
            file.truncate()
        shutil.copy(os.path.join(IMAGES, name + ".img.poison"), image + ".poison")
        with open(os.path.join(IMAGES, name + ".json")) as file:
            self.expected = json.load(file)
        return image

    def compare(self, mount):
        self.maxDiff = 2000
        self.assertEqual(manifest.manifest(mount.directory), self.expected)
        damaged = mendctl_json("damaged", mount.directory)
        self.assertEqual([(file["paths"], file["ranges"]) for file in damaged],
                         [(["/a/b/damaged"], [{"pos": 4096, "len": 4096}]), (["/a/b/damaged2"], [{"pos": 4096, "len": 4096}])])

    def fsck(self, *words):
        done = run(program("fsck.mendfs"), *words, check=False)
        return done.returncode, done.stdout + done.stderr

    def old_version_is_read_checked_and_upgraded(self, name):
        image = self.unpack(name)
        mount = self.mounted(image=image)
        self.compare(mount)
        with self.assertRaises(OSError):
            open(mount.path("new"), "w").close()
        self.assertIn("fsck.mendfs -y", mount.read_log())
        mount.umount()
        status, text = self.fsck("-n", image)
        self.assertEqual(status, 0, text)
        status, text = self.fsck("-y", image)
        self.assertEqual(status, 1, text)
        self.assertIn("version 2", text)
        status, text = self.fsck("-n", "-f", image)
        self.assertEqual(status, 0, text)
        mount = self.mounted(image=image, name="upgraded")
        self.compare(mount)
        with open(mount.path("new"), "w") as file:
            file.write("new")
        os.rename(mount.path("a", "f1"), mount.path("a", "b", "renamed"))
        os.unlink(mount.path("a", "b", "damaged"))
        self.assertEqual(mendctl("check", mount.directory).stdout.splitlines()[0], "no findings")
        mount.remount()
        self.assertEqual(len(mendctl_json("damaged", mount.directory)), 1)
        self.assertEqual(mendctl("check", mount.directory).stdout.splitlines()[0], "no findings")
        mount.umount()
        status, text = self.fsck("-n", "-f", image)
        self.assertEqual(status, 0, text)

    def test_every_image(self):
        names = sorted(os.path.basename(path)[:-7] for path in glob.glob(os.path.join(IMAGES, "*.img.xz")))
        self.assertGreaterEqual(len(names), 2)
        for name in names:
            with self.subTest(name):
                self.old_version_is_read_checked_and_upgraded(name)
                self.doCleanups()
                self.setUp()


if __name__ == "__main__":
    need_mounts()
    unittest.main()
