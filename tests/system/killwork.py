"""A process that works on a mount until the daemon is killed under it, and knows, outside the mount, what was acknowledged: its own folder, every
name, inode number, mode, time and byte. What was under way at the kill may have happened or not; a file's node then lists every content that is right.

An operation that returned is acknowledged, a write too: nothing stays in the kernel. Exceptions: a mapping counts from its msync, and with -o writeback
a write counts from its fsync; before that the kernel may have handed over any of the pages.
"""
import ctypes
import errno
import mmap
import multiprocessing
import os
import random
import stat
import traceback

import harness
from harness import BLOCK, program

GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED, errno.EIO, errno.EINTR, errno.ENODEV}
MAX_FILES, MAX_BLOCKS, MAX_NAMES, MAX_VERSIONS = 24, 32, 60, 4
RENAME_EXCHANGE = 2
PUNCH, ZERO, KEEP = 0x02 | 0x01, 0x10 | 0x01, 0x01
STEP_TIMEOUT = 120
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def libc_do(result):
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def content(key, version, pos, length):
    """Bytes [pos, pos + length) of version `version` of what carries `key`: 64-byte cells that name themselves."""
    first, last = pos // 64, -(-(pos + length) // 64)
    cells = b"".join(b"%-63s\n" % (b"mendfs-kill %016x %08x %08x" % (key, version, cell)) for cell in range(first, last))
    return cells[pos - first * 64:pos - first * 64 + length]


def overlay(data, pos, piece):
    """data with piece stored at pos."""
    data = data.ljust(pos, b"\0")
    return data[:pos] + piece + data[pos + len(piece):]


class Gone(Exception):
    """The daemon was killed under this step."""


class Lost(AssertionError):
    """Something acknowledged is not as it was."""


class Node:
    """What one inode is. More than one mode, time or version: any of them is right."""

    def __init__(self, kind, key=0, target=None):
        self.kind, self.key, self.target = kind, key, target
        self.ino = None
        self.modes, self.times = set(), set()  # empty: anything
        self.versions = [b""]
        self.any_size = False  # between the shortest and the longest version, else exactly one of theirs
        self.any_order = False  # pages may be there without those before them
        self.story = []  # what was done to it, for the one who has to find out why it is wrong

    def settle(self, data):
        self.versions, self.any_size, self.any_order = [data], False, False

    def tell(self, *what):
        self.story = self.story[-7:] + [" ".join(map(str, what))]

    @property
    def data(self):
        return self.versions[-1]


