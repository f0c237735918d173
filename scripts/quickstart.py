#!/usr/bin/env python3
"""The demonstration behind ./quickstart: every line that begins with "ok" was checked, not assumed."""
import argparse
import json
import mmap
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "build", "bin")
BLOCK = 4096
TIMEOUT = 60


class Failed(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)
    print(f"  ok  {text}", flush=True)


def say(text):
    print(f"\n== {text}", flush=True)


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def mendctl(*arguments):
    return run(os.path.join(BIN, "mendctl"), *arguments)


def mendctl_array(name, command, *arguments):
    return json.loads(mendctl(command, *arguments, "--json"))[name]


def is_mounted(directory):
    with open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == directory for line in file)


def mount(image, directory):
    run(os.path.join(BIN, "mendfs"), image, directory)


def umount(directory):
    if is_mounted(directory):
        run(*(["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]), directory)


def source_tree():
    """A real tree of at least 1,000 regular files."""
    for tree in ("/usr/include", "/usr/share/doc", "/usr/lib/python3", "/usr/share"):
        total = 0
        for _, _, names in os.walk(tree):
            total += len(names)
            if total >= 1000:
                return tree
    raise Failed("no folder with 1,000 files was found to copy")


def regular_files(tree):
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def copy_tree(source, target, limit_bytes=256 << 20):
    """Regular files and symlinks, at most limit_bytes; the pairs (source, copy) of the regular files."""
    pairs, total = [], 0
    for path in regular_files(source):
        size = os.path.getsize(path)
        if total + size > limit_bytes or not os.access(path, os.R_OK):
            continue
        copy = os.path.join(target, os.path.relpath(path, source))
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copyfile(path, copy)
        pairs.append((path, copy))
        total += size
    return pairs, total


def read_blocks(path):
    """Each 4 KiB block of a file, None where reading it gives EIO."""
    blocks = []
    fd = os.open(path, os.O_RDONLY)
    try:
        for pos in range(0, os.fstat(fd).st_size, BLOCK):
            try:
                blocks.append(os.pread(fd, BLOCK, pos))
            except OSError as error:
                if error.errno != 5:
                    raise
                blocks.append(None)
    finally:
        os.close(fd)
    return blocks


def differing_blocks(source, copy):
    """(blocks of the copy that give EIO, blocks that give wrong bytes)."""
    with open(source, "rb") as file:
        data = file.read()
    good = [data[pos:pos + BLOCK] for pos in range(0, len(data), BLOCK)]
    got = read_blocks(copy)
    if len(good) != len(got):
        raise Failed(f"{copy}: {len(got)} blocks instead of {len(good)}")
    return ([i for i, block in enumerate(got) if block is None],
            [i for i, block in enumerate(got) if block is not None and block != good[i]])


class Monitor:
    def __init__(self, directory):
        self.process = subprocess.Popen([os.path.join(BIN, "mendctl"), "monitor", directory], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)
        self.events = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.collect(lambda seen: any(event["type"] == "running" for event in seen), "running")

    def read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def collect(self, enough, what, timeout=10.0):
        seen, end = [], time.monotonic() + timeout
        while not enough(seen):
            try:
                seen.append(self.events.get(timeout=max(0.001, end - time.monotonic())))
            except queue.Empty:
                raise Failed(f"the event stream did not show {what} in {timeout} s; it showed {seen}") from None
        return seen

    def close(self):
        self.process.terminate()
        self.process.wait(TIMEOUT)


class Mapper:
    """A process that has a file mapped and touches the page that it is told to. SIGBUS ends it, which is what is looked for."""

    def __init__(self, path):
        self.path = path
        self.child, self.pipe_in, self.pipe_out = None, None, None
        self.start()

    def start(self):
        to_child, from_child = os.pipe(), os.pipe()
        self.child = os.fork()
        if self.child == 0:
            os.close(to_child[1])  # else the end of the orders would never be seen
            os.close(from_child[0])
            self.serve(to_child[0], from_child[1])
        os.close(to_child[0])
        os.close(from_child[1])
        self.pipe_in, self.pipe_out = to_child[1], from_child[0]
        os.read(self.pipe_out, 1)

    def serve(self, orders, answers):
        try:
            with open(self.path, "rb") as file:
                area = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            sum(area[::BLOCK])  # every page is in
            os.write(answers, b"+")
            while order := os.read(orders, 8):
                area[int.from_bytes(order, "little") * BLOCK]
                os.write(answers, b"+")
        finally:
            os._exit(0)

    def touch(self, page):
        """True when the page could be read, False when the touch ended the process with SIGBUS."""
        os.write(self.pipe_in, page.to_bytes(8, "little"))
        if os.read(self.pipe_out, 1) == b"+":
            return True
        _, status = os.waitpid(self.child, 0)
        self.child = None
        self.close()
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGBUS:
            raise Failed(f"the mapping process ended with status {status} instead of SIGBUS")
        return False

    def close(self):
        for fd in (self.pipe_in, self.pipe_out):
            if fd is not None:
                os.close(fd)
        self.pipe_in = self.pipe_out = None
        if self.child:
            os.waitpid(self.child, 0)
            self.child = None


class Demo:
    def __init__(self, folder):
        self.image = os.path.join(folder, "image")
        self.directory = os.path.join(folder, "mnt")
        self.monitor = None
        self.mapper = None

    def close(self):
        for part in (self.monitor, self.mapper):
            if part:
                part.close()
        self.monitor = self.mapper = None

    def make(self):
        say("A 1 GiB image, formatted and mounted")
        print(run(os.path.join(BIN, "mkfs.mendfs"), "-s", "1G", "-L", "quickstart", self.image), end="")
        os.mkdir(self.directory)
        mount(self.image, self.directory)
        print(mendctl("list", self.directory), end="")

    def fill(self):
        source = source_tree()
        say(f"A real tree: {source}")
        self.pairs, total = copy_tree(source, os.path.join(self.directory, "tree"))
        check(len(self.pairs) >= 1000, f"{len(self.pairs)} files, {total / 2**20:.1f} MiB copied")
        self.source, self.file = max(self.pairs, key=lambda pair: os.path.getsize(pair[0]))
        self.bad_block = os.path.getsize(self.source) // BLOCK // 2

    def clone(self):
        say("Three reflink copies of one file with plain cp")
        before = os.statvfs(self.directory).f_bfree
        self.copies = [os.path.join(self.directory, f"copy{i}") for i in (1, 2, 3)]
        for copy in self.copies:
            run("cp", self.file, copy)
        used = (before - os.statvfs(self.directory).f_bfree) * BLOCK
        size = os.path.getsize(self.source)
        check(used < max(size, 1 << 20), f"3 copies of {size} bytes took {used} bytes of space")
        self.sharers = [self.file, *self.copies]
        self.mapper = Mapper(self.copies[0])

    def names(self):
        return {"/" + os.path.relpath(path, self.directory) for path in self.sharers}

    def poison_data(self):
        say(f"Poison: one byte in block {self.bad_block} of the shared extent")
        self.monitor = Monitor(self.directory)
        begin = time.monotonic()
        mendctl("inject-error", self.directory, "--file", self.file, "--offset", str(self.bad_block * BLOCK + 1234), "--length", "1")
        seen = self.monitor.collect(lambda events: sum(e["type"] == "file_damaged" for e in events) >= 4, "four file_damaged")
        seconds = time.monotonic() - begin
        for event in seen:
            print("     ", json.dumps(event))
        damaged = [event for event in seen if event["type"] == "file_damaged"]
        check({path for event in damaged for path in event["paths"]} == self.names(), "the events name all four files")
        expected = {os.stat(path).st_ino for path in self.sharers}
        size = os.path.getsize(self.source)
        length = min(BLOCK, size - self.bad_block * BLOCK)
        check({e["inumber"] for e in damaged} == expected and
              all(e["pos"] == self.bad_block * BLOCK and e["len"] == length for e in damaged), "with inode, offset and length")
        check(seconds < 1.0, f"{seconds * 1000:.0f} ms after the command began")

    def check_data(self):
        for path in self.sharers:
            if differing_blocks(self.source, path) != ([self.bad_block], []):
                raise Failed(f"{path}: (EIO blocks, wrong blocks) = {differing_blocks(self.source, path)}")
        check(True, "EIO at exactly that 4 KiB block of all four, every other byte is right")
        others = [pair for pair in self.pairs if pair[1] != self.file]
        wrong = [copy for source, copy in others if differing_blocks(source, copy) != ([], [])]
        check(not wrong, f"{len(others)} other files are equal to their sources")

    def check_mapping(self):
        pages = -(-os.path.getsize(self.source) // BLOCK)
        check(all(self.mapper.touch(page) for page in range(pages) if page != self.bad_block),
              "a process that had a copy mapped reads every other page")
        check(not self.mapper.touch(self.bad_block), "and gets SIGBUS on its next touch of the bad one")

    def poison_metadata(self):
        say("Poison: a block of live metadata")
        live = [owner for owner in mendctl_array("owners", "owners", self.directory, "--all", "--kind", "metadata")
                if owner["live"] and owner["copy"] == "primary" and owner["tree"] == "extents"]
        victim = live[len(live) // 2]
        mendctl("inject-error", self.directory, "--device-offset", str(victim["device_offset"]), "--length", "64")
        seen = self.monitor.collect(lambda events: any(e["type"] == "metadata_repaired" for e in events), "metadata_repaired")
        print("     ", json.dumps(seen[-1]))
        mendctl("sync", self.directory)
        with open(self.image, "rb") as file:
            copies = []
            for offset in (victim["device_offset"], victim["peer_offset"]):
                file.seek(offset)
                copies.append(file.read(BLOCK))
        check(copies[0] == copies[1], f"a block of the {victim['tree']} tree was repaired from its replica: both copies are equal")
        self.check_data()

    def remount(self):
        say("Unmount and mount again")
        self.close()
        umount(self.directory)
        mount(self.image, self.directory)
        known = mendctl_array("badblocks", "badblocks", self.directory)
        check(any(block["state"] == "bad" for block in known), "the poison is known before the first read")
        damaged = mendctl_array("damaged", "damaged", self.directory)
        check({path for item in damaged for path in item["paths"]} == self.names(), "and so are the four damaged files:")
        print(mendctl("damaged", self.directory), end="")
        count = mendctl_array("filesystems", "list", self.directory)[0]["sigbus_count"]
        self.check_data()
        after = mendctl_array("filesystems", "list", self.directory)[0]["sigbus_count"]
        check(after == count, "known poison was not touched again (no further SIGBUS)")

    def verify(self):
        say("Reverse map against extent maps")
        findings = mendctl_array("findings", "check", self.directory)
        check(findings == [], "zero differences")

    def run(self):
        for step in (self.make, self.fill, self.clone, self.poison_data, self.check_data, self.check_mapping, self.poison_metadata,
                     self.remount, self.verify):
            step()


def need_fuse():
    if not os.path.exists("/dev/fuse"):
        raise Failed("/dev/fuse is missing; as root: modprobe fuse")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Failed("/dev/fuse may not be opened by this user; run as root, or: chmod 0666 /dev/fuse")


def clean_up(demo, folder):
    for _ in range(3):
        try:
            demo.close()
            umount(demo.directory)
            break
        except (Failed, subprocess.TimeoutExpired):
            subprocess.run(["umount", "-l", demo.directory], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true", help="leave the mount for playing")
    keep = parser.parse_args().keep
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    folder = tempfile.mkdtemp(prefix="mendfs-quickstart.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    demo, good = Demo(folder), False
    try:
        need_fuse()
        demo.run()
        good = True
    except (Failed, OSError, subprocess.TimeoutExpired, KeyError) as error:
        print(f"\nquickstart: FAILED: {error}", file=sys.stderr)
    finally:
        if good and keep:
            demo.close()
            print(f"\nleft for you: {demo.directory} (image {demo.image}); programs in {BIN}")
            print(f"when done: umount {demo.directory} && rm -r {folder}")
        else:
            clean_up(demo, folder)
    if not good:
        return 1
    print("\nquickstart: OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
