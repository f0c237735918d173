#!/usr/bin/env python3
"""Extended attributes and what ends with a write: setuid, setgid, capabilities."""
import ctypes
import errno
import mmap
import os
import random
import socket
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl_json, program, run, wait_for
from users import UserMixin, as_user

USER, OTHER = 1000, 2000
# Version 2, cap_net_raw permitted and effective.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


class Base(UserMixin, harness.Case):
    fsck_after = True
    options = ()

    def setUp(self):
        super().setUp()
        self.mount = self.mounted("allow_other", *self.options, size="128M")
        os.chmod(self.folder, 0o755)

    def tearDown(self):
        self.assertEqual(mendctl_json("check", self.mount.directory), [])
        self.mount.umount()
        run(program("fsck.mendfs"), "-f", "-n", self.mount.image)

    def pwrite(self, path, flags=0):
        fd = os.open(path, os.O_WRONLY | flags)
        try:
            os.pwrite(fd, bytes(BLOCK), 0)
        finally:
            os.close(fd)

    def requests(self, opcode):
        counts = {request["opcode"]: request["count"] for request in mendctl_json("stats", self.mount.image)}
        return counts.get(opcode, 0)


class Attributes(Base):
    def test_values_of_every_size_survive_a_remount(self):
        rng = random.Random(7)
        path = self.write("file")
        values = {f"user.{size}": rng.randbytes(size) for size in (0, 1, 900, 4000, 20000, 65535, 65536)}
        for name, value in values.items():
            os.setxattr(path, name, value)
        for _ in range(2):
            self.assertEqual({name: os.getxattr(path, name) for name in os.listxattr(path)}, values)
            self.mount.remount()
        self.assert_errno(errno.E2BIG, os.setxattr, path, "user.more", bytes(65537))

    def test_thousands_of_attributes(self):
        path = self.write("file")
        wanted = {f"user.{i:04}" for i in range(4000)}
        for name in sorted(wanted):
            os.setxattr(path, name, name.encode() * 3)
        self.mount.remount()
        self.assertEqual(set(os.listxattr(path)), wanted)
        for name in random.Random(1).sample(sorted(wanted), 200):
            self.assertEqual(os.getxattr(path, name), name.encode() * 3)
        for name in sorted(wanted)[:2000]:
            os.removexattr(path, name)
        self.assertEqual(set(os.listxattr(path)), set(sorted(wanted)[2000:]))
        os.unlink(path)

    def test_errors_are_those_of_the_manual(self):
        path = self.write("file")
        os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
        self.assert_errno(errno.EEXIST, os.setxattr, path, "user.a", b"2", os.XATTR_CREATE)
        os.setxattr(path, "user.a", b"22", os.XATTR_REPLACE)
        self.assert_errno(errno.ENODATA, os.setxattr, path, "user.b", b"2", os.XATTR_REPLACE)
        self.assert_errno(errno.ENODATA, os.getxattr, path, "user.b")
        self.assert_errno(errno.ENODATA, os.removexattr, path, "user.b")
        self.assert_errno(errno.EOPNOTSUPP, os.setxattr, path, "nobody.a", b"1")
        self.assert_errno(errno.EOPNOTSUPP, os.setxattr, path, "system.a", b"1")
        self.assert_errno(errno.ERANGE, os.setxattr, path, "user." + "n" * 251, b"1")
        os.setxattr(path, "user." + "n" * 250, b"1")
        self.assertEqual(os.getxattr(path, "user." + "n" * 250), b"1")

    def test_namespaces(self):
        path = self.write("file", owner=(USER, USER))
        os.symlink("target", self.mount.path("link"))
        os.mkfifo(self.mount.path("fifo"))
        os.setxattr(path, "trusted.t", b"1")
        os.setxattr(path, "user.u", b"1")
        os.setxattr(self.mount.path("link"), "trusted.t", b"1", follow_symlinks=False)
        os.setxattr(self.mount.path("link"), "security.s", b"1", follow_symlinks=False)
        self.assert_errno(errno.EPERM, os.setxattr, self.mount.path("link"), "user.u", b"1", follow_symlinks=False)
        self.assert_errno(errno.EPERM, os.setxattr, self.mount.path("fifo"), "user.u", b"1")
        self.assertEqual(set(os.listxattr(path)), {"trusted.t", "user.u"})
        self.assertEqual(as_user(USER, USER, os.listxattr, path), ["user.u"])
        self.assert_errno(errno.ENODATA, as_user, USER, USER, os.getxattr, path, "trusted.t")
        self.assert_errno(errno.EPERM, as_user, USER, USER, os.setxattr, path, "trusted.t", b"2")
        self.assert_errno(errno.EACCES, as_user, OTHER, OTHER, os.setxattr, path, "user.u", b"2")
        self.assertEqual(as_user(OTHER, OTHER, os.getxattr, path, "user.u"), b"1")
        os.chmod(path, 0o600)
        self.assert_errno(errno.EACCES, as_user, OTHER, OTHER, os.getxattr, path, "user.u")

    def test_in_a_sticky_directory_only_the_owner_sets_them(self):
        path = self.mount.path("dir")
        os.mkdir(path)
        os.chown(path, USER, USER)
        os.chmod(path, 0o1777)
        self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, os.setxattr, path, "user.u", b"1")
        as_user(USER, USER, os.setxattr, path, "user.u", b"1")
        self.assertEqual(as_user(OTHER, OTHER, os.getxattr, path, "user.u"), b"1")

    def test_tools_copy_them(self):
        path = self.write("file")
        run("setfattr", "-n", "user.colour", "-v", "blue", path)
        run("cp", "-a", path, self.mount.path("copy"))
        self.assertIn('user.colour="blue"', run("getfattr", "-d", self.mount.path("copy")).stdout)
        os.rename(self.mount.path("copy"), path)
        self.assertEqual(os.getxattr(path, "user.colour"), b"blue")

    def test_a_full_filesystem_refuses_them(self):
        path = self.write("file")
        with self.assertRaises(OSError) as caught:
            for i in range(10000):
                os.setxattr(path, f"user.{i}", bytes(65536))
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        for name in os.listxattr(path):
            os.removexattr(path, name)
        os.setxattr(path, "user.again", bytes(65536))

    def test_an_unlinked_file_keeps_its_own(self):
        path = self.write("file")
        with open(path, "rb") as file:
            os.unlink(path)
            os.setxattr(file.fileno(), "user.a", bytes(30000))
            self.assertEqual(os.getxattr(file.fileno(), "user.a"), bytes(30000))