class Worker:
    def __init__(self, number, seed, mountpoint):
        self.number, self.random, self.mountpoint = number, random.Random(seed * 100 + number), mountpoint
        self.folder = os.path.join(mountpoint, f"worker{number}")
        self.names = {}  # path below the folder -> Node
        self.doubt = None  # the names after the step under way
        self.key, self.version, self.steps = (number + 1) << 32, 0, 0
        self.doing = ""
        self.held = []  # descriptors of files without a name
        self.writeback = False

    # --- helpers

    def full(self, path):
        return os.path.join(self.folder, path)

    def of_kind(self, *kinds):
        return sorted(path for path, node in self.names.items() if node.kind in kinds)

    def pick(self, *kinds):
        paths = self.of_kind(*kinds)
        return self.random.choice(paths) if paths else None

    def fresh(self, prefix):
        self.key += 1
        folders = [""] + [path for path in self.of_kind("dir") if len(path) < 1000]
        return os.path.join(self.random.choice(folders), f"{prefix}{self.key:x}" + "-long" * self.random.choice((0, 0, 1, 40)))

    def span(self, size):
        pos, length = self.random.randrange(size), self.random.randrange(1, MAX_BLOCKS * BLOCK // 3)
        if self.random.random() < 0.5:
            pos, length = pos // BLOCK * BLOCK, -(-length // BLOCK) * BLOCK
        return pos, length

    def change_names(self, after, call):
        """One operation on names: before or after."""
        self.doubt = after
        call()
        self.names, self.doubt = after, None

    def change_data(self, node, after, call, any_size=False):
        """One operation on the bytes. Acknowledged when it returns; with writeback what went before is right too until fsync."""
        before = node.versions
        node.tell(self.doing, "writeback" if self.writeback else "", len(before[-1]), "->", len(after))
        node.versions = [*before, after]
        node.any_size |= any_size
        node.times = set()
        call()
        if not self.writeback:
            node.settle(after)

    def fsynced(self, node, fd):
        os.fsync(fd)
        node.tell("fsync")
        node.settle(node.data)

    def new_node(self, path, kind, call, **more):
        """call() makes it and answers its inode number, or None."""
        node = Node(kind, self.key, **more)
        self.change_names({**self.names, path: node}, call)
        node.ino = os.lstat(self.full(path)).st_ino
        return node

    # --- names

    def step_mkdir(self):
        path = self.fresh("d")
        for part in ("", "/sub", "/sub/sub")[:self.random.randrange(1, 4)]:
            if len(path + part) < 600:
                self.new_node(path + part, "dir", lambda name=path + part: os.mkdir(self.full(name)))

    def step_create(self):
        if len(self.of_kind("file")) >= MAX_FILES:
            return self.step_unlink()
        path = self.fresh("f")
        node = self.new_node(path, "file", lambda: os.close(os.open(self.full(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)))
        node.modes = {0o640}
        return self.write(path, 0, self.random.randrange(1, MAX_BLOCKS * BLOCK))

    def step_symlink(self):
        path, target = self.fresh("s"), "t" * self.random.choice((3, 50, 300, 4000))
        self.new_node(path, "link", lambda: os.symlink(target, self.full(path)), target=target)

    def step_link(self):
        source, path = self.pick("file", "link"), self.fresh("l")
        if source:
            self.change_names({**self.names, path: self.names[source]}, lambda: os.link(self.full(source), self.full(path), follow_symlinks=False))

    def step_unlink(self):
        path = self.pick("file", "file", "link")
        if not path:
            return
        if self.names[path].kind == "file" and self.random.random() < 0.3 and len(self.held) < 4:
            self.held.append(os.open(self.full(path), os.O_RDWR))
        self.change_names(self.without(path), lambda: os.unlink(self.full(path)))

    def without(self, path):
        return {name: node for name, node in self.names.items() if name != path}

    def step_remove_tree(self):
        top = self.pick("dir")
        if not top or self.random.random() < 0.5:
            return
        for path in sorted((name for name in self.names if (name + "/").startswith(top + "/")), reverse=True):
            remove = os.rmdir if self.names[path].kind == "dir" else os.unlink
            self.change_names(self.without(path), lambda path=path, remove=remove: remove(self.full(path)))

    def renamed(self, path, target):
        moved = {}
        for name, node in self.names.items():
            if name != target and not (name + "/").startswith(path + "/"):
                moved[name] = node
        for name, node in self.names.items():
            if (name + "/").startswith(path + "/"):
                moved[target + name[len(path):]] = node
        return moved

    def step_rename(self):
        path = self.pick("file", "link", "dir")
        if not path:
            return
        target = self.fresh("r")
        victim = self.pick("file", "link")
        # Two names of one inode: rename() does nothing.
        if victim and self.names[path].kind != "dir" and self.names[victim] is not self.names[path] and self.random.random() < 0.4:
            target = victim
        longest = max(len(name) for name in self.names if (name + "/").startswith(path + "/"))
        if not (target + "/").startswith(path + "/") and longest < 2000:
            self.change_names(self.renamed(path, target), lambda: os.rename(self.full(path), self.full(target)))

    def step_exchange(self):
        one, two = self.pick("file", "link"), self.pick("file", "link")
        if one and self.names[one] is not self.names[two]:
            after = {**self.names, one: self.names[two], two: self.names[one]}
            self.change_names(after, lambda: libc_do(libc.renameat2(-100, self.full(one).encode(), -100, self.full(two).encode(), RENAME_EXCHANGE)))

    # --- attributes

    def step_chmod(self):
        path = self.pick("file")
        if path:
            node, mode = self.names[path], self.random.choice((0o600, 0o644, 0o751))
            node.modes = node.modes | {mode} if node.modes else set()
            os.chmod(self.full(path), mode)
            node.modes = {mode}

    def step_utime(self):
        path = self.pick("file")
        if path:
            node, time = self.names[path], self.random.randrange(1 << 60)
            node.times = set()
            os.utime(self.full(path), ns=(time, time))
            node.times = set() if self.writeback else {time}

    # --- data

    def write(self, path, pos, length):
        node = self.names[path]
        how = self.random.choice(("buffered", "fsync", "append", "direct", "direct"))
        if how == "direct":
            pos, length = pos // BLOCK * BLOCK, -(-length // BLOCK) * BLOCK
        if how == "append":
            pos = len(node.data)
        self.version += 1
        piece = content(node.key, self.version, pos, length)
        fd = os.open(self.full(path), os.O_WRONLY | {"append": os.O_APPEND, "direct": os.O_DIRECT}.get(how, 0))
        try:
            if self.writeback:
                node.any_order = True
            self.change_data(node, overlay(node.data, pos, piece), lambda: self.store(fd, pos, piece, how), any_size=True)
            if how == "fsync" or len(node.versions) > MAX_VERSIONS:
                self.fsynced(node, fd)
        finally:
            os.close(fd)

    @staticmethod
    def store(fd, pos, piece, how):
        area = mmap.mmap(-1, len(piece))
        area[:] = piece
        view = memoryview(area)
        done = 0
        while done < len(piece):
            done += os.write(fd, view[done:]) if how == "append" else os.pwrite(fd, view[done:], pos + done)

    def step_write(self):
        path = self.pick("file")
        if path:
            self.write(path, *self.span(max(1, min(len(self.names[path].data) + BLOCK, MAX_BLOCKS * BLOCK))))

    def step_mapped(self):
        """In a process of its own, which SIGBUS may end."""
        path = self.pick("file")
        if not path or not self.names[path].data or self.random.random() < 0.6:
            return
        node = self.names[path]
        pos, length = self.span(len(node.data))
        length = min(length, len(node.data) - pos)
        self.version += 1
        piece = content(node.key, self.version, pos, length)
        node.any_order = True
        self.change_data(node, overlay(node.data, pos, piece), lambda: self.map_and_store(path, pos, piece))
        if self.writeback:
            node.settle(node.data)

    def map_and_store(self, path, pos, piece):
        child = os.fork()
        if not child:
            try:
                with open(self.full(path), "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
                    area[pos:pos + len(piece)] = piece
                    area.flush()
                    os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            raise OSError(errno.ENOTCONN, "the mapping writer died")

    def step_truncate(self):
        path = self.pick("file")
        if path:
            node = self.names[path]
            size = self.random.randrange(MAX_BLOCKS * BLOCK)
            self.change_data(node, node.data[:size].ljust(size, b"\0"), lambda: os.truncate(self.full(path), size))

    def step_punch(self):
        path = self.pick("file")
        if not path or not self.names[path].data:
            return
        node = self.names[path]
        pos, length = self.span(len(node.data))
        mode = self.random.choice((PUNCH, ZERO, KEEP))
        after = node.data if mode == KEEP else overlay(node.data, pos, bytes(min(length, len(node.data) - pos)))
        fd = os.open(self.full(path), os.O_RDWR)
        try:
            self.change_data(node, after, lambda: libc_do(libc.fallocate(fd, mode, pos, length)))
        finally:
            os.close(fd)

    def step_copy(self):
        """cp and mendctl clone: a new name, then the source's first bytes, then all of them."""
        source = self.pick("file")
        if not source or len(self.of_kind("file")) >= MAX_FILES or self.random.random() < 0.5:
            return
        path, data = self.fresh("c"), self.names[source].data
        node = Node("file", self.names[source].key)
        node.versions, node.any_size = [b"", data], True
        tool = ("cp",) if self.random.random() < 0.6 else (program("mendctl"), "clone")

        def call():
            done = harness.run(*tool, self.full(source), self.full(path), check=False, timeout=STEP_TIMEOUT)
            if done.returncode:
                raise OSError(errno.EIO, f"{tool}: {done.stderr}")
        if self.writeback:
            self.step_sync()
            node.any_order = True
        node.tell(*tool, "writeback" if self.writeback else "", len(data))
        self.change_names({**self.names, path: node}, call)
        node.ino = os.lstat(self.full(path)).st_ino
        if not self.writeback:
            node.settle(data)

    def step_sync(self):
        """One by one: syncfs(2) does not wait for a FUSE filesystem to have its pages (Linux 6.18)."""
        for path, node in self.names.items():
            if node.kind != "file" or not node.any_order:
                continue
            fd = os.open(self.full(path), os.O_RDONLY)
            try:
                self.fsynced(node, fd)
            finally:
                os.close(fd)

    STEPS = ("create", "create", "write", "write", "write", "write", "mkdir", "symlink", "link", "unlink", "unlink", "remove_tree", "rename",
             "rename", "exchange", "chmod", "utime", "mapped", "truncate", "punch", "copy")

    def one(self):
        self.doing = self.random.choice(self.STEPS + ("sync",) * (5 if self.writeback else 0))
        if len(self.names) > MAX_NAMES:
            self.doing = self.random.choice(("unlink", "remove_tree"))
        try:
            getattr(self, "step_" + self.doing)()
        except OSError as error:
            if error.errno in GONE and self.is_gone():
                raise Gone from error
            raise
        self.steps += 1

    def is_gone(self):
        try:
            os.statvfs(self.mountpoint)  # unlike stat(), never answered by the kernel alone
        except OSError as error:
            return error.errno in GONE
        return False

    # --- checks

    def scan(self):
        found = {}
        for folder, folders, files in os.walk(self.folder, onerror=self.cannot_list):
            for name in folders + files:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.folder)] = os.lstat(path)
        return found

    @staticmethod
    def cannot_list(error):
        raise Lost(f"cannot be listed: {error}") from error

    @staticmethod
    def kind_of(found):
        return "dir" if stat.S_ISDIR(found.st_mode) else "link" if stat.S_ISLNK(found.st_mode) else "file"

    def differences(self, names, found):
        out = [f"{path} is gone" for path in names.keys() - found.keys()]
        out += [f"{path} is there, but was removed or never made" for path in found.keys() - names.keys()]
        for path in names.keys() & found.keys():
            node = names[path]
            if self.kind_of(found[path]) != node.kind or node.ino not in (None, found[path].st_ino):
                out.append(f"{path} is inode {found[path].st_ino}, a {self.kind_of(found[path])}, instead of {node.ino}, a {node.kind}")
        return out

    def verify(self):
        found = self.scan()
        wrong = self.differences(self.names, found)
        if wrong and self.doubt is not None and not self.differences(self.doubt, found):
            self.names, wrong = self.doubt, []
        self.doubt = None
        if wrong:
            raise Lost("; ".join(wrong[:8]))
        for path, node in self.names.items():
            node.ino = found[path].st_ino
            self.verify_attributes(path, node, found[path])
            if node.kind == "link" and os.readlink(self.full(path)) != node.target:
                raise Lost(f"{path}: another target")
        for node in {id(node): node for node in self.names.values() if node.kind == "file"}.values():
            self.verify_content(next(path for path, other in self.names.items() if other is node), node)

    def verify_attributes(self, path, node, found):
        if node.modes and stat.S_IMODE(found.st_mode) not in node.modes:
            raise Lost(f"{path}: mode {found.st_mode:o} instead of {node.modes}")
        if node.times and found.st_mtime_ns not in node.times:
            raise Lost(f"{path}: time {found.st_mtime_ns} instead of {node.times}")
        links = sum(other is node for other in self.names.values())
        if node.kind == "file" and found.st_nlink != links:
            raise Lost(f"{path}: {found.st_nlink} links instead of {links}")
        if node.modes:
            node.modes = {stat.S_IMODE(found.st_mode)}

    def read(self, path, size):
        """Buffered or direct; a byte more than there should be."""
        fd = os.open(self.full(path), os.O_RDONLY | self.random.choice((0, os.O_DIRECT)))
        area = mmap.mmap(-1, (size // BLOCK + 1) * BLOCK)
        try:
            count = os.preadv(fd, [area], 0)
            return area[:count]
        finally:
            area.close()
            os.close(fd)

    def verify_content(self, path, node):
        found = self.read(path, max(map(len, node.versions)))
        sizes = sorted(map(len, node.versions))
        if not sizes[0] <= len(found) <= sizes[-1] or not node.any_size and len(found) not in sizes:
            raise Lost(f"{path}: {len(found)} bytes long instead of {sizes}; {node.story}")
        if not any(found == version for version in node.versions):
            self.compare(path, node, found)
        node.tell("found", len(found))
        node.settle(found)

    @staticmethod
    def compare(path, node, found):
        """Every byte is one of those that were right there."""
        for pos in range(0, len(found), 64):
            cell = found[pos:pos + 64]
            right = [version[pos:pos + 64] for version in node.versions]
            if cell in right:
                continue
            for at, byte in enumerate(cell):
                allowed = {piece[at] for piece in right if at < len(piece)} | ({0} if node.any_order and pos + at >= len(node.versions[0]) else set())
                if byte not in allowed:
                    raise Lost(f"{path}: byte {pos + at} of {len(found)} is wrong: {bytes(cell)!r} instead of {right!r}; {node.story}")

    def victim(self):
        """A file of which everything is known; one more is made until there is one."""
        while True:
            for path, node in self.names.items():
                if node.kind == "file" and len(node.data) > BLOCK and node.modes:
                    return self.full(path)
            self.step_create()

    # --- running

    def prepare(self):
        os.mkdir(self.folder)

    def work(self, count_steps, writeback, pipe):
        """Until the daemon is gone, or so many steps are done, or anything comes through the pipe."""
        self.writeback = writeback
        before = self.steps
        try:
            while not (count_steps and self.steps >= before + count_steps) and not pipe.poll():
                self.one()
        except Gone:
            return "gone", self.steps
        finally:
            self.let_go()
        return "idle", self.steps

    def settle_all(self):
        """At an orderly end of the work nothing is left in the kernel."""
        if self.writeback:
            self.step_sync()

    def let_go(self):
        for fd in self.held:
            try:
                os.close(fd)
            except OSError:
                pass
        self.held = []


def serve(worker, pipe):
    """The process: one command, one answer."""
    while True:
        command, *arguments = pipe.recv()
        if command == "quit":
            return
        try:
            if command == "work":
                answer = worker.work(*arguments, pipe)
            elif command == "stop":
                worker.settle_all()
                answer = ("stopped", worker.steps)
            elif command == "victim":
                answer = ("victim", worker.victim())
            else:
                answer = (getattr(worker, command)(), worker.steps)
        except Lost as error:
            answer = ("lost", str(error))
        except BaseException:
            answer = ("failed", traceback.format_exc())
        pipe.send(answer)


class Hand:
    """The test's end of one worker."""

    def __init__(self, number, seed, mountpoint):
        context = multiprocessing.get_context("fork")
        self.number = number
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(Worker(number, seed, mountpoint), other), daemon=True)
        self.process.start()
        other.close()

    def tell(self, *command):
        self.pipe.send(command)

    def answer(self):
        if not self.pipe.poll(STEP_TIMEOUT):
            raise AssertionError(f"worker {self.number} hangs")
        word, value = self.pipe.recv()
        if word in ("lost", "failed"):
            raise AssertionError(f"worker {self.number} {word}: {value}")
        return word, value

    def ask(self, *command):
        self.tell(*command)
        return self.answer()

    def end(self):
        if self.process.is_alive():
            self.process.kill()
        self.process.join(STEP_TIMEOUT)
        self.pipe.close()
