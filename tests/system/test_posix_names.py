#!/usr/bin/env python3
"""Names: renaming with flags, what each call answers on each kind of object, permissions of unprivileged users, listings while names change."""
import errno
import os
import shutil
import stat
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import places
from places import EXCHANGE, NOREPLACE, WHITEOUT, as_user, renameat2

KINDS = ("nothing", "file", "dir", "full", "link", "dangling", "loop", "fifo", "below_file")
E = errno


class Names:
    def objects(self):
        """One of each kind: {kind: path}."""
        self.file("file", b"x")
        os.mkdir(self.path("dir"))
        os.mkdir(self.path("full"))
        self.file("full/inside")
        os.symlink("file", self.path("link"))
        os.symlink("nowhere", self.path("dangling"))
        os.symlink("loop", self.path("loop"))
        os.mkfifo(self.path("fifo"))
        paths = {kind: self.path(kind) for kind in KINDS}
        paths["below_file"] = self.path("file/below")
        return paths

    # call -> what it answers on each kind of object, in the order of KINDS
    TABLE = {
        "stat": (os.stat, (E.ENOENT, 0, 0, 0, 0, E.ENOENT, E.ELOOP, 0, E.ENOTDIR)),
        "lstat": (os.lstat, (E.ENOENT, 0, 0, 0, 0, 0, 0, 0, E.ENOTDIR)),
        "unlink": (os.unlink, (E.ENOENT, 0, E.EISDIR, E.EISDIR, 0, 0, 0, 0, E.ENOTDIR)),
        "rmdir": (os.rmdir, (E.ENOENT, E.ENOTDIR, 0, E.ENOTEMPTY, E.ENOTDIR, E.ENOTDIR, E.ENOTDIR, E.ENOTDIR, E.ENOTDIR)),
        "mkdir": (os.mkdir, (0, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.ENOTDIR)),
        "mkfifo": (os.mkfifo, (0, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.ENOTDIR)),
        "symlink": (lambda path: os.symlink("t", path), (0, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.ENOTDIR)),
        "readlink": (os.readlink, (E.ENOENT, E.EINVAL, E.EINVAL, E.EINVAL, 0, 0, 0, E.EINVAL, E.ENOTDIR)),
        "truncate": (lambda path: os.truncate(path, 5), (E.ENOENT, 0, E.EISDIR, E.EISDIR, 0, E.ENOENT, E.ELOOP, E.EINVAL, E.ENOTDIR)),
        "chmod": (lambda path: os.chmod(path, 0o700), (E.ENOENT, 0, 0, 0, 0, E.ENOENT, E.ELOOP, 0, E.ENOTDIR)),
        "lchown": (lambda path: os.lchown(path, 1, 2), (E.ENOENT, 0, 0, 0, 0, 0, 0, 0, E.ENOTDIR)),
        "utime": (lambda path: os.utime(path, (1, 2)), (E.ENOENT, 0, 0, 0, 0, E.ENOENT, E.ELOOP, 0, E.ENOTDIR)),
        "open": (lambda path: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)), (E.ENOENT, 0, 0, 0, 0, E.ENOENT, E.ELOOP, 0, E.ENOTDIR)),
        "open to write": (lambda path: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)),
                          (E.ENOENT, 0, E.EISDIR, E.EISDIR, 0, E.ENOENT, E.ELOOP, E.ENXIO, E.ENOTDIR)),
        "create": (lambda path: os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)), (0, 0, E.EISDIR, E.EISDIR, 0, 0, E.ELOOP, 0, E.ENOTDIR)),
        "create exclusively": (lambda path: os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)),
                               (0, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.EEXIST, E.ENOTDIR)),
        "open a directory": (lambda path: os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY)),
                             (E.ENOENT, E.ENOTDIR, 0, 0, E.ENOTDIR, E.ENOENT, E.ELOOP, E.ENOTDIR, E.ENOTDIR)),
        "open no link": (lambda path: os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)),
                         (E.ENOENT, 0, 0, 0, E.ELOOP, E.ELOOP, E.ELOOP, 0, E.ENOTDIR)),
        "list": (os.listdir, (E.ENOENT, E.ENOTDIR, 0, 0, E.ENOTDIR, E.ENOENT, E.ELOOP, E.ENOTDIR, E.ENOTDIR)),
        "link it": (lambda path: os.link(path, path + ".2", follow_symlinks=False), (E.ENOENT, 0, E.EPERM, E.EPERM, 0, 0, 0, 0, E.ENOTDIR)),
        "rename it": (lambda path: os.rename(path, path + ".2"), (E.ENOENT, 0, 0, 0, 0, 0, 0, 0, E.ENOTDIR)),
        "rename into itself": (lambda path: os.rename(path, path + "/x"),
                               (E.ENOENT, E.ENOTDIR, E.EINVAL, E.EINVAL, E.ENOTDIR, E.ENOENT, E.ELOOP, E.ENOTDIR, E.ENOTDIR)),
    }

    def test_each_call_answers_on_each_kind_of_object_as_the_table_says(self):
        wrong = []
        for name, (call, answers) in self.TABLE.items():
            for kind, answer in zip(KINDS, answers):
                paths = self.objects()
                got = places.errno_of(call, paths[kind])
                if got != answer:
                    wrong.append(f"{name} of {kind}: {E.errorcode.get(got, got)}, not {E.errorcode.get(answer, answer)}")
                harness.run("find", self.dir, "-mindepth", "1", "-delete")
        self.assertEqual(wrong, [])

    def test_rename_over_each_kind_answers_as_posix_has_it(self):
        wrong = []
        old_kinds = ("file", "dir", "full", "link", "fifo")
        for old in old_kinds:
            for new in old_kinds:
                paths = self.objects()
                is_dir = (old in ("dir", "full"), new in ("dir", "full"))
                want = E.EISDIR if is_dir == (False, True) else E.ENOTDIR if is_dir == (True, False) else 0
                if new == "full" and old == "dir":
                    want = E.ENOTEMPTY
                got = places.errno_of(os.rename, paths[old], paths[new])
                if got != want:
                    wrong.append(f"{old} over {new}: {got}, not {want}")
                if not got and old != new and os.path.lexists(paths[old]):
                    wrong.append(f"{old} over {new}: the old name is still there")
                harness.run("find", self.dir, "-mindepth", "1", "-delete")
        self.assertEqual(wrong, [])

    def test_noreplace_exchange_and_their_errors(self):
        paths = self.objects()
        inode = {kind: os.lstat(path).st_ino for kind, path in paths.items() if os.path.lexists(path)}
        self.assert_errno(E.EEXIST, renameat2, paths["file"], paths["fifo"], NOREPLACE)
        self.assert_errno(E.EEXIST, renameat2, paths["file"], paths["file"], NOREPLACE)
        self.assert_errno(E.ENOENT, renameat2, paths["file"], paths["nothing"], EXCHANGE)
        self.assert_errno(E.EINVAL, renameat2, paths["file"], paths["fifo"], EXCHANGE | NOREPLACE)
        self.assert_errno(E.EINVAL, renameat2, paths["file"], paths["fifo"], EXCHANGE | WHITEOUT)
        self.assert_errno(E.EINVAL, renameat2, paths["full"], os.path.join(paths["full"], "inside"), EXCHANGE)
        self.assert_errno(E.EINVAL, renameat2, os.path.join(paths["full"], "inside"), paths["full"], EXCHANGE)
        self.assert_errno(E.EINVAL, renameat2, paths["file"], paths["fifo"], 8)
        renameat2(paths["file"], paths["nothing"], NOREPLACE)
        self.assertEqual(os.stat(paths["nothing"]).st_ino, inode["file"])
        renameat2(paths["full"], paths["nothing"], EXCHANGE)
        self.assertEqual((os.stat(paths["nothing"]).st_ino, os.stat(paths["full"]).st_ino), (inode["full"], inode["file"]))
        self.assertEqual(os.listdir(paths["nothing"]), ["inside"])
        renameat2(paths["dir"], paths["nothing"], EXCHANGE)
        self.assertEqual(os.listdir(paths["dir"]), ["inside"])
        os.mkdir(self.path("deep"))
        renameat2(paths["dir"], self.path("deep"), EXCHANGE)
        before = os.stat(self.dir).st_nlink
        os.rename(paths["dir"], self.path("deep", "moved"))
        renameat2(self.path("deep", "moved"), paths["fifo"], EXCHANGE)
        self.assertEqual(os.stat(self.path("deep")).st_nlink, 2)
        self.assertEqual(os.stat(self.dir).st_nlink, before)
        self.again()
        self.assertTrue(os.path.isdir(paths["fifo"]) and stat.S_ISFIFO(os.stat(self.path("deep", "moved")).st_mode))

    def test_whiteout_leaves_a_device_0_0_behind(self):
        os.mkdir(self.path("d"), 0o2775)
        os.chown(self.path("d"), 0, 77)
        os.chmod(self.path("d"), 0o2775)
        old = self.file("d/f", b"content")
        renameat2(old, self.path("moved"), WHITEOUT)
        self.again()
        left = os.lstat(old)
        self.assertTrue(stat.S_ISCHR(left.st_mode))
        self.assertEqual((left.st_rdev, left.st_mode & 0o7777, left.st_nlink, left.st_uid, left.st_gid), (0, 0, 1, 0, 77))
        with open(self.path("moved"), "rb") as file:
            self.assertEqual(file.read(), b"content")
        self.assert_errno(E.EEXIST, renameat2, self.path("moved"), old, WHITEOUT | NOREPLACE)
        renameat2(self.path("moved"), old, WHITEOUT)
        self.assertTrue(stat.S_ISCHR(os.lstat(self.path("moved")).st_mode))
        os.unlink(self.path("moved"))

    def test_names_and_targets_have_the_lengths_of_posix(self):
        self.file("n" * 255)
        for call in (os.mkdir, os.stat, os.unlink, lambda path: os.symlink("x", path), lambda path: os.rename(self.path("n" * 255), path)):
            self.assert_errno(E.ENAMETOOLONG, call, self.path("n" * 256))
        os.symlink("t" * 4095, self.path("long"))
        self.again()
        self.assertEqual(os.readlink(self.path("long")), "t" * 4095)
        self.assertEqual(os.lstat(self.path("long")).st_size, 4095)
        self.assert_errno(E.ENAMETOOLONG, os.symlink, "t" * 4096, self.path("longer"))
        self.assert_errno(E.ENOENT, os.symlink, "", self.path("empty"))
        self.assert_errno(E.EXDEV, os.rename, self.path("long"), "/proc/self/x")
        self.assert_errno(E.EXDEV, os.link, self.path("n" * 255), os.path.join("/dev", "mendfs-test"))
        os.symlink("l1", self.path("l0"))
        for i in range(1, 45):
            os.symlink(f"l{i + 1}", self.path(f"l{i}"))
        self.file("l45")
        self.assert_errno(E.ELOOP, os.stat, self.path("l0"))
        os.stat(self.path("l20"))

    def test_the_unprivileged_are_refused_what_they_may_not(self):
        os.chmod(self.dir, 0o755)
        os.mkdir(self.path("closed"), 0o700)
        self.file("closed/f")
        os.mkdir(self.path("nosearch"), 0o744)
        self.file("nosearch/f")
        os.mkdir(self.path("sticky"))
        os.chmod(self.path("sticky"), 0o1777)
        self.file("sticky/roots", mode=0o666)
        self.file("mine", b"x")
        os.chown(self.path("mine"), places.USER, places.USER)
        self.file("roots", b"x", mode=0o644)
        path = self.path
        for want, call in (
                (E.EACCES, lambda: os.stat(path("closed/f"))), (E.EACCES, lambda: os.listdir(path("closed"))),
                (E.EACCES, lambda: os.stat(path("nosearch/f"))), (0, lambda: os.listdir(path("nosearch"))),
                (E.EACCES, lambda: os.unlink(path("roots"))), (E.EACCES, lambda: os.mkdir(path("new"))),
                (E.EACCES, lambda: os.rename(path("roots"), path("sticky/x"))), (E.EPERM, lambda: os.unlink(path("sticky/roots"))),
                (E.EPERM, lambda: os.rename(path("sticky/roots"), path("sticky/x"))), (0, lambda: os.mkdir(path("sticky/own"))),
                (E.EPERM, lambda: renameat2(path("sticky/own"), path("sticky/roots"), EXCHANGE)), (0, lambda: os.rmdir(path("sticky/own"))),
                (E.EPERM, lambda: os.chmod(path("roots"), 0o777)), (E.EPERM, lambda: os.chown(path("roots"), places.USER, -1)),
                (E.EPERM, lambda: os.chown(path("mine"), 1, -1)), (0, lambda: os.chmod(path("mine"), 0o600)),
                (E.EACCES, lambda: os.truncate(path("roots"), 0)), (E.EACCES, lambda: os.open(path("roots"), os.O_WRONLY)),
                (E.EPERM, lambda: os.utime(path("roots"), (1, 1))), (E.EACCES, lambda: os.utime(path("roots"))),
                (0, lambda: os.utime(path("mine"), (1, 1))), (0, lambda: os.utime(path("sticky/roots"))),
                (E.EPERM, lambda: os.utime(path("sticky/roots"), (1, 1))),
                (E.EPERM, lambda: os.mknod(path("sticky/null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))), (0, lambda: os.mkfifo(path("sticky/fifo")))):
            self.assertEqual(as_user(call), want, E.errorcode.get(want, want))
        self.assertEqual(os.stat(path("sticky/fifo")).st_uid, places.USER)

    def test_a_listing_while_names_come_and_go_has_each_that_stays_once(self):
        stays = {f"stay{i}" for i in range(600)}
        for name in stays:
            self.file(name)
        for i in range(600):
            self.file(f"go{i}")
        seen, number = [], 0
        with os.scandir(self.dir) as entries:
            for entry in entries:
                seen.append(entry.name)
                if number < 600:
                    os.unlink(self.path(f"go{number}"))
                    self.file(f"come{number}")
                    number += 1
        self.assertEqual(sorted(name for name in seen if name.startswith("stay")), sorted(stays))
        self.assertEqual(len(seen), len(set(seen)))
        self.assertEqual(set(os.listdir(self.dir)), stays | {f"come{i}" for i in range(600)})

    # call -> what of a directory's names it takes away and what it adds
    CHANGES = {
        "unlink": (lambda path: os.unlink(path("d/gone")), {"gone"}, set()),
        "rmdir": (lambda path: os.rmdir(path("d/empty")), {"empty"}, set()),
        "rename away": (lambda path: os.rename(path("d/gone"), path("aside")), {"gone"}, set()),
        "rename within": (lambda path: os.rename(path("d/gone"), path("d/come")), {"gone"}, {"come"}),
        "rename here": (lambda path: os.rename(path("other"), path("d/come")), set(), {"come"}),
        "create": (lambda path: os.close(os.open(path("d/come"), os.O_CREAT | os.O_WRONLY)), set(), {"come"}),
        "mkdir": (lambda path: os.mkdir(path("d/come")), set(), {"come"}),
        "mkfifo": (lambda path: os.mkfifo(path("d/come")), set(), {"come"}),
        "symlink": (lambda path: os.symlink("t", path("d/come")), set(), {"come"}),
        "link": (lambda path: os.link(path("other"), path("d/come")), set(), {"come"}),
    }

    def populate_listed(self, count):
        for name in ("d", "d/empty"):
            os.mkdir(self.path(name))
        names = {"gone"} | {f"name{i}" for i in range(count)}
        for name in names:
            self.file("d/" + name)
        self.file("other")
        return names | {"empty", ".", ".."}

    def list_around(self, change, size, reads):
        """What a listing that begins after the change has, when one that began before it ends in its middle."""
        with places.Listing(self.path("d")) as before, places.Listing(self.path("d")) as after:
            for _ in range(reads):
                before.read(size)
            change(self.path)
            names = after.read(size)
            before.rest(size)
            return names + after.rest(size)

    def test_a_listing_is_not_ended_with_one_that_began_before_a_change(self):
        for call, (change, gone, come) in self.CHANGES.items():
            for count, size, reads in ((2, 96, 1), (2, 4096, 1), (300, 96, 1), (300, 4096, 1), (300, 4096, 3)):
                with self.subTest(call=call, count=count, size=size, reads=reads):
                    expected = self.populate_listed(count) - gone | come
                    self.assertEqual(sorted(self.list_around(change, size, reads)), sorted(expected))
                    self.assertEqual(set(os.listdir(self.path("d"))), expected - {".", ".."})
                shutil.rmtree(self.path("d"))
                for name in os.listdir(self.dir):
                    os.unlink(self.path(name))

    def test_listings_in_the_root_are_not_ended_with_others_either(self):
        for name in ("gone", "stays"):
            self.file(name)
        with places.Listing(self.dir) as before, places.Listing(self.dir) as after:
            before.read(4096)
            os.unlink(self.path("gone"))
            names = after.read(4096)
            before.rest(4096)
            self.assertEqual(sorted(names + after.rest(4096)), [".", "..", "stays"])

    def test_what_is_open_or_lived_in_can_be_removed(self):
        fd = self.open("f")
        os.write(fd, b"still here")
        os.unlink(self.path("f"))
        self.assertEqual((os.fstat(fd).st_nlink, os.pread(fd, 99, 0)), (0, b"still here"))
        self.assert_errno(E.ENOENT, places.link_open, fd, self.path("back"))
        os.mkdir(self.path("home"))
        here = os.open(".", os.O_RDONLY)
        os.chdir(self.path("home"))
        try:
            os.rmdir(self.path("home"))
            self.assert_errno(E.ENOENT, os.mkdir, "child")
            self.assert_errno(E.ENOENT, os.stat, "child")
            self.assertEqual(os.listdir("."), [])
            self.assertEqual(os.stat(".").st_nlink, 0)
        finally:
            os.fchdir(here)
            os.close(here)
        self.assert_errno(E.EINVAL, os.rmdir, self.path("x/..") if os.mkdir(self.path("x")) else self.path("x/."))

    def test_a_file_without_a_name_gets_one_by_linkat(self):
        if self.is_mendfs and harness.libfuse_version() < (3, 17):
            self.assert_errno(E.EOPNOTSUPP, os.open, self.dir, os.O_TMPFILE | os.O_RDWR)
            return
        fd = os.open(self.dir, os.O_TMPFILE | os.O_RDWR, 0o640)
        self.addCleanup(os.close, fd)
        os.write(fd, b"born nameless")
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        places.link_open(fd, self.path("named"))
        self.assertEqual(os.stat(self.path("named")).st_nlink, 1)
        exclusive = os.open(self.dir, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
        self.assert_errno(E.ENOENT, places.link_open, exclusive, self.path("never"))
        os.close(exclusive)
        with open(self.path("named"), "rb") as file:
            self.assertEqual(file.read(), b"born nameless")


places.variants(Names, globals())
del globals()["Names"]

if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
