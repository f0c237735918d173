#!/usr/bin/env python3
"""fsck.mendfs: check and repair, with the exit codes of fsck(8)."""
import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import program, run

try:
    import schema
except ImportError:
    schema = None


def fsck(*arguments):
    return run(program("fsck.mendfs"), *arguments, check=False)


class Fsck(harness.Case):
    def setUp(self):
        super().setUp()
        self.image = self.make_image("32M")

    def digest(self):
        with open(self.image, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def populated(self):
        mount = harness.Mount(self.image, os.path.join(self.folder, "mnt"))
        self.addCleanup(mount.umount)
        for i in range(50):
            with open(mount.path(f"file{i}"), "wb") as file:
                file.write(bytes([i + 1]) * 5000)
        return mount

    def test_a_clean_image_is_clean_also_with_a_dirty_journal_and_nothing_is_written(self):
        self.populated().kill()
        before = self.digest()
        done = fsck("-f", "-n", "-v", self.image)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("51 inodes", done.stdout)
        self.assertEqual(self.digest(), before)

    def test_json_is_as_the_schema_says(self):
        done = fsck("--json", self.image)
        self.assertEqual(done.returncode, 0)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["findings"], [])
        if schema:
            schema.validate("fsck", answer)
            schema.validate("check", answer)

    def spoil(self, trees, copies):
        """Garbage in one block of each tree (names with blanks between them); which one matters little: all of them are small here."""
        owners = harness.mendctl_json("owners", self.image, "--all", "--kind", "metadata")
        with open(self.image, "r+b") as file:
            for tree in trees.split():
                live = [owner for owner in owners if owner["live"] and owner["tree"] == tree and owner["copy"] == "primary"][0]
                for offset in (live["device_offset"], live["peer_offset"])[:copies]:
                    os.pwrite(file.fileno(), b"garbage", offset + 500)

    def test_without_an_answer_damage_is_told_and_left_alone(self):
        self.populated().umount()
        self.spoil("rmap", 2)
        before = self.digest()
        for arguments in (("-n",), ()):
            done = fsck(*arguments, self.image)
            self.assertEqual(done.returncode, 4, done.stdout + done.stderr)
            self.assertIn("left as they are", done.stdout)
            self.assertEqual(self.digest(), before)

    def test_damage_is_repaired_and_the_files_are_there(self):
        for tree in ("root", "chunks", "rmap", "free", "extents", "dirents", "parents"):
            with self.subTest(tree=tree):
                self.image = self.make_image("32M", "-f")
                self.populated().umount()
                self.spoil(tree, 2)
                done = fsck("-y", self.image)
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                again = fsck("-y", "-f", self.image)
                self.assertEqual((again.returncode, again.stdout), (0, f"{self.image}: clean\n"))
                self.expect_files()

    def expect_files(self):
        mount = harness.Mount(self.image, os.path.join(self.folder, "after"))
        try:
            for i in range(50):
                with open(mount.path(f"file{i}"), "rb") as file:
                    self.assertEqual(file.read(), bytes([i + 1]) * 5000)
        finally:
            mount.umount()

    def interrupted(self, room, *arguments):
        """
        SIGINT in the middle of a run, at the same place each time: standard error is a pipe with room for so many bytes of progress, and the signal is
        sent when fsck.mendfs waits for more of it. Exit status and standard error; the status is None where it did not have that much to say.
        """
        reader, writer = os.pipe()
        capacity = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, b"#" * (capacity - room))
        process = subprocess.Popen([program("fsck.mendfs"), "-C", *arguments, self.image], stdout=subprocess.DEVNULL, stderr=writer)
        os.close(writer)
        deadline, is_waiting = time.monotonic() + 120, False
        while not is_waiting and process.poll() is None:
            self.assertLess(time.monotonic(), deadline)
            with open(f"/proc/{process.pid}/syscall", encoding="ascii") as file:
                is_waiting = file.read().split()[1:2] == ["0x2"]
            time.sleep(0.002)
        if is_waiting:
            process.send_signal(signal.SIGINT)
        shown = b""
        while select.select([reader], [], [], 60)[0]:
            piece = os.read(reader, 4096)
            if not piece:
                break
            shown += piece
        os.close(reader)
        status = process.wait(timeout=60)
        return (status if is_waiting else None), shown.decode().lstrip("#")

    def interrupt_everywhere(self, mode):
        """How often it was interrupted, until it had no more to say; and how often the image had been changed by then."""
        count, changed = 0, 0
        for room in range(0, 4096, 200):
            with self.subTest(mode=mode, room=room):
                self.image = self.make_image("32M", "-f")
                self.populated().umount()
                self.spoil("rmap dirents free", 2)
                before = self.digest()
                status, shown = self.interrupted(room, mode)
                if status is None:
                    return count, changed
                self.assertEqual((status, shown[-24:]), (32, "\nfsck.mendfs: cancelled\n"))
                count += 1
                changed += self.digest() != before
                done = fsck("-y", "-f", self.image)
                self.assertIn(done.returncode, (0, 1), done.stdout + done.stderr)
                again = fsck("-y", "-f", self.image)
                self.assertEqual((again.returncode, again.stdout), (0, f"{self.image}: clean\n"))
                self.expect_files()
        return count, changed

    def test_a_run_that_was_interrupted_says_so_and_the_next_one_finishes(self):
        count, changed = self.interrupt_everywhere("-n")
        self.assertGreater(count, 2)
        self.assertEqual(changed, 0)
        count, changed = self.interrupt_everywhere("-y")
        self.assertGreater(count, 4)
        self.assertGreater(changed, 1, "none was interrupted within the repair")
        print(f"sample: fsck.mendfs -y, interrupted {count} times, {changed} of them within the repair: all finished by the next run")

    def test_preen_writes_a_bad_copy_anew_and_leaves_a_lost_block(self):
        self.populated().umount()
        self.assertEqual(fsck("-p", self.image).returncode, 0)
        self.spoil("rmap", 1)
        done = fsck("-p", "-f", self.image)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.spoil("chunks", 2)
        self.assertEqual(fsck("-p", "-f", self.image).returncode, 4)

    def test_a_lost_superblock_is_written_anew_and_all_of_them_are_the_end(self):
        with open(self.image, "r+b") as file:
            os.pwrite(file.fileno(), bytes(4096), 0)
        done = fsck("-y", "--json", self.image)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        answer = json.loads(done.stdout)
        self.assertEqual((len(answer["findings"]), len(answer["repaired"]), answer["changed"]), (1, 1, True))
        if schema:
            schema.validate("fsck", answer)
        with open(self.image, "r+b") as file:
            for slot in range(8):
                os.pwrite(file.fileno(), bytes(4096), slot << 21)
        done = fsck("-y", self.image)
        self.assertEqual((done.returncode, done.stdout), (8, ""))
        self.assertIn("Do not run mkfs.mendfs", done.stderr)

    def on_terminal(self, answers, *arguments):
        """Exit status and output of a run that has a terminal and answers."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(program("fsck.mendfs"), ["fsck.mendfs", *arguments, self.image])
        os.write(terminal, answers)
        shown = b""
        while True:
            ready, _, _ = select.select([terminal], [], [], 60)
            try:
                piece = os.read(terminal, 4096) if ready else b""
            except OSError:
                piece = b""
            if not piece:
                break
            shown += piece
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()

    def test_on_a_terminal_it_asks_and_does_what_is_answered(self):
        self.populated().umount()
        self.spoil("rmap", 2)
        status, shown = self.on_terminal(b"n\n")
        self.assertEqual(status, 4, shown)
        self.assertIn("(y/n)?", shown)
        self.assertEqual(fsck("-n", self.image).returncode, 4)
        status, shown = self.on_terminal(b"y\n" * 20)
        self.assertEqual(status, 1, shown)
        self.assertEqual(fsck("-n", self.image).returncode, 0)

    def test_only_one_answer_is_taken(self):
        self.assertEqual(fsck("-n", "-y", self.image).returncode, 16)

    def test_progress_is_shown_when_asked_for(self):
        done = fsck("-n", "-C", self.image)
        self.assertEqual(done.returncode, 0)
        self.assertIn("%", done.stderr)
        self.assertEqual(fsck("-n", self.image).stderr, "")

    def test_a_mounted_or_foreign_target_is_refused(self):
        self.populated()
        for target in (self.image, "/etc/passwd", "/nonexistent"):
            done = fsck(target)
            self.assertEqual((done.returncode, done.stdout), (8, ""), done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1)
        self.assertEqual(fsck().returncode, 16)
        self.assertEqual(fsck("--bogus", self.image).returncode, 16)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
