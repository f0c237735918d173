#!/usr/bin/env python3
"""Images of every format version that was ever given out are mounted, checked and upgraded. tests/images/ has them, with what they hold."""
import glob
import json
import lzma
import os
import re
import shutil
import sys
import unittest

from harness import ROOT, Case, mendctl, mendctl_json, need_mounts, program, run

IMAGES = os.path.join(ROOT, "tests", "images")
sys.path.insert(0, IMAGES)
import manifest  # noqa: E402


CURRENT = json.loads(mendctl("version", "--json").stdout)["programs"][0]["format_version"]


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

    def upgrade(self, image):
        """What is old is served read-only and says what to do."""
        mount = self.mounted(image=image)
        self.compare(mount)
        with self.assertRaises(OSError):
            open(mount.path("new"), "w").close()
        self.assertIn("fsck.mendfs -y", mount.read_log())
        mount.umount()
        self.make_current(image)

    def use(self, image):
        """Versions 2 and 3 are served as they are, and stay what they are."""
        mount = self.mounted(image=image)
        self.compare(mount)
        os.mkdir(mount.path("old"))
        for i in range(200):
            with open(mount.path("old", f"{i}"), "w") as file:
                file.write(f"{i}" * 1000)
        mount.kill()
        mount.mount()
        self.assertEqual(len(os.listdir(mount.path("old"))), 200)
        for i in range(0, 200, 2):
            os.unlink(mount.path("old", f"{i}"))
        mount.umount()
        self.assertEqual(self.fsck("-n", "-f", image)[0], 0)
        mount.mount()
        shutil.rmtree(mount.path("old"))
        self.compare(mount)
        mount.umount()
        self.make_current(image)

    def make_current(self, image):
        status, text = self.fsck("-n", image)
        self.assertEqual(status, 0, text)
        status, text = self.fsck("-y", image)
        self.assertEqual(status, 1, text)
        self.assertIn(f"version {CURRENT}", text)

    def image_is_read_checked_and_upgraded(self, name):
        image = self.unpack(name)
        version = int(re.match(r"v(\d+)", name).group(1))
        if version == 1:
            self.upgrade(image)
        elif version < CURRENT:
            self.use(image)
        status, text = self.fsck("-n", "-f", image)
        self.assertEqual(status, 0, text)
        mount = self.mounted(image=image, name="current")
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
        self.assertTrue(any(name.startswith("v1") for name in names))
        self.assertTrue(any(name.startswith(f"v{CURRENT}") for name in names), "keep an image of this version too")
        for name in names:
            with self.subTest(name):
                self.image_is_read_checked_and_upgraded(name)
                self.doCleanups()
                self.setUp()


if __name__ == "__main__":
    need_mounts()
    unittest.main()
