#!/usr/bin/env python3
"""mendctl dedupe: given files and ranges, and whole trees that it looks through itself."""
import filecmp
import json
import os
import shutil
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import sharing
from harness import BLOCK, mendctl, program, run
from users import as_user

try:
    import schema
except ImportError:
    print("SKIP: needs python3-jsonschema")
    raise SystemExit(77) from None

KIB, MIB = 1 << 10, 1 << 20
ALICE = 1001


def ask(*arguments, check=True):
    """The answer, validated, and what is on stderr."""
    done = mendctl("dedupe", *arguments, "--json", check=check)
    answer = json.loads(done.stdout)
    schema.validate("dedupe", answer)
    return answer["deduped"], answer["totals"], done.stderr


class Case(sharing.Case):
    def shared_bytes(self, path):
        with sharing.opened(path, flags=os.O_RDONLY) as fd:
            return sum(extent[1] for extent in sharing.map_all(fd) if extent[3] & sharing.SHARED)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()


class Given(Case):
    def test_each_destination_is_answered(self):
        data = os.urandom(20 * BLOCK + 7)
        a, b, c = (self.make(name, data) for name in "abc")
        with open(c, "r+b") as file:
            file.seek(3 * BLOCK)
            file.write(b"else")
        found, totals, _ = ask(a, b, c)
        size = 21 * BLOCK
        self.assertEqual([(e["path"], e["len"], e["gained_bytes"], e["same"]) for e in found], [(b, len(data), size, True), (c, 0, 0, False)])
        self.assertEqual(totals, {"files": 3, "bytes": 2 * len(data), "ranges": 2, "gained_bytes": size, "skipped": 0, "dry_run": False})
        self.assertEqual(self.shared_bytes(b), size)
        self.assertEqual(self.read(b), data)
        text = mendctl("dedupe", a, b).stdout
        self.assertIn("totals: files 2", text)

    def test_ranges(self):
        data = os.urandom(8 * BLOCK)
        a, b = self.make("a", data), self.make("b", bytes(BLOCK) + data)
        found, _, _ = ask(a, b, "--offset", 2 * BLOCK, "--dst-offset", 3 * BLOCK, "--length", "8K")
        self.assertEqual([(e["source_pos"], e["pos"], e["len"], e["gained_bytes"]) for e in found], [(2 * BLOCK, 3 * BLOCK, 2 * BLOCK, 2 * BLOCK)])
        found, _, _ = ask("--dst-offset", BLOCK, "--offset", 0, a, b)
        self.assertEqual([(e["len"], e["gained_bytes"]) for e in found], [(8 * BLOCK, 6 * BLOCK)])

    def test_a_dry_run_changes_nothing(self):
        data = os.urandom(3 * MIB)
        a, b = self.make("a", data), self.make("b", data)
        before = os.stat(b)
        found, totals, _ = ask("-n", a, b)
        self.assertEqual((found[0]["len"], found[0]["gained_bytes"], totals["dry_run"]), (3 * MIB, 3 * MIB, True))
        self.assertEqual(self.shared_bytes(b), 0)
        self.assertEqual(os.stat(b).st_ctime_ns, before.st_ctime_ns)
        ask(a, b)
        self.assertEqual(ask("-n", a, b)[1]["gained_bytes"], 0)

    def test_what_is_refused(self):
        a, b = self.make("a", bytes(4 * BLOCK)), self.make("b", bytes(4 * BLOCK))
        outside = os.path.join(self.folder, "outside")
        shutil.copy(a, outside)
        for code, words in [(2, [a]), (2, [a, b, "--offset", 1]), (2, [a, b, "--memory", "1G"]), (2, ["-r", self.mount.directory, "--offset", 0]),
                            (2, ["-r", a, "--block-size", "5K"]), (2, ["-r", a, "--block-size", "2K"]), (2, ["-r", a, "--memory", "1K"]),
                            (1, [a, self.mount.path("missing")]), (1, [a, self.mount.directory]), (1, [outside, a]), (1, [outside, outside]),
                            (1, [a, b, "--length", "1M"]), (1, [a, b, "--offset", "1M"]), (1, ["-r", outside])]:
            done = mendctl("dedupe", *words, check=False)
            if words == ["-r", outside]:  # nothing in it is twice
                self.assertEqual(done.returncode, 0)
                continue
            self.assertEqual((done.returncode, done.stdout), (code, ""), (words, done.stderr))
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertEqual(self.shared_bytes(b), 0)

    def test_users_without_privileges(self):
        data = os.urandom(4 * BLOCK)
        mine, theirs, root = self.make("mine", data, ALICE), self.make("theirs", data, ALICE, 0o444), self.make("root", data)
        self.assertEqual(as_user(ALICE, ALICE, ask, root, mine, theirs)[1]["gained_bytes"], 8 * BLOCK)
        done = as_user(ALICE, ALICE, lambda: mendctl("dedupe", mine, root, check=False).returncode)
        self.assertEqual(done, 1)


