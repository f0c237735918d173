#!/usr/bin/env python3
"""Files and directories through the kernel, as a user of any other filesystem expects them."""
import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, mendctl_json, run, scaled

MIB = 1 << 20


class Files(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="192M")

    def tearDown(self):
        if self.mount.daemon:
            self.assertEqual(mendctl_json("check", self.mount.directory), [])

    def write(self, name, data=b"x"):
        with open(self.mount.path(name), "wb") as file:
            file.write(data)
        return self.mount.path(name)

    def assert_errno(self, number, call, *arguments):
        with self.assertRaises(OSError) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.errno, number)

    def test_random_reads_and_writes_agree_with_a_model(self):
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        rng, model = random.Random(seed), bytearray()
        path = self.write("model", b"")
        fd = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, fd)
        for step in range(scaled(1500)):
            pos, size = rng.randrange(2 * MIB), rng.choice((1, 100, BLOCK, 3 * BLOCK + 5, 200000))
            kind = rng.randrange(10)
            if kind < 5:
                data = rng.randbytes(size)
                if len(model) < pos:
                    model.extend(bytes(pos - len(model)))
                model[pos:pos + size] = data
                self.assertEqual(os.pwrite(fd, data, pos), size)
            elif kind == 5:
                new = rng.randrange(2 * MIB)
                os.ftruncate(fd, new)
                model = model[:new] + bytes(max(0, new - len(model)))
            elif kind == 6:
                os.fsync(fd)
            elif kind == 7:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                self.assertEqual(os.pread(fd, size, pos), bytes(model[pos:pos + size]), f"step {step}")
        self.assertEqual(os.fstat(fd).st_size, len(model))
        self.mount_again_and_compare("model", bytes(model), fd)

    def mount_again_and_compare(self, name, data, fd):
        os.fsync(fd)
        with open(self.mount.path(name), "rb") as file:
            self.assertEqual(file.read(), data)

    def test_everything_survives_a_remount(self):
        os.makedirs(self.mount.path("a/b/c"))
        self.write("a/b/file", b"content")
        os.symlink("../target", self.mount.path("a/link"))
        os.link(self.mount.path("a/b/file"), self.mount.path("a/b/again"))
        os.mkfifo(self.mount.path("a/fifo"))
        os.mknod(self.mount.path("a/null"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.chmod(self.mount.path("a/b/file"), 0o4711)
        os.chown(self.mount.path("a/b/file"), 1234, 4321)
        os.utime(self.mount.path("a/b/file"), ns=(-1500000001, 5000000000 * 10**9 + 123456789))
        before = {path: os.lstat(path) for path in self.tree()}
        self.mount.remount()
        self.assertEqual(set(before), set(self.tree()))
        for path, old in before.items():
            new = os.lstat(path)
            for field in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_rdev", "st_mtime_ns", "st_ctime_ns", "st_blocks"):
                self.assertEqual(getattr(new, field), getattr(old, field), f"{path} {field}")
        self.assertEqual(os.readlink(self.mount.path("a/link")), "../target")
        self.assertEqual(os.stat(self.mount.path("a/b/file")).st_mtime_ns, 5000000000 * 10**9 + 123456789)
        with open(self.mount.path("a/b/again"), "rb") as file:
            self.assertEqual(file.read(), b"content")

    def tree(self):
        return [os.path.join(folder, name) for folder, folders, names in os.walk(self.mount.directory) for name in folders + names]

    def test_times_before_1970_are_kept(self):
        path = self.write("old")
        os.utime(path, ns=(-1500000001, -987654321))
        self.mount.remount()
        self.assertEqual((os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns), (-1500000001, -987654321))

    def test_errors_are_those_of_posix(self):
        path = self.write("file")
        os.mkdir(self.mount.path("dir"))
        self.write("dir/inside")
        self.assert_errno(errno.ENOTEMPTY, os.rmdir, self.mount.path("dir"))
        self.assert_errno(errno.ENOTDIR, os.rmdir, path)
        self.assert_errno(errno.EISDIR, os.unlink, self.mount.path("dir"))
        self.assert_errno(errno.ENOENT, os.unlink, self.mount.path("nothing"))
        self.assert_errno(errno.EEXIST, os.mkdir, path)
        self.assert_errno(errno.ENOTDIR, os.stat, os.path.join(path, "below"))
        self.assert_errno(errno.ENAMETOOLONG, os.mkdir, self.mount.path("n" * 256))
        os.mkdir(self.mount.path("n" * 255))
        self.assert_errno(errno.EINVAL, os.rename, self.mount.path("dir"), self.mount.path("dir/self"))
        self.assert_errno(errno.EISDIR, os.rename, path, self.mount.path("dir"))
        self.assert_errno(errno.ENOTDIR, os.rename, self.mount.path("dir"), path)

    def test_rename_replaces_atomically(self):
        stop = threading.Event()
        self.write("target", b"A" * 1000)
        problems = []

        def watch():
            while not stop.is_set():
                try:
                    with open(self.mount.path("target"), "rb") as file:
                        data = file.read()
                    if len(data) != 1000 or len(set(data)) != 1:
                        problems.append(data[:20])
                except FileNotFoundError:
                    problems.append("missing")

        watcher = threading.Thread(target=watch)
        watcher.start()
        for i in range(scaled(200)):
            self.write("new", bytes([65 + i % 26]) * 1000)
            os.rename(self.mount.path("new"), self.mount.path("target"))
        stop.set()
        watcher.join()
        self.assertEqual(problems, [])

    def test_an_unlinked_open_file_lives_until_closed_and_its_space_comes_back(self):
        free = os.statvfs(self.mount.directory).f_bfree
        path = self.write("open", b"z" * (20 * MIB))
        fd = os.open(path, os.O_RDWR)
        os.unlink(path)
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        self.assertEqual(os.pread(fd, 10, 10 * MIB), b"z" * 10)
        os.close(fd)
        harness.wait_for(lambda: os.statvfs(self.mount.directory).f_bfree >= free - 64, what="the space of the orphan")

    def test_an_orphan_of_a_killed_daemon_is_reclaimed_at_the_next_mount(self):
        mendctl("sync", self.mount.directory)
        free = os.statvfs(self.mount.directory).f_bfree
        path = self.write("open", b"z" * (20 * MIB))
        fd = os.open(path, os.O_RDWR)
        os.unlink(path)
        self.mount.kill()
        try:
            os.close(fd)
        except OSError:
            pass
        self.mount.mount()
        harness.wait_for(lambda: os.statvfs(self.mount.directory).f_bfree >= free - 64, what="the space of the orphan")

    def test_truncate_both_ways_reads_zeros(self):
        path = self.write("t", b"y" * 10000)
        os.truncate(path, 5000)
        os.truncate(path, 12000)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"y" * 5000 + bytes(7000))

    def test_sizes_beyond_32_bits_are_sparse(self):
        path = self.mount.path("huge")
        with open(path, "wb") as file:
            file.seek(1 << 45)
            file.write(b"end")
        self.assertEqual(os.stat(path).st_size, (1 << 45) + 3)
        self.assertLess(os.stat(path).st_blocks, 100)
        with open(path, "rb") as file:
            self.assertEqual(os.pread(file.fileno(), 16, (1 << 45) - 8), bytes(8) + b"end")

    def test_a_full_filesystem_refuses_cleanly_and_can_be_emptied(self):
        os.mkdir(self.mount.path("full"))
        written = 0
        with self.assertRaises(OSError) as caught:
            for i in range(100000):
                with open(self.mount.path("full", f"f{i}"), "wb", buffering=0) as file:
                    written += file.write(b"f" * (MIB if i < 190 else 5000))
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertGreater(written, 100 * MIB)
        self.assertEqual(mendctl_json("check", self.mount.directory), [])
        shutil.rmtree(self.mount.path("full"))
        self.write("again", b"a" * (50 * MIB))

    def test_a_host_filesystem_that_is_full_is_enospc_and_no_failure(self):
        small = os.path.join(self.folder, "small")
        os.mkdir(small)
        run("mount", "-t", "tmpfs", "-o", "size=64m", "none", small)
        self.addCleanup(run, "umount", "-l", small, check=False)
        mount = harness.Mount(self.make_image("200M", name="small/image"), os.path.join(self.folder, "mnt2"))
        self.addCleanup(mount.umount)
        with self.assertRaises(OSError) as caught:
            for i in range(200):
                with open(mount.path(f"f{i}"), "wb", buffering=0) as file:
                    file.write(b"f" * MIB)
                    os.fsync(file.fileno())
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertEqual(mendctl_json("badblocks", mount.directory), [])
        self.assertEqual(mendctl_json("check", mount.directory), [])
        first = os.path.getsize(mount.path("f0"))
        self.assertEqual(first, MIB)
        for name in os.listdir(mount.directory)[:5]:
            os.unlink(mount.path(name))
        # The kernel forgets the unlinked inodes in its own time, and only then is their space free.
        harness.wait_for(lambda: self.try_to_write(mount.path("used again"), b"a" * MIB), what="space of the deleted files")
        with open(mount.path("used again"), "rb") as file:
            self.assertEqual(file.read(), b"a" * MIB)

    def try_to_write(self, path, data):
        try:
            with open(path, "wb", buffering=0) as file:
                return file.write(data) == len(data)
        except OSError as error:
            self.assertEqual(error.errno, errno.ENOSPC)
            return False

    def test_a_listing_has_every_entry_once_whatever_happens_meanwhile(self):
        os.mkdir(self.mount.path("busy"))
        stable = {f"stable{i}" for i in range(scaled(2000))}
        for name in stable:
            self.write(f"busy/{name}")
        stop = threading.Event()

        def churn(number):
            i = 0
            while not stop.is_set():
                name = self.mount.path("busy", f"churn{number}-{i % 50}")
                with open(name, "wb"):
                    pass
                os.unlink(name)
                i += 1

        threads = [threading.Thread(target=churn, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(scaled(10)):
                names = [name for name in os.listdir(self.mount.path("busy")) if name.startswith("stable")]
                self.assertEqual(len(names), len(stable))
                self.assertEqual(set(names), stable)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_rm_rf_beside_parallel_creates(self):
        os.mkdir(self.mount.path("tree"))
        for d in range(10):
            os.mkdir(self.mount.path("tree", f"d{d}"))
            for f in range(scaled(100)):
                self.write(f"tree/d{d}/f{f}")
        count = scaled(300)
        creators = [subprocess.Popen(["sh", "-c", f"for i in $(seq {count}); do : > {self.mount.directory}/tree/new{n}-$i 2>/dev/null; done"])
                    for n in range(2)]
        run("rm", "-rf", *[self.mount.path("tree", f"d{d}") for d in range(10)])
        for creator in creators:
            creator.wait(harness.TIMEOUT)
        names = os.listdir(self.mount.path("tree"))
        self.assertEqual(sorted(names), sorted(f"new{n}-{i}" for n in range(2) for i in range(1, count + 1)))

    def test_many_entries_in_one_directory(self):
        count = scaled(20000)
        os.mkdir(self.mount.path("many"))
        for i in range(count):
            os.close(os.open(self.mount.path("many", f"entry-{i}"), os.O_CREAT | os.O_WRONLY))
        self.assertEqual(len(set(os.listdir(self.mount.path("many")))), count)
        self.assertTrue(os.path.exists(self.mount.path("many", f"entry-{count // 2}")))
        run("rm", "-rf", self.mount.path("many"))

    def test_appends_by_many_processes_lose_no_record(self):
        path = self.write("log", b"")
        count = scaled(200)
        writers = [subprocess.Popen(["sh", "-c", f"for i in $(seq {count}); do echo writer{n}-$i >> {path}; done"]) for n in range(4)]
        for writer in writers:
            self.assertEqual(writer.wait(harness.TIMEOUT), 0)
        with open(path) as file:
            lines = file.read().split()
        self.assertEqual(sorted(lines), sorted(f"writer{n}-{i}" for n in range(4) for i in range(1, count + 1)))

    def test_two_hard_links_in_one_directory_are_two_paths(self):
        path = self.write("one", b"1" * BLOCK)
        os.link(path, self.mount.path("two"))
        os.sync()
        mendctl("inject-error", self.mount.directory, "--file", path, "--offset", 0, "--length", 1)
        self.assertEqual(sorted(mendctl_json("damaged", self.mount.directory)[0]["paths"]), ["/one", "/two"])

    def test_shared_mappings_reach_the_file(self):
        import mmap
        path = self.write("map", bytes(3 * BLOCK))
        with open(path, "r+b") as file:
            area = mmap.mmap(file.fileno(), 0)
            area[BLOCK + 5:BLOCK + 10] = b"hello"
            area.flush()
            area.close()
        self.mount.remount()
        with open(path, "rb") as file:
            self.assertEqual(file.read()[BLOCK + 5:BLOCK + 10], b"hello")


class Killed(harness.Case):
    """kill -9 of the daemon at random moments: what was acknowledged is there after the next mount, and everything checks."""
    fsck_after = True

    ROUNDS = 100 if os.environ.get("MENDFS_LONG") else scaled(10)

    def test_nothing_acknowledged_is_lost(self):
        seed = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
        print(f"sample: {self.ROUNDS} kills, seed {seed} (100 with --long)", flush=True)
        rng = random.Random(seed)
        mount = self.mounted(size="128M")
        model = {}
        for round_number in range(self.ROUNDS):
            killer = threading.Timer(rng.uniform(0.02, 0.4), mount.daemon.kill)
            killer.start()
            uncertain = self.work(mount, rng, model, round_number)
            killer.join()
            mount.kill()
            mount.mount()
            self.compare(mount, model, uncertain)
            self.assertEqual(mendctl_json("check", mount.directory), [])

    def work(self, mount, rng, model, round_number):
        """Until the daemon dies; the names whose state is uncertain because their operation was not acknowledged."""
        i = 0
        while True:
            i += 1
            name = f"r{round_number}-{rng.randrange(60)}"
            try:
                kind = rng.randrange(4)
                if kind == 0 and name in model:
                    touched = {name}
                    os.unlink(mount.path(name))
                    del model[name]
                elif kind == 1 and name in model:
                    touched = {name, name + "-moved"}
                    os.rename(mount.path(name), mount.path(name + "-moved"))
                    model[name + "-moved"] = model.pop(name)
                else:
                    touched = {name}
                    data = rng.randbytes(rng.choice((10, 5000, 300000)))
                    fd = os.open(mount.path(name), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
                    try:
                        os.write(fd, data)
                    finally:
                        os.close(fd)
                    model[name] = data
            except OSError:
                for name in touched:
                    model.pop(name, None)
                return touched

    def compare(self, mount, model, uncertain):
        self.assertEqual(set(os.listdir(mount.directory)) - uncertain, set(model) - uncertain)
        for name in sorted(set(model) - uncertain):
            with open(mount.path(name), "rb") as file:
                self.assertEqual(file.read(), model[name], name)
        for name in uncertain & set(os.listdir(mount.directory)):
            os.unlink(mount.path(name))


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
