#!/usr/bin/env python3
"""Label, uuid and size of a filesystem, mounted and not: mendctl label, uuid, resize."""
import json
import os
import threading
import unittest
import uuid

import schema
from harness import Case, mendctl, need_mounts, program, run

MIB = 1 << 20


def ask(command, *words):
    """The one filesystem that is answered with, validated."""
    answer = json.loads(mendctl(command, *words, "--json").stdout)
    schema.validate("list", answer)
    return answer["filesystems"][0]


class Resize(Case):
    def check(self):
        self.assertEqual(mendctl("check", self.mount.directory).stdout.splitlines()[0], "no findings")

    def test_a_busy_mount_grows_with_its_file(self):
        self.mount = self.mounted(size="16M")
        stop, errors = threading.Event(), []

        def write():
            number = 0
            while not stop.is_set():
                with open(self.mount.path(f"file{number % 50}"), "wb") as file:
                    file.write(os.urandom(20000))
                number += 1

        def guarded():
            try:
                write()
            except OSError as error:
                errors.append(error)

        writers = [threading.Thread(target=guarded) for _ in range(3)]
        for writer in writers:
            writer.start()
        try:
            for size in (20, 33, 64):
                self.assertEqual(ask("resize", self.mount.directory, f"{size}M")["size_bytes"], size * MIB)
                self.check()
        finally:
            stop.set()
            for writer in writers:
                writer.join(60)
        self.assertEqual(errors, [])
        with open(self.mount.path("large"), "wb") as file:
            file.write(bytes(40 * MIB))
        self.assertEqual(os.statvfs(self.mount.directory).f_blocks * 4096, 64 * MIB)
        self.mount.remount()
        self.check()
        self.assertEqual(os.stat(self.mount.path("large")).st_size, 40 * MIB)

    def test_max_is_what_the_file_has_and_the_default(self):
        self.mount = self.mounted(size="16M")
        os.truncate(self.mount.image, 100 * MIB + 5000)
        self.assertEqual(ask("resize", self.mount.directory)["size_bytes"], 100 * MIB + 4096)
        os.truncate(self.mount.image, 200 * MIB)
        self.assertEqual(ask("resize", self.mount.directory, "max")["size_bytes"], 200 * MIB)
        self.check()

    def test_after_a_kill_the_size_is_the_new_one(self):
        self.mount = self.mounted(size="16M")
        mendctl("resize", self.mount.directory, "48M")
        self.mount.kill()
        self.mount.mount()
        self.assertEqual(ask("list", self.mount.directory)["size_bytes"], 48 * MIB)
        self.check()

    def test_an_unmounted_image_grows(self):
        image = self.make_image("16M")
        self.assertEqual(ask("resize", image, "40M")["size_bytes"], 40 * MIB)
        self.assertEqual(os.stat(image).st_size, 40 * MIB)
        run(program("fsck.mendfs"), "-n", image)

    def test_it_cannot_shrink_and_says_so(self):
        self.mount = self.mounted(size="16M")
        done = mendctl("resize", self.mount.directory, "8M", check=False)
        self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (1, "", 1))
        self.assertIn("cannot shrink", done.stderr)

    def test_label_and_uuid_are_shown_and_set(self):
        self.mount = self.mounted(size="16M")
        where = self.mount.directory
        self.assertEqual(ask("label", where, "fotos älter")["label"], "fotos älter")
        self.assertEqual(mendctl("label", where).stdout.splitlines()[-1], "fotos älter")
        self.assertNotIn("label", ask("label", where, ""))
        wanted = str(uuid.uuid4())
        self.assertEqual(ask("uuid", where, wanted)["uuid"], wanted)
        self.assertNotEqual(ask("uuid", where, "random")["uuid"], wanted)
        for words in (["label", where, "x" * 65], ["label", where, "a\nb"], ["uuid", where, "1234"]):
            done = mendctl(*words, check=False)
            self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (1, "", 1), words)
        self.mount.umount()
        self.assertEqual(ask("label", self.mount.image, "offline")["label"], "offline")
        self.mount.mount()
        self.assertEqual(ask("list", where)["label"], "offline")

    def test_injected_poison_follows_a_new_uuid(self):
        self.mount = self.mounted(size="16M")
        with open(self.mount.path("file"), "wb") as file:
            file.write(bytes(8192))
        mendctl("inject-error", self.mount.directory, "--file", self.mount.path("file"), "--offset", "0", "--length", "1")
        mendctl("uuid", self.mount.directory, "random")
        self.mount.remount()
        with open(self.mount.path("file"), "rb") as file:
            with self.assertRaises(OSError):
                file.read(1)

    def test_a_read_only_mount_refuses(self):
        self.mount = self.mounted("ro", size="16M")
        for words in (["label", "x"], ["uuid", "random"], ["resize", "64M"]):
            done = mendctl(words[0], self.mount.directory, words[1], check=False)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), words)
            self.assertIn("read-only", done.stderr)


if __name__ == "__main__":
    need_mounts()
    unittest.main()
