#!/usr/bin/env python3
"""POSIX ACLs: enforced by the kernel, kept in step with modes and inherited by the daemon."""
import errno
import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import mendctl_json, program, run
from users import UserMixin, as_user

OWNER, NAMED, MEMBER, STRANGER = 1000, 2000, 3000, 4000
GROUP = 5000


class Acl(UserMixin, harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.mount = self.mounted("allow_other", size="64M")
        os.chmod(self.folder, 0o755)

    def tearDown(self):
        self.assertEqual(mendctl_json("check", self.mount.directory), [])
        self.mount.umount()
        run(program("fsck.mendfs"), "-f", "-n", self.mount.image)

    def setfacl(self, *arguments):
        run("setfacl", *arguments)

    def getfacl(self, name):
        """The lines without comments, sorted."""
        lines = run("getfacl", "-cpnE", self.mount.path(name)).stdout.split("\n")
        return sorted(line for line in lines if line)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def write_to(self, path):
        with open(path, "r+b") as file:
            file.write(b"y")

    def create(self, path, mode=0o666):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode))

    def test_entries_decide_who_may(self):
        path = self.write("file", b"text", 0o600, (OWNER, OWNER))
        self.assert_errno(errno.EACCES, as_user, NAMED, NAMED, self.read, path)
        self.setfacl("-m", f"u:{NAMED}:r,g:{GROUP}:rw", path)
        for _ in range(2):
            self.assertEqual(as_user(NAMED, NAMED, self.read, path), b"text")
            self.assert_errno(errno.EACCES, as_user, NAMED, NAMED, self.write_to, path)
            as_user(MEMBER, MEMBER, self.write_to, path, groups=[GROUP])
            self.assert_errno(errno.EACCES, as_user, STRANGER, STRANGER, self.read, path)
            self.write_to(path)
            with open(path, "wb") as file:
                file.write(b"text")
            self.mount.remount()
        self.setfacl("-m", f"u:{NAMED}:-", path)
        self.assert_errno(errno.EACCES, as_user, NAMED, NAMED, self.read, path)
        self.setfacl("-b", path)
        self.assert_errno(errno.EACCES, as_user, MEMBER, MEMBER, self.read, path, groups=[GROUP])

    def test_mode_and_mask_are_one(self):
        path = self.write("file", mode=0o640, owner=(OWNER, OWNER))
        self.setfacl("-m", f"u:{NAMED}:rw", path)
        self.assertEqual(oct(self.mode("file")), oct(0o660))
        # Not 0604: the kernel asks no ACL that has an empty mask, and others would do.
        os.chmod(path, 0o614)
        self.assertEqual(self.getfacl("file"), sorted(["user::rw-", f"user:{NAMED}:rw-", "group::r--", "mask::--x", "other::r--"]))
        self.assert_errno(errno.EACCES, as_user, NAMED, NAMED, self.read, path)
        os.chmod(path, 0o664)
        self.assertEqual(as_user(NAMED, NAMED, self.read, path), b"x")
        self.mount.remount()
        self.assertEqual(self.getfacl("file"), sorted(["user::rw-", f"user:{NAMED}:rw-", "group::r--", "mask::rw-", "other::r--"]))

    def test_an_acl_like_the_mode_is_only_the_mode(self):
        path = self.write("file", mode=0o600)
        self.setfacl("-m", "g::rw,o::r", path)
        self.assertEqual(oct(self.mode("file")), oct(0o664))
        self.assertEqual(os.listxattr(path), [])

    def test_default_acls_are_inherited_and_stand_for_the_umask(self):
        top = self.mount.path("top")
        os.mkdir(top)
        os.chmod(top, 0o777)
        as_user(OWNER, OWNER, self.create, os.path.join(top, "masked"), umask=0o077)
        self.assertEqual(oct(self.mode("top/masked")), oct(0o600))
        self.setfacl("-d", "-m", f"u::rwx,u:{NAMED}:rwx,g::rx,o::-", top)
        as_user(OWNER, OWNER, self.create, os.path.join(top, "file"), umask=0o077)
        self.assertEqual(oct(self.mode("top/file")), oct(0o660))
        self.assertEqual(self.getfacl("top/file"), sorted(["user::rw-", f"user:{NAMED}:rwx", "group::r-x", "mask::rw-", "other::---"]))
        as_user(NAMED, NAMED, self.write_to, os.path.join(top, "file"))
        as_user(OWNER, OWNER, os.mkdir, os.path.join(top, "sub"), umask=0o077)
        default = sorted(["default:user::rwx", f"default:user:{NAMED}:rwx", "default:group::r-x", "default:mask::rwx", "default:other::---"])
        self.assertEqual([line for line in self.getfacl("top/sub") if line.startswith("default")], default)
        as_user(NAMED, NAMED, self.create, os.path.join(top, "sub", "deep"), 0o640, umask=0)
        self.assertEqual(oct(self.mode("top/sub/deep")), oct(0o640))
        as_user(OWNER, OWNER, os.mkfifo, os.path.join(top, "fifo"), umask=0o077)
        self.assertEqual(oct(self.mode("top/fifo")), oct(0o660))
        os.symlink("x", os.path.join(top, "link"))
        self.assertEqual(os.listxattr(os.path.join(top, "link"), follow_symlinks=False), [])
        self.mount.remount()
        self.assertEqual([line for line in self.getfacl("top/sub") if line.startswith("default")], default)
        self.setfacl("-k", top)
        as_user(OWNER, OWNER, self.create, os.path.join(top, "again"), umask=0o027)
        self.assertEqual(oct(self.mode("top/again")), oct(0o640))

    def test_a_temporary_file_inherits(self):
        top = self.mount.path("top")
        os.mkdir(top)
        self.setfacl("-d", "-m", f"u::rw,u:{NAMED}:rw,g::r,o::-", top)
        try:
            fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o666)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            print("SKIP: this libfuse has no O_TMPFILE")
            return
        self.assertEqual(oct(os.fstat(fd).st_mode & 0o7777), oct(0o660))
        os.close(fd)

    def test_only_owners_set_them(self):
        path = self.write("file", mode=0o666, owner=(OWNER, OWNER))
        text = f"u:{STRANGER}:rw"
        done = as_user(STRANGER, STRANGER, lambda: run("setfacl", "-m", text, path, check=False).returncode)
        self.assertNotEqual(done, 0)
        as_user(OWNER, OWNER, lambda: self.setfacl("-m", text, path))
        self.assertIn(f"user:{STRANGER}:rw-", self.getfacl("file"))

    def test_a_default_acl_of_a_file_is_refused(self):
        path = self.write("file")
        self.assertNotEqual(run("setfacl", "-d", "-m", f"u:{NAMED}:r", path, check=False).returncode, 0)
        os.removexattr(path, "system.posix_acl_access")

    def test_setgid_goes_with_an_acl_from_outside_the_group(self):
        path = self.write("file", owner=(OWNER, GROUP))
        os.chmod(path, 0o2755)
        as_user(OWNER, OWNER, lambda: self.setfacl("-m", f"u:{NAMED}:r", path), groups=[GROUP])
        self.assertEqual(oct(self.mode("file")), oct(0o2755))
        as_user(OWNER, OWNER, lambda: self.setfacl("-m", f"u:{NAMED}:rx", path))
        self.assertEqual(oct(self.mode("file")), oct(0o755))

    def test_many_entries_and_copies(self):
        path = self.write("file", mode=0o640)
        self.setfacl("-m", ",".join(f"u:{10000 + i}:r" for i in range(400)), path)
        run("cp", "-a", path, self.mount.path("copy"))
        self.mount.remount()
        self.assertEqual(len(self.getfacl("copy")), 404)
        self.assertEqual(as_user(10399, 10399, self.read, self.mount.path("copy")), b"x")
        self.assert_errno(errno.EACCES, as_user, 10400, 10400, self.read, self.mount.path("copy"))


if __name__ == "__main__":
    harness.need_mounts()
    if not shutil.which("setfacl"):
        print("SKIP: needs setfacl (Debian's package acl)")
        raise SystemExit(77)
    unittest.main()
