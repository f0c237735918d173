"""What the system tests share: images, mounts that are always unmounted, commands with timeouts, event streams.

Programs come from $BIN_DIR. $MENDFS_TRANSPORT chooses io_uring or dev_fuse where both are possible; $MENDFS_OPTIONS are mount options for every mount.
For emulated machines: $MENDFS_DEVICE, a device-dax device that may be overwritten, takes the place of the image; $MENDFS_TIMEOUT is how many seconds a wait
may take; $MENDFS_SHARE is the percentage of the repetitions to do, where a test repeats something many times.
"""
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("BIN_DIR", os.path.join(ROOT, "build", "bin"))
TRANSPORT = os.environ.get("MENDFS_TRANSPORT", "io_uring")
DEVICE = os.environ.get("MENDFS_DEVICE")
SHARE = int(os.environ.get("MENDFS_SHARE", "100"))
URING_SWITCH = "/sys/module/fuse/parameters/enable_uring"
BLOCK = 4096
# Sanitizers and one shared core make everything slower; no test depends on how long something takes, only that it ends.
TIMEOUT = int(os.environ.get("MENDFS_TIMEOUT", "60"))


def scaled(count):
    """That many repetitions, or the share of them that was asked for."""
    return max(1, count * SHARE // 100)


def program(name):
    return os.path.join(BIN, name)


def run(*command, check=True, timeout=TIMEOUT, env=None, **more):
    """Run to the end; stdout and stderr as text. With check, a failure shows both."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, env=env, **more)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def mendctl(*arguments, **more):
    return run(program("mendctl"), *arguments, **more)


def mendctl_json(command, *arguments, **more):
    """The one array of a --json answer."""
    answer = json.loads(mendctl(command, *arguments, "--json", **more).stdout)
    assert answer["version"] == 1
    arrays = [value for value in answer.values() if isinstance(value, list)]
    assert len(arrays) == 1, answer
    return arrays[0]


def need_mounts():
    """Skip aloud where nothing can be mounted."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("SKIP: needs root and /dev/fuse")
        raise SystemExit(77)


def need_program(name):
    """Skip aloud where it is not installed."""
    if not shutil.which(name):
        print(f"SKIP: needs {name}")
        raise SystemExit(77)


def has_loops():
    return os.path.exists("/dev/loop-control") and run("losetup", "-f", check=False).returncode == 0


def set_uring(value):
    """Write enable_uring and return what it was, or None where it cannot be written."""
    try:
        with open(URING_SWITCH) as file:
            before = file.read().strip()
        with open(URING_SWITCH, "w") as file:
            file.write(value)
        return before
    except OSError:
        return None


def wait_for(condition, timeout=TIMEOUT, what="condition"):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true in {timeout} s")


def libfuse_version():
    """That the daemon runs with, as (3, 18). Before 3.17 there is no O_TMPFILE, before 3.18 no statx, no KILLPRIV_V2 on writes, no io_uring."""
    return tuple(int(number) for number in re.search(r"libfuse (\d+)\.(\d+)", run(program("mendfs"), "-V").stdout).groups())


class Mount:
    """A mounted mendfs. Always end it with umount() (addCleanup)."""

    def __init__(self, image, directory, *options, foreground=False):
        self.image, self.directory = str(image), str(directory)
        self.options = list(options)
        self.daemon = None
        self.options += [option for option in os.environ.get("MENDFS_OPTIONS", "").split(",") if option]
        if TRANSPORT == "dev_fuse":
            self.options.append("no_io_uring")
        self.mount()

    def mount(self):
        """In the foreground, as our child, so that its end can be waited for and its log read."""
        os.makedirs(self.directory, exist_ok=True)
        self.log = tempfile.TemporaryFile(mode="w+")
        command = [program("mendfs"), self.image, self.directory, "-f"]
        if self.options:
            command += ["-o", ",".join(self.options)]
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        wait_for(lambda: self.is_mounted() or self.daemon.poll() is not None, what="the mount")
        if self.daemon.poll() is not None:
            raise AssertionError(f"mendfs ended with {self.daemon.returncode}: {self.read_log()}")

    def is_mounted(self):
        with open("/proc/self/mountinfo") as file:
            return any(line.split()[4] == self.directory for line in file)

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def umount(self):
        if self.is_mounted():
            done = run("umount", self.directory, check=False)
            if done.returncode:
                run("umount", "-l", self.directory, check=False)
        if self.daemon and self.daemon.poll() is None:
            try:
                self.daemon.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
                raise AssertionError(f"the daemon did not end after umount: {self.read_log()}")
        status = self.daemon.returncode if self.daemon else 0
        self.daemon = None
        text = "" if self.log.closed else self.read_log()
        self.log.close()
        if status:
            raise AssertionError(f"mendfs ended with {status}: {text}")

    def kill(self):
        """kill -9, and clear the dead mount point."""
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = None
        self.log.close()
        run("umount", "-l", self.directory, check=False)

    def remount(self):
        self.umount()
        self.mount()

    def path(self, *parts):
        return os.path.join(self.directory, *parts)


class Monitor:
    """mendctl monitor, its lines parsed, `running` already seen."""

    def __init__(self, target):
        self.process = subprocess.Popen([program("mendctl"), "monitor", str(target)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events = queue.Queue()
        self.all = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.wait("running")

    def _read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))

    def next(self, timeout=TIMEOUT):
        event = self.events.get(timeout=timeout)
        self.all.append(event)
        return event

    def wait(self, kind, timeout=TIMEOUT):
        """The next event of this type; those before it stay in .all."""
        end = time.monotonic() + timeout
        while True:
            try:
                event = self.next(max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} event in {timeout} s; seen: {self.all}; {self.process.poll()}") from None
            if event["type"] == kind:
                return event

    def drain(self, quiet=0.3):
        """Everything until nothing comes for `quiet` seconds."""
        seen = []
        try:
            while True:
                seen.append(self.next(quiet))
        except queue.Empty:
            return seen

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(TIMEOUT)
        self.reader.join(TIMEOUT)
        self.process.stdout.close()
        self.process.stderr.close()


class Case(unittest.TestCase):
    """A folder on tmpfs that goes away, images and mounts in it."""
    fsck_after = False  # fsck.mendfs must find nothing on each image when its mount has ended

    @classmethod
    def setUpClass(cls):
        cls.uring_before = set_uring("Y") if TRANSPORT == "io_uring" and os.geteuid() == 0 else None

    @classmethod
    def tearDownClass(cls):
        if cls.uring_before is not None:
            set_uring(cls.uring_before)

    def setUp(self):
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix="mendfs-test.", dir=base)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def make_image(self, size="64M", *options, name="image"):
        if DEVICE and name == "image":
            run(program("mkfs.mendfs"), "-q", "-f", "-s", size, *options, DEVICE)
            return DEVICE
        path = os.path.join(self.folder, name)
        run(program("mkfs.mendfs"), "-q", "-s", size, *options, path)
        return path

    def attach(self, path, *options):
        """A loop device over this file, for as long as the test runs; skips where there are none."""
        if not has_loops():
            self.skipTest("no loop device can be made here")
        device = run("losetup", "-f", "--show", *options, path).stdout.strip()
        self.addCleanup(self.detach, device)
        return device

    def detach(self, device):
        if os.path.exists(f"/sys/block/{os.path.basename(device)}/loop"):
            run("losetup", "-d", device)

    def make_device(self, size="128M", *options):
        """A filesystem on a loop device over the file `backing`."""
        path = os.path.join(self.folder, "backing")
        run("truncate", "-s", size, path)
        device = self.attach(path)
        run(program("mkfs.mendfs"), "-q", *options, device)
        return device

    def mounted(self, *options, size="64M", image=None, name="mnt"):
        image = image or self.make_image(size)
        mount = Mount(image, os.path.join(self.folder, name), *options)
        if self.fsck_after:
            self.addCleanup(run, program("fsck.mendfs"), "-f", "-n", mount.image)
        self.addCleanup(mount.umount)
        return mount

    def monitor(self, target):
        monitor = Monitor(target)
        self.addCleanup(monitor.close)
        return monitor