class Privileges(Base):
    def ways(self, path):
        """Each changes the content."""
        copy_from = self.write("source", bytes(BLOCK))

        def fallocate(target):
            fd = os.open(target, os.O_WRONLY)
            try:
                os.posix_fallocate(fd, 0, 5 * BLOCK)
            finally:
                os.close(fd)

        def copy(target):
            source, to = os.open(copy_from, os.O_RDONLY), os.open(target, os.O_WRONLY)
            try:
                os.copy_file_range(source, to, BLOCK, 0, 0)
            finally:
                os.close(source)
                os.close(to)

        return {"write": self.pwrite, "direct": lambda target: direct(target), "truncate": lambda target: os.truncate(target, 10),
                "open": lambda target: os.close(os.open(target, os.O_WRONLY | os.O_TRUNC)), "fallocate": fallocate, "copy": copy}

    def test_setuid_and_setgid_end_with_a_write_of_another(self):
        for before, after in ((0o6777, 0o777), (0o4766, 0o766), (0o2777, 0o777)):
            for name, way in self.ways(None).items():
                path = self.write("program", bytes(2 * BLOCK), before, (USER, USER))
                as_user(OTHER, OTHER, way, path)
                self.assertEqual(oct(self.mode("program")), oct(after), f"{name} of {before:o}")
                self.mount.remount()
                self.assertEqual(oct(self.mode("program")), oct(after), f"{name} of {before:o}, remounted")

    def test_setgid_ends_with_a_write_of_a_stranger_where_the_group_may_not_execute(self):
        if harness.libfuse_version() < (3, 18):
            return  # there the kernel lets it be, and nobody tells us of whose a write is
        for groups, after in ((), 0o666), ((4000,), 0o2666):
            for name, way in self.ways(None).items():
                path = self.write("program", bytes(2 * BLOCK), 0o2666, (USER, 4000))
                as_user(OTHER, OTHER, way, path, groups=groups)
                self.assertEqual(oct(self.mode("program")), oct(after), f"{name} of one with the groups {groups}")
                self.mount.remount()
                self.assertEqual(oct(self.mode("program")), oct(after), f"{name} of one with the groups {groups}, remounted")

    def test_a_stranger_who_asks_for_no_new_owner_clears_nothing(self):
        """The kernel refuses that of its own filesystems; of ours it asks for nothing in particular, as before some writes."""
        path = self.write("program", mode=0o6755, owner=(USER, USER))
        try:
            as_user(OTHER, OTHER, os.chown, path, -1, -1)
        except PermissionError:
            pass  # as it is with libfuse before 3.18
        self.assertEqual(oct(self.mode("program")), oct(0o6755))
        as_user(USER, USER, os.chown, path, -1, -1)
        kept = self.writes_back() and harness.libfuse_version() >= (3, 18)
        self.assertEqual(oct(self.mode("program")), oct(0o6755 if kept else 0o755))

    def test_root_keeps_them(self):
        for name, way in self.ways(None).items():
            path = self.write("program", bytes(2 * BLOCK), 0o6755, (USER, USER))
            way(path)
            self.assertEqual(oct(self.mode("program")), oct(0o6755), name)

    def test_setuid_ends_with_a_new_owner(self):
        path = self.write("program", mode=0o6755, owner=(USER, USER))
        as_user(USER, USER, os.chown, path, -1, OTHER, groups=[OTHER])
        self.assertEqual(oct(self.mode("program")), oct(0o755))
        path = self.write("program", mode=0o6755, owner=(USER, USER))
        os.chown(path, OTHER, OTHER)
        self.assertEqual(oct(self.mode("program")), oct(0o755))
        self.assert_errno(errno.EPERM, as_user, USER, USER, os.chown, path, USER, -1)

    def test_a_new_owner_does_to_modes_what_tmpfs_does(self):
        oracle = os.path.join(self.folder, "oracle")
        os.mkdir(oracle)
        os.chmod(oracle, 0o777)
        os.chmod(self.mount.directory, 0o777)
        ways = {"group": (-1, 3000), "same": (USER, 4000), "nothing": (-1, -1)}
        if self.writes_back():
            del ways["nothing"]  # comes with times then, as a SETATTR like any other
        modes = [0o2644, 0o2755, 0o6744, 0o4755, 0o2670, 0o6000, 0o644]
        if harness.libfuse_version() < (3, 18):
            modes = [mode for mode in modes if mode not in (0o6744, 0o6000)]  # there the kernel clears setuid by itself and lets setgid be
        for mode in modes:
            for kind in ("file", "directory"):
                for name, (uid, gid) in ways.items():
                    # root's chown to nobody else comes as a write of root does, which keeps the bits.
                    for groups in ([3000], [3000, 4000], *([None] if name != "nothing" else [])):
                        found = [self.chown_once(folder, kind, mode, uid, gid, groups) for folder in (oracle, self.mount.directory)]
                        self.assertEqual(found[0], found[1], f"{kind} {mode:o} {name} {groups}")

    def chown_once(self, folder, kind, mode, uid, gid, groups):
        """groups None: by root. Else by the owner, who has these groups; the file's is 4000."""
        path = os.path.join(folder, "it")
        if kind == "file":
            open(path, "w").close()
        else:
            os.mkdir(path)
        try:
            os.chown(path, USER, 4000)
            os.chmod(path, mode)
            try:
                if groups is None:
                    os.chown(path, uid, gid)
                else:
                    as_user(USER, USER, os.chown, path, uid, gid, groups=groups)
            except OSError as error:
                return error.errno
            return oct(os.stat(path).st_mode), os.stat(path).st_gid
        finally:
            os.unlink(path) if kind == "file" else os.rmdir(path)

    def writes_back(self):
        return "writeback" in (*self.options, *os.environ.get("MENDFS_OPTIONS", "").split(","))

    def test_what_is_refused_leaves_them(self):
        # Gathered writes do not say whose they are, so the kernel asks for the bits to go before it knows what becomes of a write. An older libfuse
        # does not say so of any write: then the kernel changes the mode, which a file that may only be appended to refuses.
        old = harness.libfuse_version() < (3, 18)
        left = 0o777 if self.writes_back() and not old else 0o6777
        path, source = self.write("program", bytes(2 * BLOCK), 0o6777, (USER, USER)), self.write("source", bytes(2 * BLOCK), 0o644)
        held = os.open(path, os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)

        def fallocate(mode):
            if libc.fallocate(held, mode, ctypes.c_long(0), ctypes.c_long(BLOCK)):
                raise OSError(ctypes.get_errno(), "fallocate")

        def copy():
            fd = os.open(source, os.O_RDONLY)
            try:
                os.copy_file_range(fd, held, BLOCK, 0, 0)
            finally:
                os.close(fd)

        run("chattr", "+a", path)
        try:
            for way in (lambda: os.pwrite(held, b"x", 0), lambda: fallocate(3), lambda: fallocate(16), copy):
                self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, way)
                self.assertEqual(oct(self.mode("program")), oct(left))
            if old:
                self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, os.pwrite, held, b"x", 2 * BLOCK)
            else:
                as_user(OTHER, OTHER, os.pwrite, held, b"x", 2 * BLOCK)
                wait_for(lambda: self.mode("program") == 0o777, what="an append of another that clears them")
        finally:
            os.close(held)
            run("chattr", "-a", path)

    def test_capabilities_end_with_a_write_of_anybody(self):
        for name, way in self.ways(None).items():
            path = self.write("program", bytes(2 * BLOCK), 0o755)
            os.setxattr(path, "security.capability", CAPABILITY)
            self.assertEqual(os.listxattr(path), ["security.capability"])
            way(path)
            self.assertEqual(os.listxattr(path), [], name)

    def test_a_file_that_has_none_is_asked_once(self):
        path = self.write("file", bytes(2 * BLOCK))
        self.pwrite(path)
        before = self.requests("GETXATTR")
        fd = os.open(path, os.O_WRONLY)
        for i in range(100):
            os.pwrite(fd, b"x", i)
        os.close(fd)
        self.assertLessEqual(self.requests("GETXATTR") - before, 0 if self.knows_killpriv() else 100)

    def knows_killpriv(self):
        """The kernel asks before every write where libfuse cannot say that we clear the bits by ourselves."""
        return os.environ.get("MENDFS_SYSTEM_LIBFUSE") is None and b"libfuse3.so" not in run("ldd", program("mendfs")).stdout.encode()

    def test_a_setuid_program_runs_as_its_owner_until_it_is_written(self):
        with open("/usr/bin/id", "rb") as file:
            content = file.read()

        def run_it():
            return subprocess.run([path, "-u"], stdout=subprocess.PIPE, check=True, timeout=harness.TIMEOUT).stdout.decode().strip()

        self.assertNotIn("nosuid", run("findmnt", "-no", "OPTIONS", self.mount.directory).stdout)
        for name, way in {"append": append_nothing_of_worth, "direct": rewrite_directly, "open": truncate_and_rewrite}.items():
            path = self.write("id", content, 0o4777, (0, 0))
            self.assertEqual(as_user(USER, USER, run_it), "0", name)
            as_user(USER, USER, way, path)
            # The kernel learns of it a moment later where the request that did it cannot say so.
            harness.wait_for(lambda: as_user(USER, USER, run_it) == str(USER), what=f"the end of setuid after {name}")


