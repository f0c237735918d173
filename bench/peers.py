"""The filesystems that are compared: how each is made, mounted below one folder of tmpfs, and ended."""
import glob
import os
import shutil
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
URING_SWITCH = "/sys/module/fuse/parameters/enable_uring"
TIMEOUT = 60
EXAMPLES = {"passthrough_ll": "passthrough_ll.c", "passthrough_hp": "passthrough_hp.cc", "memfs_ll": "memfs_ll.cc"}


CPUCLOCK_SCHED = 2  # the process's own clock is ~pid << 3 | this: clock_getcpuclockid(3)


class Missing(Exception):
    """This one cannot take part; the text says why."""


def run(*command, timeout=TIMEOUT, **more):
    """Run to the end; Missing with the last line it said when it fails."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, **more)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [f"exit {done.returncode}"]
        raise Missing(f"{os.path.basename(str(command[0]))}: {lines[-1]}")
    return done.stdout


def need(program):
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{program} is not installed (bench/compare --install)")
    return path


def read_uring():
    try:
        with open(URING_SWITCH) as file:
            return file.read().strip()
    except OSError:
        return None


def write_uring(value):
    try:
        with open(URING_SWITCH, "w") as file:
            file.write(value)
    except OSError:
        pass


def is_mounted(directory):
    with open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == directory for line in file)


def build_examples(build):
    """libfuse's examples from the source that scripts/get-libfuse left, once. The folder they are in."""
    folder = os.path.join(build, "peers")
    sources = sorted(glob.glob(os.path.join(build, "deps", "src", "fuse-3*", "example")))
    pkgconfig = [os.path.join(build, "deps", "libfuse", "lib", "pkgconfig"), os.path.join(ROOT, "build", "deps", "libfuse", "lib", "pkgconfig")]
    if not sources:
        raise Missing("no libfuse source below build/deps/src (scripts/get-libfuse fetches it)")
    environment = dict(os.environ, PKG_CONFIG_PATH=":".join(pkgconfig))
    flags = run("pkg-config", "--cflags", "--libs", "--static", "fuse3", env=environment).split()
    os.makedirs(folder, exist_ok=True)
    for name, source in EXAMPLES.items():
        target = os.path.join(folder, name)
        if not os.path.exists(target):
            compiler = ["g++", "-std=c++20"] if source.endswith(".cc") else ["gcc"]
            run(*compiler, "-O2", "-w", os.path.join(sources[-1], source), "-o", target + ".new", *flags, timeout=300)
            os.rename(target + ".new", target)
    return folder


class Filesystem:
    """One row of the comparison. `role`: ours, peer (a FUSE server that does what ours does), other (kernel filesystems and what bypasses the server)."""

    role = "other"

    def __init__(self, name, about, setting):
        self.name, self.about, self.setting = name, about, setting
        self.folder = os.path.join(setting.folder, name)
        self.directory = os.path.join(self.folder, "mnt")
        self.daemon = None

    def start(self):
        os.makedirs(self.directory)
        self.mount()

    def stop(self):
        if is_mounted(self.directory):
            subprocess.run(["umount", self.directory], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TIMEOUT, check=False)
        if is_mounted(self.directory):
            subprocess.run(["umount", "-l", self.directory], stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False)
        self.stop_daemon()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_daemon(self):
        if not self.daemon:
            return
        try:
            self.daemon.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.daemon = None

    def daemon_cpu_seconds(self):
        """What the server's threads have run so far, those that have ended too; None where there is none. Not disturbed by who else wants the CPU."""
        if not self.daemon:
            return None
        try:
            return time.clock_gettime(~self.daemon.pid << 3 | CPUCLOCK_SCHED)
        except OSError:
            return None  # it has ended

    def image(self):
        path = os.path.join(self.folder, "image")
        with open(path, "wb") as file:
            file.truncate(self.setting.image_bytes)
        return path

    def source(self):
        path = os.path.join(self.folder, "source")
        os.makedirs(path, exist_ok=True)
        return path

    def mount(self):
        raise NotImplementedError


class Tmpfs(Filesystem):
    """The floor under all the others: the folder itself."""

    def mount(self):
        pass


class Loop(Filesystem):
    def mount(self):
        image = self.image()
        quiet = ["-q"] if self.name == "ext4" else []
        run(need("mkfs." + self.name), *quiet, image)
        run(need("mount"), "-t", self.name, "-o", "loop", image, self.directory)


