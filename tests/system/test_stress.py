#!/usr/bin/env python3
"""Everything at once on one mount: files written, cloned, cut and renamed by several workers whose contents are checked all the time, fio, mapped
readers, listings, the tools in loops, subscribers that never read, and poison injected and lifted everywhere.

Poison may make data fail with EIO, never be wrong; names and attributes never fail, since at any time only one copy of the metadata is hit. At the
end all poison is lifted and every byte, `mendctl check` and a remount must be right. $MENDFS_SEED reruns a seed (up to the scheduling of threads),
$MENDFS_LONG runs twenty times longer, $MENDFS_STRESS_SECONDS sets the seconds of one run.
"""
import ctypes
import errno
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, program

SEED = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
SECONDS = float(os.environ.get("MENDFS_STRESS_SECONDS") or (240 if os.environ.get("MENDFS_LONG") else 12))
STEP_TIMEOUT = 120  # one step of anything; longer is a hang
# What clients see when the daemon dies, by transport; errors of other kinds are failures of the run.
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED}
MAX_FILES, MAX_BLOCKS = 40, 48
RSS_GROWTH = 600 << 20

PUNCH = 0x02 | 0x01
ZERO = 0x10
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def fallocate(fd, mode, pos, length):
    if libc.fallocate(fd, mode, pos, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


VERSION_DIGITS = range(31, 39)


def content(key, version, pos, length):
    """Bytes [pos, pos + length) of version `version` of what carries `key`: 64-byte cells that name themselves."""
    first, last = pos // 64, -(-(pos + length) // 64)
    cells = b"".join(b"%-63s\n" % (b"mendfs-stress %016x %08x %08x" % (key, version, cell)) for cell in range(first, last))
    return cells[pos - first * 64:pos - first * 64 + length]


class Stopped(Exception):
    """The daemon was killed under this step."""


class File:
    def __init__(self, key, data=b""):
        self.key = key
        self.data = bytearray(data)
        self.attributes = {}
        self.unsure = set()  # blocks where a write failed: old or new bytes


class Worker(threading.Thread):
    """Owns a folder, knows every byte in it."""

    def __init__(self, run, number):
        super().__init__(daemon=True)
        self.run_, self.number = run, number
        self.random = random.Random(SEED * 1000 + number)
        self.folder = os.path.join(run.mount.directory, f"worker{number}")
        self.files = {}  # path -> File
        self.folders = [self.folder]
        self.busy = []  # names in the step under way
        self.key = (number + 1) << 32
        self.version = 0
        self.steps = 0
        self.eio = 0
        self.began = time.monotonic()
        self.doing = ""

    # --- helpers

    def fresh(self):
        self.key += 1
        return self.key, os.path.join(self.random.choice(self.folders), f"f{self.key:x}-" + "n" * self.random.choice((0, 3, 100)))

    def pick(self):
        return self.random.choice(sorted(self.files))

    def span(self, size):
        pos = self.random.randrange(max(1, size))
        length = self.random.randrange(1, MAX_BLOCKS * BLOCK // 4)
        if self.random.random() < 0.6:
            pos, length = pos // BLOCK * BLOCK, -(-length // BLOCK) * BLOCK
        return pos, length

    @staticmethod
    def doubt(file, pos, length):
        """Until the step succeeds, old or new bytes are right here. What will be unsure after success: not what is covered whole."""
        after = file.unsure - set(range(-(-pos // BLOCK), (pos + length) // BLOCK))
        file.unsure = file.unsure | set(range(pos // BLOCK, -(-(pos + length) // BLOCK)))
        return after

    def data_error(self, error):
        """EIO is what poison does to data; everything else is a failure."""
        if error.errno in GONE:
            raise Stopped from error
        if error.errno != errno.EIO:
            raise error
        self.eio += 1

    # --- steps: each leaves the model as the filesystem must be

    def step_create(self):
        if len(self.files) >= MAX_FILES:
            return self.step_unlink()
        key, path = self.fresh()
        self.busy = [path]
        file = File(key)
        with open(path, "xb", buffering=0):
            pass
        self.files[path] = file
        self.write(path, 0, self.random.randrange(MAX_BLOCKS * BLOCK))

    def write(self, path, pos, length, flags=0):
        file = self.files[path]
        self.version += 1
        data = content(file.key, self.version, pos, length)
        sure = self.doubt(file, pos, length)
        before = len(file.data)
        fd = os.open(path, os.O_WRONLY | flags)
        try:
            done = 0
            while done < length:
                done += os.write(fd, data[done:]) if flags & os.O_APPEND else os.pwrite(fd, data[done:], pos + done)
            if self.random.random() < 0.2:
                os.fsync(fd)
        except OSError as error:
            self.data_error(error)
            size = os.fstat(fd).st_size
            self.resize(file, max(size, before))
            if size < before:
                raise AssertionError(f"{path}: a failed write shrank it from {before} to {size}") from error
            return
        finally:
            os.close(fd)
        self.resize(file, max(before, pos + length))
        file.data[pos:pos + length] = data
        file.unsure = sure

    def resize(self, file, size):
        if size < len(file.data):
            del file.data[size:]
        else:
            file.data += bytes(size - len(file.data))

    def step_write(self):
        path = self.pick()
        self.busy = [path]
        pos, length = self.span(len(self.files[path].data) + BLOCK)
        self.write(path, pos, length)

    def step_append(self):
        path = self.pick()
        self.busy = [path]
        size = len(self.files[path].data)
        if size < MAX_BLOCKS * BLOCK:
            self.write(path, size, self.random.randrange(1, 3 * BLOCK), os.O_APPEND)

    def step_clone(self):
        if len(self.files) >= MAX_FILES:
            return self.step_unlink()
        source = self.pick()
        _, path = self.fresh()
        self.busy = [path]
        src, dst = os.open(source, os.O_RDONLY), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        size, done = len(self.files[source].data), 0
        try:
            while done < size:
                count = os.copy_file_range(src, dst, size - done, done, done)
                if not count:
                    raise AssertionError(f"{source}: the copy ended at {done} of {size}")
                done += count
        except OSError as error:
            self.data_error(error)
        finally:
            os.close(src)
            os.close(dst)
        if done < size:
            os.unlink(path)
            return None
        file = File(self.files[source].key, self.files[source].data)
        file.unsure = set(self.files[source].unsure)
        self.files[path] = file
        return None

    def step_cp_command(self):
        if self.random.random() > 0.1 or len(self.files) >= MAX_FILES:
            return
        source = self.pick()
        _, path = self.fresh()
        self.busy = [path]
        tool = ("cp",) if self.random.random() < 0.5 else (program("mendctl"), "clone")
        done = harness.run(*tool, source, path, check=False, timeout=STEP_TIMEOUT)
        if done.returncode:
            if self.run_.killed:
                raise Stopped
            if "Input/output error" not in done.stderr:
                raise AssertionError(f"{tool}: {done.stderr}")
            try:
                os.unlink(path)  # os.path.exists() would take any error for "not there"
            except FileNotFoundError:
                pass
            return
        file = File(self.files[source].key, self.files[source].data)
        file.unsure = set(self.files[source].unsure)
        self.files[path] = file

    def step_truncate(self):
        path = self.pick()
        self.busy = [path]
        file = self.files[path]
        size = self.random.randrange(len(file.data) + 3 * BLOCK)
        sure = self.doubt(file, min(size, len(file.data)), 1)
        try:
            os.truncate(path, size)
            file.unsure = sure
        except OSError as error:
            self.data_error(error)
            size = os.stat(path).st_size
        self.resize(file, size)

    def step_punch(self):
        path = self.pick()
        self.busy = [path]
        file = self.files[path]
        pos, length = self.span(len(file.data))
        mode = self.random.choice((PUNCH, PUNCH, ZERO | 1, 1))
        before = file.unsure
        sure = self.doubt(file, pos, length)
        fd = os.open(path, os.O_RDWR)
        try:
            fallocate(fd, mode, pos, length)
        except OSError as error:
            self.data_error(error)
            return
        finally:
            os.close(fd)
        if mode == 1:  # reserves space and changes no byte: what a failed write left unsure stays so
            file.unsure = before
            return
        end = min(len(file.data), pos + length)
        file.data[pos:end] = bytes(max(0, end - pos))
        file.unsure = sure

    def step_rename(self):
        path = self.pick()
        victim = self.pick() if self.random.random() < 0.3 else None
        target = victim if victim and victim != path else self.fresh()[1]
        self.busy = [path, target]
        os.rename(path, target)
        self.files[target] = self.files.pop(path)

    def step_unlink(self):
        path = self.pick()
        self.busy = [path]
        fd = os.open(path, os.O_RDONLY) if self.random.random() < 0.3 else None
        os.unlink(path)
        file = self.files.pop(path)
        if fd is None:
            return
        try:
            self.verify_fd(fd, path + " (unlinked)", file)
        finally:
            os.close(fd)

    def step_attribute(self):
        path = self.pick()
        self.busy = [path]
        attributes, name = self.files[path].attributes, f"user.{self.random.randrange(5)}"
        if name in attributes and self.random.random() < 0.3:
            os.removexattr(path, name)
            del attributes[name]
        else:
            self.version += 1
            value = content(self.files[path].key, self.version, 0, self.random.randrange(self.random.choice((100, 4000, 40000))))
            os.setxattr(path, name, value)
            attributes[name] = value
        self.verify_attributes(path)

    def step_folder(self):
        if len(self.folders) < 6:
            path = os.path.join(self.random.choice(self.folders), f"d{self.version}-{self.steps}")
            self.busy = [path]
            os.mkdir(path)
            self.folders.append(path)
            return
        path = self.random.choice(self.folders[1:])
        self.busy = [path]
        used = any(other.startswith(path + "/") for other in [*self.files, *self.folders])
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not used:
                raise
            return
        if used:
            raise AssertionError(f"{path}: removed although it was not empty")
        self.folders.remove(path)

    def step_list(self):
        self.busy = []
        self.verify_names()

    def step_verify(self):
        path = self.pick()
        self.busy = []
        self.verify(path, self.random.random() < 0.5)

    # --- checks

    def verify_names(self):
        for folder in self.folders:
            expected = {os.path.basename(path) for path in [*self.files, *self.folders[1:]] if os.path.dirname(path) == folder}
            listed = os.listdir(folder)
            if sorted(listed) != sorted(expected):
                there = {name: os.path.lexists(os.path.join(folder, name)) for name in expected ^ set(listed)}
                raise AssertionError(f"{folder}: {sorted(listed)} instead of {sorted(expected)}; found by name: {there}")

    def verify_attributes(self, path):
        expected = self.files[path].attributes
        if sorted(os.listxattr(path)) != sorted(expected):
            raise AssertionError(f"{path}: attributes {os.listxattr(path)} instead of {list(expected)}")
        for name, value in expected.items():
            if os.getxattr(path, name) != value:
                raise AssertionError(f"{path}: attribute {name} has another value")

    def verify(self, path, direct, may_fail=True):
        fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
        try:
            if self.random.random() < 0.3 and not direct:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self.verify_fd(fd, path, self.files[path], may_fail)
        finally:
            os.close(fd)

    def read_at(self, fd, pos, length, may_fail):
        """Bytes, or None for EIO."""
        area = mmap.mmap(-1, length)
        try:
            count = os.preadv(fd, [area], pos)
            return area[:count]
        except OSError as error:
            if not may_fail and error.errno == errno.EIO:
                raise
            self.data_error(error)
            return None
        finally:
            area.close()

    def verify_fd(self, fd, path, file, may_fail=True):
        if os.fstat(fd).st_size != len(file.data):
            raise AssertionError(f"{path}: {os.fstat(fd).st_size} bytes long instead of {len(file.data)}")
        pos, step = 0, self.random.choice((BLOCK, 8 * BLOCK, MAX_BLOCKS * BLOCK))
        while pos < len(file.data):
            got = self.read_at(fd, pos, step, may_fail)
            if got is None:
                # Only a single block is EIO for certain; a longer buffered read goes on block by block.
                if step == BLOCK:
                    pos += BLOCK
                else:
                    step = BLOCK
                continue
            if not got:
                raise AssertionError(f"{path}: end of file at {pos} of {len(file.data)}")
            self.compare(path, file, pos, got)
            pos += len(got)
            if pos % BLOCK and pos < len(file.data):
                raise AssertionError(f"{path}: a read ended at {pos} of {len(file.data)}")

    def compare(self, path, file, pos, got):
        if got == file.data[pos:pos + len(got)]:
            return
        for at in range(0, len(got), BLOCK):
            block, index = got[at:at + BLOCK], (pos + at) // BLOCK
            expected = file.data[pos + at:pos + at + len(block)]
            if block == expected:
                continue
            if index in file.unsure and self.could_be(file, pos + at, block):
                file.data[pos + at:pos + at + len(block)] = block
                continue
            where = next(i for i in range(len(block)) if block[i] != expected[i])
            raise AssertionError(f"{path} (key {file.key:x}): wrong byte {where} of block {index} ({'un' if index in file.unsure else ''}sure): "
                                 f"{bytes(block[where // 64 * 64:where // 64 * 64 + 128])!r} instead of "
                                 f"{bytes(expected[where // 64 * 64:where // 64 * 64 + 128])!r}")

    @staticmethod
    def could_be(file, pos, block):
        """Each byte is zero, or what any version has there."""
        right = content(file.key, 0, pos, len(block))
        return all(byte in (0, right[at]) or at % 64 in VERSION_DIGITS and byte in b"0123456789abcdef" for at, byte in enumerate(block))

    def resync(self):
        """After kill -9: what was in the step under way may be there or not, whole; forget it."""
        for path in self.busy:
            self.files.pop(path, None)
            if path in self.folders:
                self.folders.remove(path)
            if os.path.isdir(path):
                self.folders.append(path)
            elif os.path.lexists(path):
                os.unlink(path)
        self.busy = []

    def verify_all(self, may_fail=False):
        self.verify_names()
        for path in sorted(self.files):
            self.verify_attributes(path)
            self.verify(path, False, may_fail)
            self.verify(path, True, may_fail)

    # --- running

    STEPS = ("create", "create", "write", "write", "write", "append", "clone", "clone", "cp_command", "truncate", "punch", "rename", "unlink",
             "folder", "list", "attribute", "attribute", "verify", "verify")

    def one(self):
        self.doing = self.random.choice(self.STEPS) if self.files else "create"
        self.began = time.monotonic()
        self.busy = []
        getattr(self, "step_" + self.doing)()
        self.busy = []
        self.steps += 1

    def run(self):
        try:
            while not self.run_.over():
                self.one()
        except Stopped:
            pass
        except OSError as error:
            if error.errno not in GONE or not self.run_.killed:
                self.run_.fail(self, error)
        except BaseException as error:
            self.run_.fail(self, error)


class Looper(threading.Thread):
    """Calls something until the run is over; what it raises is a failure of the run."""

    def __init__(self, run, name, call, pause=0.0):
        super().__init__(daemon=True)
        self.run_, self.doing, self.call, self.pause = run, name, call, pause
        self.number = name
        self.began = time.monotonic()
        self.steps = 0

    def run(self):
        try:
            while not self.run_.over():
                self.began = time.monotonic()
                self.call()
                self.steps += 1
                time.sleep(self.pause)
        except BaseException as error:
            if not self.run_.killed:
                self.run_.fail(self, error)


class Injector:
    """Poison at random places, one copy of the metadata at a time, and lifting it again."""

    def __init__(self, run):
        self.run, self.random = run, random.Random(SEED + 77)
        self.copy = self.random.choice(("primary", "replica"))
        self.metadata = []
        self.held = []  # (device_offset, len)
        self.count = {"file": 0, "metadata": 0, "free": 0, "lift": 0}

    def ctl(self, *arguments, check=True):
        done = mendctl(*arguments, "--json", check=False, timeout=STEP_TIMEOUT)
        if done.returncode and check and not self.run.killed:
            raise AssertionError(f"mendctl {' '.join(map(str, arguments))}: {done.returncode} {done.stderr}")
        if done.returncode or not done.stdout:
            return []
        return next(value for value in json.loads(done.stdout).values() if isinstance(value, list))

    def hold(self, kind, *arguments, check=True):
        latent = ["--latent"] if self.random.random() < 0.5 else []
        for item in self.ctl("inject-error", self.run.mount.directory, *arguments, *latent, check=check):
            self.held.append((item["device_offset"], item["len"]))
        self.count[kind] += 1

    def inject_file(self):
        worker = self.random.choice(self.run.workers)
        names = list(worker.files.items())
        if not names:
            return
        path, file = self.random.choice(names)
        # The file may change its name or its length meanwhile.
        self.hold("file", "--file", path, "--offset", self.random.randrange(max(1, len(file.data))), "--length",
                  self.random.choice((1, 64, BLOCK, 5 * BLOCK)), check=False)

    def inject_metadata(self):
        if not self.metadata:
            kind = self.random.choice(("metadata", "metadata", "metadata", "journal", "superblock"))
            owners = self.ctl("owners", self.run.mount.directory, "--all", "--kind", kind)
            owners = [owner for owner in owners if owner.get("copy") == self.copy and owner.get("live", True)]
            self.metadata = self.random.sample(owners, min(8, len(owners)))
        if not self.metadata:
            return
        owner = self.metadata.pop()
        byte = self.random.randrange(owner["len"])
        self.hold("metadata", "--device-offset", owner["device_offset"] + byte, "--length", self.random.choice((1, min(64, owner["len"] - byte))))

    def inject_free(self):
        offset = self.random.randrange(self.run.size // BLOCK) * BLOCK
        owners = self.ctl("owners", self.run.mount.directory, "--offset", offset, "--length", BLOCK)
        if len(owners) == 1 and owners[0]["kind"] == "free":
            self.hold("free", "--device-offset", offset, "--length", BLOCK)

    def lift(self):
        offset, length = self.held.pop(self.random.randrange(len(self.held)))
        self.ctl("uninject-error", self.run.mount.directory, "--device-offset", offset, "--length", length)
        self.count["lift"] += 1

    def one(self):
        if len(self.held) > 30 or (self.held and self.random.random() < 0.3):
            self.lift()
        else:
            self.random.choice((self.inject_file, self.inject_file, self.inject_metadata, self.inject_free))()


class Run:
    """One mount under load from everybody."""

    def __init__(self, case, count_workers, seconds=SECONDS):
        self.case, self.seconds = case, seconds
        self.size = 256 << 20
        self.mount = case.mounted(size="256M")
        self.failures = []
        self.killed = False
        self.stop = threading.Event()
        self.workers = [Worker(self, number) for number in range(count_workers)]
        for worker in self.workers:
            os.mkdir(worker.folder)
        os.mkdir(self.mount.path("fio"))
        os.mkdir(self.mount.path("mapped"))
        self.random = random.Random(SEED + 99)
        self.injector = Injector(self)
        self.loops = [Looper(self, "injector", self.injector.one, 0.02), Looper(self, "tools", self.tools, 0.05),
                      Looper(self, "fio", self.fio, 0.1), Looper(self, "mapped", self.mapped, 0.1), Looper(self, "lister", self.listing, 0.05)]

    def over(self):
        return self.stop.is_set()

    def fail(self, thread, error):
        self.failures.append(f"{type(thread).__name__} {thread.number} in {thread.doing}, step {thread.steps}: {type(error).__name__}: {error}")
        self.stop.set()

    def command(self, *words, check=True):
        done = harness.run(*words, check=False, timeout=STEP_TIMEOUT)
        if done.returncode and check and not self.killed:
            raise AssertionError(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    # --- what runs beside the workers

    def tools(self):
        target = self.random.choice((self.mount.directory, self.mount.image))
        words = self.random.choice((("list",), ("damaged", target), ("owners", target, "--all"), ("check", target), ("drop-caches", target),
                                    ("badblocks", target), ("stats", target), ("sync", target)))
        self.command(program("mendctl"), *words)

    def fio(self):
        done = self.command("fio", "--name=stress", f"--directory={self.mount.path('fio')}", f"--rw={self.random.choice(('randwrite', 'randrw', 'write'))}",
                            "--size=2M", f"--bs={self.random.choice(('4k', '16k', '3000'))}", "--verify=crc32c", "--do_verify=1",
                            "--end_fsync=1", "--verify_state_save=0",
                            f"--ioengine={self.random.choice(('psync', 'sync'))}", f"--randseed={self.random.randrange(1 << 30)}", "--minimal", check=False)
        text = done.stdout + done.stderr
        if "verify" in text and "bad" in text or done.returncode and "Input/output error" not in text and not self.killed:
            raise AssertionError(f"fio: exit {done.returncode}: {text[-2000:]}")

    MAPPED = """import mmap, sys
with open(sys.argv[1], "r+b") as file:
    area = mmap.mmap(file.fileno(), 0)
    for at in range(0, len(area), 4096):
        if area[at:at + 8] != b"%08x" % at: sys.exit(f"wrong bytes at {at}: {area[at:at + 8]}")
        area[at + 8:at + 16] = b"%08x" % at
    area.flush()
"""

    def mapped(self):
        path = self.mount.path("mapped", "file")
        if not os.path.exists(path) or self.random.random() < 0.2:
            with open(path, "wb") as file:
                file.write(b"".join(b"%08x" % at + bytes(BLOCK - 8) for at in range(0, 64 * BLOCK, BLOCK)))
        done = self.command(sys.executable, "-c", self.MAPPED, path, check=False)
        if done.returncode and done.returncode != -7 and "Input/output" not in done.stderr and not self.killed:
            raise AssertionError(f"mapped reader: {done.returncode}: {done.stderr}")

    def listing(self):
        """Whole walks from outside, while everything changes: entries may come and go, nothing fails."""
        def complain(error):
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) and not self.killed:
                raise error
        for folder, _, names in os.walk(self.mount.directory, onerror=complain):
            if len(names) != len(set(names)):
                raise AssertionError(f"{folder} lists a name twice")

    # --- the course of a run

    def rss(self):
        with open(f"/proc/{self.mount.daemon.pid}/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE

    def watch(self, seconds):
        """Until the time is up: the daemon lives, nobody hangs, memory stays bounded."""
        end, first = time.monotonic() + seconds, None
        while time.monotonic() < end and not self.over():
            time.sleep(0.2)
            if self.mount.daemon.poll() is not None:
                self.failures.append(f"the daemon died with {self.mount.daemon.returncode}")
                break
            self.hung()
            if first is None and time.monotonic() > end - seconds * 0.6:
                first = self.rss()
            if first and self.rss() > first + RSS_GROWTH:
                self.failures.append(f"memory grew from {first >> 20} to {self.rss() >> 20} MiB")
                break

    def hung(self):
        for thread in self.workers + self.loops:
            if thread.is_alive() and time.monotonic() - thread.began > STEP_TIMEOUT + 10:
                self.failures.append(f"{thread.number} hangs in {thread.doing}")
                self.stop.set()

    def start(self):
        for thread in self.workers + self.loops:
            thread.start()

    def finish(self):
        self.stop.set()
        end = time.monotonic() + STEP_TIMEOUT + 20
        for thread in self.workers + self.loops:
            thread.join(max(0.1, end - time.monotonic()))
            if thread.is_alive():
                self.failures.append(f"{thread.number} hangs in {thread.doing}")
        if self.failures:
            self.give_up()

    def give_up(self):
        text = "\n".join(self.failures)
        daemon = self.mount.daemon
        stuck = any("hang" in line for line in self.failures)
        if daemon and daemon.poll() is None:
            if stuck:
                text += "\n" + stacks(daemon.pid)
            daemon.kill()
        log = "" if self.mount.log.closed else self.mount.read_log()[-6000:]
        if daemon:
            self.mount.kill()
        raise AssertionError(f"seed {SEED}:\n{text}\nthe daemon's log:\n{log}")

    def lift_all(self):
        mendctl("uninject-error", self.mount.directory, "--device-offset", 0, "--length", self.size, timeout=STEP_TIMEOUT)

    def state(self):
        done = json.loads(mendctl("list", self.mount.directory, "--json", timeout=STEP_TIMEOUT).stdout)
        return next(item["state"] for item in done["filesystems"] if item["mountpoint"] == self.mount.directory)

    def check(self):
        done = mendctl("check", self.mount.directory, check=False, timeout=STEP_TIMEOUT)
        if done.returncode:
            self.failures.append(f"check: {done.stdout}{done.stderr}")
            self.give_up()

    def verify(self):
        try:
            for worker in self.workers:
                worker.verify_all()
        except (AssertionError, OSError) as error:
            self.failures.append(str(error))
            self.give_up()

    def settle(self):
        """Nothing is bad any more, nothing is wrong; and so after a remount."""
        self.lift_all()
        for _ in range(2):
            self.verify()
            self.check()
            self.case.assertIn(self.state(), ("ok", "degraded"))
            self.case.assertEqual(harness.mendctl_json("damaged", self.mount.directory), [])
            self.mount.remount()
        self.verify()

    def told(self):
        steps = " ".join(f"{thread.number}:{thread.steps}" for thread in self.workers + self.loops)
        print(f"steps {steps}; injected {self.injector.count}; EIO {sum(worker.eio for worker in self.workers)}", flush=True)


def stacks(pid):
    """Where the threads wait."""
    if shutil.which("gdb"):
        return harness.run("gdb", "-p", pid, "-batch", "-ex", "thread apply all bt 16", check=False, timeout=STEP_TIMEOUT).stdout[-12000:]
    lines = []
    for task in sorted(os.listdir(f"/proc/{pid}/task")):
        with open(f"/proc/{pid}/task/{task}/wchan") as wchan:
            lines.append(f"thread {task}: {wchan.read()}")
    return "\n".join(lines)


class Stress(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        print(f"seed {SEED} (rerun with MENDFS_SEED={SEED})", flush=True)

    def silent_subscriber(self, target):
        """Subscribes, and never reads its events."""
        process = subprocess.Popen([program("mendctl"), "monitor", target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        def end():
            process.kill()
            process.wait()
            process.stdout.close()
        self.addCleanup(end)

    def under_load(self, count_workers):
        run = Run(self, count_workers)
        self.silent_subscriber(run.mount.directory)
        monitor = self.monitor(run.mount.directory)
        run.start()
        run.watch(run.seconds)
        run.finish()
        run.told()
        self.assertNotIn("shutdown", {event["type"] for event in monitor.drain()})
        run.settle()

    def test_two_workers_and_everything_else(self):
        self.under_load(2)

    def test_four_workers_and_everything_else(self):
        self.under_load(4)

    def test_kill_minus_9_in_the_middle_loses_nothing_that_was_acknowledged(self):
        run = Run(self, 2, SECONDS / 2)
        run.start()
        run.watch(run.seconds)
        if run.failures:
            run.finish()
        run.killed = True
        run.mount.kill()
        run.finish()
        run.told()
        run.mount.mount()
        for worker in run.workers:
            worker.resync()
        run.settle()

    def test_sigterm_in_the_middle_ends_the_daemon_in_order(self):
        run = Run(self, 2, SECONDS / 3)
        run.start()
        run.watch(run.seconds)
        if run.failures:
            run.finish()
        run.killed = True
        run.mount.daemon.terminate()
        try:
            status = run.mount.daemon.wait(harness.TIMEOUT)
        except subprocess.TimeoutExpired:
            run.failures.append("the daemon hangs after SIGTERM")
            run.give_up()
        run.mount.umount()
        self.assertEqual(status, 0)
        run.finish()
        run.told()
        run.mount.mount()
        for worker in run.workers:
            worker.resync()
        run.settle()

    def test_sigterm_ends_the_daemon_whatever_its_request_threads_wait_for(self):
        """libfuse cancels them: one that dies in an msync or under a lock takes the rest of the daemon with it."""
        # Not on tmpfs, if possible: an msync that takes a while is where they wait.
        self.folder = tempfile.mkdtemp(prefix="mendfs-test.")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        mount = self.mounted(size="64M")

        def client(number):
            path = mount.path(f"file{number}")
            try:
                while True:
                    with open(path, "wb", buffering=0) as file:
                        file.write(bytes(100000))
                        os.fsync(file.fileno())
                    os.unlink(path)
            except OSError:
                pass
        for _ in range(5):
            clients = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(3)]
            for thread in clients:
                thread.start()
            time.sleep(0.3)
            mount.daemon.terminate()
            try:
                mount.daemon.wait(harness.TIMEOUT)
            except subprocess.TimeoutExpired:
                text = stacks(mount.daemon.pid)
                mount.kill()
                self.fail(f"the daemon hangs after SIGTERM\n{text}")
            for thread in clients:
                thread.join(harness.TIMEOUT)
            mount.remount()
        self.assertEqual(harness.mendctl_json("check", mount.directory), [])

    def test_a_wrong_byte_would_be_noticed(self):
        """The broken twin of them all."""
        run = Run(self, 1)
        worker = run.workers[0]
        while len(worker.files) < 5 or not any(file.data.strip(b"\0") for file in worker.files.values()):
            worker.one()
        worker.verify_all()
        path, place = next((path, data.index(b"mendfs-stress")) for path, data in
                           ((path, file.data) for path, file in sorted(worker.files.items())) if b"mendfs-stress" in data)
        extent = next(extent for extent in harness.mendctl_json("map", path) if extent["pos"] <= place < extent["pos"] + extent["len"])
        with open(run.mount.image, "r+b") as image:
            image.seek(extent["device_offset"] + place - extent["pos"])
            image.write(b"X")
        with self.assertRaisesRegex(AssertionError, "wrong byte"):
            worker.verify_all()


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
