#!/usr/bin/env python3
"""File handles: name_to_handle_at(2) and open_by_handle_at(2) over eviction, remount and deletion, which is what an NFS server needs."""
import ctypes
import errno
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import program, run

AT_FDCWD = -100
AT_HANDLE_CONNECTABLE = 2  # Linux 6.13
FILES = 1000
libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def handle_of(path, flags=0):
    handle, mount_id = Handle(bytes=128), ctypes.c_int()
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return handle


def open_handle(mount_fd, handle, flags):
    fd = libc.open_by_handle_at(mount_fd, ctypes.byref(handle), flags)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def evict():
    """Nothing of the mount stays in the kernel's caches but what is in use."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("2")


class Handles(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.image = self.make_image("128M")
        self.addCleanup(lambda: run(program("fsck.mendfs"), "-f", "-n", self.image))  # after every mount has ended
        self.mount = self.mounted(image=self.image)
        self.seed = int(os.environ.get("MENDFS_SEED", "0")) or random.randrange(1 << 32)
        self.random = random.Random(self.seed)
        print(f"seed {self.seed}", file=sys.stderr)

    def use(self, handle, visit, flags=os.O_RDONLY):
        """visit(fd) of what the handle leads to; nothing stays open."""
        mount_fd = os.open(self.mount.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fd = open_handle(mount_fd, handle, flags)
            try:
                return visit(fd)
            finally:
                os.close(fd)
        finally:
            os.close(mount_fd)

    def assert_stale(self, handle):
        with self.assertRaises(OSError) as caught:
            self.use(handle, os.fstat)
        self.assertEqual(caught.exception.errno, errno.ESTALE)

    def make_tree(self):
        """Files in directories in directories: {path: (handle, inode number)}."""
        made = {}
        directories = [""]
        for i in range(FILES // 10):
            name = os.path.join(self.random.choice(directories), f"d{i}")
            os.mkdir(self.mount.path(name))
            directories.append(name)
            made[name] = None
        for i in range(FILES - len(made)):
            name = os.path.join(self.random.choice(directories), f"f{i}")
            with open(self.mount.path(name), "w") as file:
                file.write(name)
            made[name] = None
        for name in made:
            path = self.mount.path(name)
            made[name] = handle_of(path), os.stat(path).st_ino
        return made

    def check_one(self, name, handle, inode):
        found = self.use(handle, os.fstat)
        self.assertEqual(found.st_ino, inode)
        if os.path.basename(name).startswith("f"):
            self.assertEqual(self.use(handle, lambda fd: os.read(fd, 4096)), name.encode())
        else:
            # A directory is connected: the kernel asks for "..", level by level, and finds its names.
            path = self.use(handle, lambda fd: os.readlink(f"/proc/self/fd/{fd}"))
            self.assertEqual(path, self.mount.path(name))

    def test_a_thousand_handles_survive_eviction_and_remount(self):
        made = self.make_tree()
        for round_ in ("evicted", "remounted", "killed"):
            with self.subTest(round_):
                if round_ == "remounted":
                    self.mount.remount()
                elif round_ == "killed":
                    self.mount.kill()
                    self.mount.mount()
                order = list(made)
                self.random.shuffle(order)
                for i, name in enumerate(order):
                    if i % 250 == 0:
                        evict()
                    self.check_one(name, *made[name])

    def test_a_handle_is_the_same_after_a_remount_and_a_rename(self):
        made = self.make_tree()
        self.mount.remount()
        for name, (handle, _) in self.random.sample(sorted(made.items()), 100):
            self.assertEqual(bytes(handle), bytes(handle_of(self.mount.path(name))))
        with open(self.mount.path("before"), "w") as file:
            file.write("content")
        handle = handle_of(self.mount.path("before"))
        os.mkdir(self.mount.path("elsewhere"))
        os.rename(self.mount.path("before"), self.mount.path("elsewhere", "after"))
        self.mount.remount()
        self.assertEqual(self.use(handle, lambda fd: os.read(fd, 100)), b"content")

    def test_handles_of_what_is_deleted_are_stale_and_stay_so(self):
        made = self.make_tree()
        names = [name for name in made if os.path.basename(name).startswith("f")]
        gone = self.random.sample(names, 200)
        for name in gone:
            os.unlink(self.mount.path(name))
        os.mkdir(self.mount.path("directory"))
        directory = handle_of(self.mount.path("directory"))
        os.rmdir(self.mount.path("directory"))
        for _ in range(2):
            for name in gone:
                self.assert_stale(made[name][0])
            self.assert_stale(directory)
            # New files must not be found by old handles.
            for name in gone:
                with open(self.mount.path(name), "w") as file:
                    file.write("another")
            self.mount.remount()
        for name in self.random.sample([name for name in names if name not in gone], 100):
            self.check_one(name, *made[name])

    def test_a_deleted_file_that_is_open_lives_until_it_is_closed(self):
        path = self.mount.path("file")
        with open(path, "w+") as file:
            file.write("content")
            file.flush()
            handle = handle_of(path)
            os.unlink(path)
            evict()
            self.assertEqual(os.pread(file.fileno(), 100, 0), b"content")
        self.mount.remount()
        self.assert_stale(handle)

    def test_invented_handles_are_stale_and_harm_nothing(self):
        made = self.make_tree()
        samples = [handle for handle, _ in self.random.sample(sorted(made.values(), key=lambda pair: pair[1]), 20)]
        for handle in samples:
            for at in range(12):  # inode number and generation
                wrong = Handle.from_buffer_copy(handle)
                wrong.data[at] ^= 1 << self.random.randrange(8)
                try:
                    self.use(wrong, os.fstat)
                except OSError as error:
                    self.assertEqual(error.errno, errno.ESTALE)
        for _ in range(200):
            wrong = Handle.from_buffer_copy(self.random.choice(samples))
            for at in range(12):
                wrong.data[at] = self.random.randrange(256)
            self.assert_stale(wrong)

    def test_handles_can_be_connected_to_their_parents(self):
        path = self.mount.path("a", "b", "c")
        os.makedirs(path)
        with open(os.path.join(path, "file"), "w") as file:
            file.write("content")
        try:
            handle = handle_of(os.path.join(path, "file"), AT_HANDLE_CONNECTABLE)
        except OSError as error:
            self.assertEqual(error.errno, errno.EINVAL)
            self.skipTest("this kernel makes no connectable handles")
        for again in (evict, self.mount.remount):
            again()
            found = self.use(handle, lambda fd: os.readlink(f"/proc/self/fd/{fd}"))
            self.assertEqual(found, os.path.join(path, "file"))

    def test_every_kind_of_file_and_the_root_have_one(self):
        os.symlink("target", self.mount.path("symlink"))
        os.mkfifo(self.mount.path("fifo"))
        os.mknod(self.mount.path("device"), 0o20600, os.makedev(1, 3))
        for name in ("symlink", "fifo", "device", "."):
            inode = os.lstat(self.mount.path(name)).st_ino
            handle = handle_of(self.mount.path(name))
            self.mount.remount()
            self.assertEqual(self.use(handle, os.fstat, os.O_PATH).st_ino, inode)


if __name__ == "__main__":
    harness.need_mounts()
    if not os.access("/proc/sys/vm/drop_caches", os.W_OK):
        print("SKIP: cannot write /proc/sys/vm/drop_caches")
        raise SystemExit(77)
    unittest.main()