class PrivilegesWriteback(Privileges):
    options = ("writeback",)


class PrivilegesNoOpen(Privileges):
    options = ("no_open",)


def append_nothing_of_worth(path):
    with open(path, "ab") as file:
        file.write(b"\0")


def rewrite_directly(path):
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as buffer:
            os.preadv(fd, [buffer], 0)
            os.pwrite(fd, buffer, 0)
    finally:
        os.close(fd)


def truncate_and_rewrite(path):
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content)


def direct(path):
    """An aligned write around the page cache."""
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK) as buffer:
            os.pwrite(fd, buffer, 0)
    finally:
        os.close(fd)


class Modes(Base):
    """setgid and sticky directories, nodes that are neither file nor directory."""

    def test_a_setgid_directory_gives_its_group(self):
        path = self.mount.path("dir")
        os.mkdir(path)
        os.chown(path, USER, 4000)
        os.chmod(path, 0o2777)
        as_user(OTHER, OTHER, os.mkdir, os.path.join(path, "sub"))
        as_user(OTHER, OTHER, lambda: os.close(os.open(os.path.join(path, "file"), os.O_CREAT | os.O_WRONLY, 0o2775)))
        as_user(OTHER, OTHER, os.mkfifo, os.path.join(path, "fifo"))
        for name in ("sub", "file", "fifo"):
            self.assertEqual(os.stat(os.path.join(path, name)).st_gid, 4000, name)
            self.assertEqual(os.stat(os.path.join(path, name)).st_uid, OTHER, name)
        self.assertTrue(self.mode("dir/sub") & stat.S_ISGID)
        self.assertFalse(self.mode("dir/file") & stat.S_ISGID, "not for one who is not in the group")

    def test_chmod_by_one_outside_the_group_clears_setgid(self):
        path = self.write("file", owner=(USER, 4000))
        as_user(USER, USER, os.chmod, path, 0o2755)
        self.assertEqual(oct(self.mode("file")), oct(0o755))
        as_user(USER, USER, os.chmod, path, 0o2755, groups=[4000])
        self.assertEqual(oct(self.mode("file")), oct(0o2755))

    def test_in_a_sticky_directory_only_owners_remove(self):
        path = self.mount.path("tmp")
        os.mkdir(path)
        os.chmod(path, 0o1777)
        self.write("tmp/his", owner=(USER, USER))
        self.write("tmp/hers", owner=(OTHER, OTHER))
        his, hers, new = (os.path.join(path, name) for name in ("his", "hers", "new"))
        self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, os.unlink, his)
        self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, os.rename, his, new)
        self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, os.rename, hers, his)
        self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, self.exchange, hers, his)
        as_user(OTHER, OTHER, os.rename, hers, new)
        as_user(OTHER, OTHER, os.unlink, new)
        as_user(USER, USER, os.unlink, his)
        os.mkdir(os.path.join(path, "dir"))
        os.chown(os.path.join(path, "dir"), USER, USER)
        self.assert_errno(errno.EPERM, as_user, OTHER, OTHER, os.rmdir, os.path.join(path, "dir"))
        as_user(USER, USER, os.rmdir, os.path.join(path, "dir"))

    def exchange(self, one, two):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(-100, one.encode(), -100, two.encode(), 2):
            raise OSError(ctypes.get_errno(), "renameat2")

    def test_nodes_are_what_they_are(self):
        os.mknod(self.mount.path("null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(self.mount.path("disk"), 0o600 | stat.S_IFBLK, os.makedev(259, 1048575))
        os.mkfifo(self.mount.path("fifo"), 0o666)
        as_user(USER, USER, self.make_socket, self.folder_for_all("sockets", "socket"))
        self.assert_errno(errno.EPERM, as_user, USER, USER, os.mknod, self.mount.path("sockets/dev"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        self.mount.remount()
        for name, kind, device in (("null", stat.S_ISCHR, (1, 3)), ("disk", stat.S_ISBLK, (259, 1048575)), ("fifo", stat.S_ISFIFO, None),
                                   ("sockets/socket", stat.S_ISSOCK, None)):
            found = os.lstat(self.mount.path(name))
            self.assertTrue(kind(found.st_mode), name)
            if device:
                self.assertEqual((os.major(found.st_rdev), os.minor(found.st_rdev)), device)
        if "nodev" not in run("findmnt", "-no", "OPTIONS", self.mount.directory).stdout:
            with open(self.mount.path("null"), "rb") as null:
                self.assertEqual(null.read(), b"")
        reader = os.open(self.mount.path("fifo"), os.O_RDONLY | os.O_NONBLOCK)
        with open(self.mount.path("fifo"), "wb") as writer:
            writer.write(b"through")
        self.assertEqual(os.read(reader, 100), b"through")
        os.close(reader)

    def folder_for_all(self, name, inside):
        os.mkdir(self.mount.path(name))
        os.chmod(self.mount.path(name), 0o777)
        return self.mount.path(name, inside)

    def make_socket(self, path):
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path)


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