class Trees(Case):
    def test_what_is_twice_is_found(self):
        common, other = os.urandom(3 * MIB + 5000), os.urandom(MIB)
        self.make("one/a", common)
        self.make("one/b", other)
        self.make("two/deep/a", common)
        self.make("two/mixed", os.urandom(256 * KIB) + other + os.urandom(10))
        self.make("empty")
        os.symlink("a", self.mount.path("one/link"))
        before = {name: self.read(self.mount.path(name)) for name in ("one/a", "one/b", "two/deep/a", "two/mixed")}
        dry, totals, _ = ask("-n", "-r", self.mount.directory)
        found, again, _ = ask("-r", self.mount.directory)
        expected = 3 * MIB + 2 * BLOCK + MIB
        self.assertEqual((totals["gained_bytes"], again["gained_bytes"]), (3 * MIB + 5000 + MIB, expected))
        self.assertEqual(again["files"], 5)
        self.assertEqual(sum(e["gained_bytes"] for e in found), expected)
        self.assertEqual(sum(e["len"] for e in dry), 3 * MIB + 5000 + MIB)
        for name, data in before.items():
            self.assertEqual(self.read(self.mount.path(name)), data)
        self.assertEqual(ask("-r", self.mount.directory)[1]["gained_bytes"], 0)
        self.assertEqual(harness.mendctl_json("check", self.mount.directory), [])

    def test_within_one_file_and_by_two_names(self):
        piece = os.urandom(128 * KIB)
        path = self.make("file", piece * 10)
        os.link(path, self.mount.path("other name"))
        found, totals, _ = ask("-r", self.mount.directory)
        self.assertEqual(totals["gained_bytes"], 9 * len(piece))
        self.assertEqual(self.read(path), piece * 10)

    def test_holes_are_not_read(self):
        path = self.make("sparse")
        os.truncate(path, 1 << 50)
        with open(path, "r+b") as file:
            file.seek(1 << 40)
            file.write(b"x" * 128 * KIB)
        _, totals, _ = ask("-r", self.mount.directory)
        self.assertLess(totals["bytes"], MIB)

    def test_other_piece_sizes_and_little_memory(self):
        data = os.urandom(MIB)
        self.make("a", data)
        self.make("b", os.urandom(4096) + data[:MIB // 2] + os.urandom(4096))
        self.assertEqual(ask("-n", "-r", self.mount.directory)[1]["gained_bytes"], 0)
        self.assertEqual(ask("-r", "--block-size", "4K", "--memory", "1M", self.mount.directory)[1]["gained_bytes"], MIB // 2)

    def test_what_cannot_be_read_or_changed_is_told_and_left_out(self):
        data = os.urandom(256 * KIB)
        for name in "abc":
            self.make(name, data)
        self.make("d", data[:128 * KIB])
        with sharing.opened(self.mount.path("b"), flags=os.O_RDONLY) as fd:
            sharing.ioctl(fd, 0x40086602, (0x10).to_bytes(8, "little"))
        mendctl("inject-error", self.mount.directory, "--file", self.mount.path("c"), "--offset", 0, "--length", 1)
        _, totals, errors = ask("-r", *(self.mount.path(name) for name in "abcd"))
        self.assertEqual(totals["skipped"], 2, errors)
        self.assertEqual(totals["gained_bytes"], 2 * 128 * KIB)
        self.assertIn("/b: Operation not permitted", errors)
        self.assertIn("/c: Input/output error", errors)
        self.assertEqual(self.read(self.mount.path("b")), data)
        with sharing.opened(self.mount.path("b"), flags=os.O_RDONLY) as fd:
            sharing.ioctl(fd, 0x40086602, bytes(8))

    def test_others_write_meanwhile(self):
        size, stop = 2 * MIB, threading.Event()
        paths = [self.make(f"f{i}", bytes(range(256)) * (size // 256)) for i in range(6)]
        mirrors = [bytearray(self.read(path)) for path in paths]

        def write():
            turn = 0
            with sharing.opened(*paths) as fds:
                while not stop.is_set():
                    i, at = turn % 6, turn * 7919 * 64 % (size - 100)
                    os.pwrite(fds[i], b"changed" * 9, at)
                    mirrors[i][at:at + 63] = b"changed" * 9
                    turn += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(3):
                ask("-r", "--block-size", "16K", self.mount.directory)
        finally:
            stop.set()
            thread.join(harness.TIMEOUT)
        self.mount.remount()
        for path, mirror in zip(paths, mirrors):
            self.assertEqual(self.read(path), mirror)

    def test_a_copy_of_a_real_tree(self):
        for name in ("one", "two"):
            shutil.copytree("/usr/include/linux", self.mount.path(name), symlinks=True)
        run("sh", "-c", f"cp -r --reflink=never {self.mount.path('one')} {self.mount.path('three')}")
        _, totals, _ = ask("-r", self.mount.directory)
        self.assertGreater(totals["gained_bytes"], MIB)
        self.assertEqual(filecmp.dircmp(self.mount.path("one"), "/usr/include/linux").diff_files, [])
        run("diff", "-r", "--no-dereference", "/usr/include/linux", self.mount.path("three"))
        self.assertEqual(ask("-n", "-r", self.mount.directory)[1]["gained_bytes"], 0)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