class Server(Filesystem):
    """A FUSE server in the foreground, as our child."""

    role = "peer"
    uring = False

    def spawn(self, *command, env=None):
        with open(os.path.join(self.folder, "log"), "w") as log:
            self.daemon = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        end = time.monotonic() + TIMEOUT
        while not is_mounted(self.directory):
            if self.daemon.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.folder, "log")) as log:
                    lines = log.read().strip().splitlines() or ["it said nothing"]
                raise Missing(f"did not mount: {lines[-1]}")
            time.sleep(0.02)

    def command(self):
        raise NotImplementedError

    def environment(self):
        return None

    def mount(self):
        """The switch is everybody's: somebody else may turn it off between our write and the mount."""
        command = self.command()
        for _ in range(3):
            if self.uring:
                write_uring("Y")
            self.spawn(*command, env=self.environment())
            os.listdir(self.directory)
            if not self.uring or self.has_rings():
                return
            run("umount", self.directory)
            self.stop_daemon()
        raise Missing("FUSE over io_uring could not be had (" + URING_SWITCH + ")")

    def has_rings(self):
        """libfuse names the threads that serve its rings."""
        for _ in range(50):
            for path in glob.glob(f"/proc/{self.daemon.pid}/task/*/comm"):
                try:
                    with open(path) as file:
                        if file.read().startswith("fuse-ring"):
                            return True
                except OSError:
                    pass
            time.sleep(0.02)
        return False


class Mendfs(Server):
    role = "ours"
    cacheline = False

    def command(self):
        image = self.image()
        run(os.path.join(self.setting.build, "bin", "mkfs.mendfs"), image)
        options = self.setting.mendfs_options + ([] if self.uring else ["no_io_uring"])
        return [os.path.join(self.setting.build, "bin", "mendfs"), image, self.directory, "-f"] + (["-o", ",".join(options)] if options else [])

    def environment(self):
        environment = dict(os.environ)
        environment.pop("PMEM2_FORCE_GRANULARITY", None)
        if self.cacheline:
            environment["PMEM2_FORCE_GRANULARITY"] = "CACHE_LINE"
        return environment


class Example(Server):
    """One of libfuse's examples over a folder of tmpfs (memfs_ll: its own memory)."""

    def command(self):
        example = self.name.removesuffix("-uring").removesuffix("-kernel")
        program = os.path.join(build_examples(self.setting.build), example)
        uring = ["io_uring"] if self.uring else []
        if example == "passthrough_hp":
            mode = [] if self.name.endswith("-kernel") else ["--nopassthrough"]
            return [program, "--foreground", *mode, *(["-o", uring[0]] if uring else []), self.source(), self.directory]
        options = uring + ([f"source={self.source()}", "cache=always"] if example == "passthrough_ll" else [])
        return [program, "-f", *(["-o", ",".join(options)] if options else []), self.directory]


class KernelPassthrough(Example):
    role = "other"


class Debian(Server):
    def command(self):
        if self.name == "bindfs":
            return [need("bindfs"), "-f", "--multithreaded", self.source(), self.directory]
        image = self.image()
        if self.name == "fuse2fs":
            run(need("mkfs.ext4"), "-q", image)
            return [need("fuse2fs"), "-f", image, self.directory]
        run(need("mkfs.ntfs"), "-F", "-Q", "-q", image)
        return [need("ntfs-3g"), "-o", "no_detach", image, self.directory]


def make(kind, name, about, setting, **attributes):
    filesystem = kind(name, about, setting)
    for key, value in attributes.items():
        setattr(filesystem, key, value)
    return filesystem


def all_filesystems(setting):
    return [
        make(Mendfs, "mendfs", "image on tmpfs, io_uring", setting, uring=True),
        make(Mendfs, "mendfs-cacheline", "the same as on persistent memory", setting, uring=True, cacheline=True),
        make(Mendfs, "mendfs-classic", "as mendfs, /dev/fuse", setting),
        make(Example, "passthrough_hp", "libfuse example over tmpfs, --nopassthrough", setting),
        make(Example, "passthrough_hp-uring", "the same, io_uring", setting, uring=True),
        make(Example, "passthrough_ll", "libfuse example over tmpfs, cache=always", setting),
        make(Example, "passthrough_ll-uring", "the same, io_uring", setting, uring=True),
        make(Example, "memfs_ll", "libfuse example, own memory", setting),
        make(Example, "memfs_ll-uring", "the same, io_uring", setting, uring=True),
        make(Debian, "fuse2fs", "ext4 image on tmpfs", setting),
        make(Debian, "bindfs", "over tmpfs", setting),
        make(Debian, "ntfs-3g", "ntfs image on tmpfs", setting),
        make(KernelPassthrough, "passthrough_hp-kernel", "files read and written by the kernel, not by the server", setting, uring=True),
        make(Loop, "xfs", "kernel, loop image on tmpfs", setting),
        make(Loop, "ext4", "kernel, loop image on tmpfs", setting),
        make(Tmpfs, "tmpfs", "kernel, what all of them lie on", setting),
    ]
