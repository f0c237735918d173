#!/usr/bin/env python3
"""mendctl image: a metadata-only copy that can be mounted read-only, checked and dumped, with names or without."""
import json
import os
import stat
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, program, run

try:
    import schema
except ImportError:
    schema = None

SECRET, TARGET, DATA = b"secret-name", b"secret-target", b"secret-data"
ROUNDS = 300


def image(source, file, *options, check=True):
    done = run(program("mendctl"), "image", source, file, *options, "--json", check=check)
    if done.returncode:
        return done
    answer = json.loads(done.stdout)
    if schema:
        schema.validate("image", answer)
    return answer


def fsck(path):
    return run(program("fsck.mendfs"), "-n", "-f", path, check=False, errors="replace")


def tree_of(directory):
    """Depth, type, name length, size and link count of everything: what stays when names are scrambled."""
    found = []
    for folder, folders, files in os.walk(os.fsencode(directory)):
        for name in folders + files:
            st = os.lstat(os.path.join(folder, name))
            target = len(os.readlink(os.path.join(folder, name))) if stat.S_ISLNK(st.st_mode) else 0
            found.append((st.st_ino, folder.count(b"/"), len(name), st.st_mode, st.st_size, st.st_nlink, target, int(st.st_mtime_ns)))
    return sorted(found)


class Image(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.make_image("32M")
        self.copy = os.path.join(self.folder, "copy")
        self.mount = harness.Mount(self.image, os.path.join(self.folder, "mnt"))
        self.addCleanup(self.mount.umount)
        self.populate(os.fsencode(self.mount.directory))
        self.before = tree_of(self.mount.directory)

    def populate(self, root):
        os.mkdir(root + b"/" + SECRET + b"-folder")
        for i in range(ROUNDS):
            with open(root + b"/" + SECRET + b"-folder/" + SECRET + b"%d" % i, "wb") as file:
                file.write(DATA * 500)
        for i in range(0, ROUNDS, 3):
            os.unlink(root + b"/" + SECRET + b"-folder/" + SECRET + b"%d" % i)
        for byte in range(1, 256):
            if bytes([byte]) not in (b"/", b"."):
                os.mkdir(root + b"/" + bytes([byte]))
        os.symlink(TARGET * 30, root + b"/long")
        os.symlink(TARGET, root + b"/short")
        os.symlink(b"/".join([TARGET] * 250), root + b"/longest")
        os.link(root + b"/" + SECRET + b"-folder/" + SECRET + b"1", root + b"/" + SECRET + b"-link")
        os.mkfifo(root + b"/pipe")
        os.setxattr(root + b"/" + SECRET + b"-link", b"user." + SECRET, TARGET * 3000)
        os.setxattr(root + b"/" + SECRET + b"-folder", b"user." + SECRET + b"2", TARGET)
        os.setxattr(root + b"/pipe", b"security.kept", TARGET)

    def content(self, path):
        with open(path, "rb") as file:
            return file.read()

    def assert_usable(self, path):
        done = fsck(path)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        run(program("mendctl"), "dump", path, "root")
        mount = harness.Mount(path, os.path.join(self.folder, "ro"), "ro")
        self.addCleanup(mount.umount)
        found = tree_of(mount.directory)
        mount.umount()
        return found

    def test_a_copy_has_all_metadata_and_no_data(self):
        self.mount.umount()
        answer = image(self.image, self.copy)
        self.assertEqual(answer["skipped"], [])
        self.assertEqual(os.stat(self.copy).st_size, 32 << 20)
        self.assertLess(os.stat(self.copy).st_blocks, os.stat(self.image).st_blocks)
        self.assertEqual(self.assert_usable(self.copy), self.before)
        self.assertIn(DATA, self.content(self.image))
        self.assertNotIn(DATA, self.content(self.copy))
        self.assertIn(SECRET, self.content(self.copy))

    def kill_with_a_journal(self):
        """So few changes since the mount that the daemon has no reason to write them home, however late it is killed."""
        self.mount.remount()
        for i in range(10):
            os.mkdir(os.fsencode(self.mount.directory) + b"/" + SECRET + b"-journal%d" % i)
        self.before = tree_of(self.mount.directory)
        self.mount.kill()

    def test_the_journal_of_a_killed_mount_is_copied_too(self):
        self.kill_with_a_journal()
        image(self.image, self.copy)
        self.assertEqual(self.assert_usable(self.copy), self.before)
        records = [element for element in harness.mendctl_json("dump", self.copy, "journal") if element["type"] == "journal_record"]
        self.assertGreaterEqual(len(records), 10)

    def scrambled(self):
        answer = image(self.image, self.copy, "--scramble-names")
        self.assertEqual([answer["image"][what] for what in ("names", "targets", "attributes")], [len(self.before), 3, 3])
        bytes_left = self.content(self.copy)
        for word in (SECRET, TARGET, DATA):
            self.assertNotIn(word, bytes_left)
        self.assertEqual(self.assert_usable(self.copy), self.before)

    def test_scrambled_names_keep_their_length_and_nothing_of_the_old_ones_is_left(self):
        self.mount.umount()
        self.scrambled()

    def test_names_in_the_journal_of_a_killed_mount_are_scrambled_too(self):
        self.kill_with_a_journal()
        self.scrambled()

    def leaf_of(self, tree):
        owners = [owner for owner in harness.mendctl_json("owners", self.image, "--all", "--kind", "metadata")
                  if owner["live"] and owner["tree"] == tree and owner["copy"] == "primary"]
        return owners[-1]

    def test_poisoned_metadata_is_skipped_and_listed(self):
        self.mount.umount()
        leaf = self.leaf_of("extents")
        mendctl("inject-error", self.image, "--device-offset", str(leaf["device_offset"]), "--length", str(BLOCK))
        answer = image(self.image, self.copy)
        self.assertEqual(answer["skipped"], [{"device_offset": leaf["device_offset"], "len": BLOCK}])
        run(program("mendctl"), "dump", self.copy, "tree", "extents")

    def test_a_damaged_image_is_copied_but_not_scrambled(self):
        self.mount.umount()
        leaf = self.leaf_of("inodes")
        with open(self.image, "r+b") as file:
            for offset in (leaf["device_offset"], leaf["peer_offset"]):
                file.seek(offset)
                file.write(b"\xa5" * BLOCK)
        image(self.image, self.copy)
        self.assertEqual(fsck(self.copy).returncode, fsck(self.image).returncode)
        os.unlink(self.copy)
        done = image(self.image, self.copy, "--scramble-names", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot be scrambled", done.stderr)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("copy")], [])

    def test_a_file_that_is_there_is_replaced_only_by_force_and_never_the_source(self):
        done = image(self.image, self.copy, check=False)
        self.assertIn("unmount it first", done.stderr)
        self.mount.umount()
        with open(self.copy, "wb") as file:
            file.write(b"mine")
        done = image(self.image, self.copy, check=False)
        self.assertEqual((done.returncode, self.content(self.copy)), (1, b"mine"))
        self.assertIn("--force", done.stderr)
        done = image(self.image, self.image, "--force", check=False)
        self.assertIn("is what is to be copied", done.stderr)
        image(self.image, self.copy, "--force")
        self.assertEqual(self.assert_usable(self.copy), self.before)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
