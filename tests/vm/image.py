"""What the guest boots: cpio archives, one behind the other, which the kernel unpacks into its first root.

The large ones (tools and modules, Python, the programs under test) are kept in build/vm, named by a hash of what they are made of; a test adds a
small one of its own, so nothing is rebuilt for it. They are not compressed: unpacking costs the guest more than QEMU's reading.
"""
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile

import guide as guide_blocks
import kernel as kernel_packages

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.path.join(ROOT, "build", "vm")
MODULES = ("nfit", "nd_pmem", "nd_btt", "dax_pmem", "device_dax", "kmem", "fuse", "hwpoison-inject", "ext4", "xfs", "crc32c_generic")
TOOLS = ("/bin/dash", "/usr/bin/kmod", "/usr/bin/ndctl", "/usr/bin/daxctl", "/bin/cp", "/bin/dd", "/usr/bin/cmp", "/bin/mount", "/bin/umount", "/usr/bin/timeout",
         "/usr/bin/setpriv", "/usr/bin/flock", "/usr/bin/fallocate", "/usr/bin/fusermount3")
# Loaded by name at run time, so ldd does not tell.
LIBRARIES = ("/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",)
PROGRAMS = ("mendfs", "mkfs.mendfs", "fsck.mendfs", "mendctl")
PYTHON_LEAVES_OUT = ("test", "idlelib", "tkinter", "lib2to3", "ensurepip", "pydoc_data", "distutils", "dist-packages")


class ImageError(Exception):
    """The image cannot be built: the message says what is missing."""


class Archive:
    """A cpio archive in the format `newc`, each entry once."""

    def __init__(self, file):
        self.file = file
        self.names = set()
        self.number = 0

    def pad(self):
        self.file.write(bytes(-self.file.tell() % 4))

    def entry(self, name, mode, data=b"", mtime=0):
        self.number += 1
        raw = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, int(mtime), len(data), 0, 0, 0, 0, len(raw), 0)
        self.file.write(b"070701" + "".join(f"{field:08x}" for field in fields).encode() + raw)
        self.pad()
        self.file.write(data)
        self.pad()

    def parents(self, name):
        folder = os.path.dirname(name)
        if folder and folder not in self.names:
            self.parents(folder)
            self.folder(folder)

    def folder(self, name):
        if name not in self.names:
            self.names.add(name)
            self.entry(name, stat.S_IFDIR | 0o755)

    def add(self, name, mode, data, mtime=0):
        name = name.lstrip("/")
        if name not in self.names:
            self.parents(name)
            self.names.add(name)
            self.entry(name, mode, data, mtime)

    def text(self, name, data, mode=0o755):
        self.add(name, stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def file_from(self, path, name=None):
        """The file itself, whatever links lead to it."""
        info = os.stat(path)
        with open(path, "rb") as file:
            self.add(name or path, stat.S_IFREG | stat.S_IMODE(info.st_mode), file.read(), info.st_mtime)

    def program(self, path, name=None):
        """A program or library with all that it is linked with."""
        self.file_from(path, name)
        for library in libraries_of(path):
            self.file_from(library)

    def end(self):
        self.entry("TRAILER!!!", 0)


def libraries_of(path):
    done = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.M)


def stamp(paths):
    """What tells one state of these files from another without reading them."""
    lines = []
    for path in paths:
        try:
            info = os.stat(path)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror} (scripts/setup vm installs what the virtual machine needs)") from error
        lines.append(f"{path} {info.st_size} {info.st_mtime_ns}")
    return "\n".join(lines)


def cached(kind, inputs, make):
    """The archive of this kind for these inputs; made when there is none."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.abspath(__file__), "rb") as file:
        name = hashlib.sha256(file.read() + inputs.encode()).hexdigest()[:16]
    path = os.path.join(CACHE, f"{kind}-{name}.cpio")
    if os.path.exists(path):
        os.utime(path)
        return path
    with tempfile.NamedTemporaryFile(dir=CACHE, prefix=f".{kind}", delete=False) as file:
        archive = Archive(file)
        make(archive)
        archive.end()
    os.rename(file.name, path)
    forget_old(kind)
    return path


def forget_old(kind, keep=4):
    paths = [os.path.join(CACHE, name) for name in os.listdir(CACHE) if name.startswith(f"{kind}-")]
    for path in sorted(paths, key=os.path.getmtime)[:-keep]:
        os.remove(path)


def modules_with_dependencies(kernel):
    """Paths below the modules' folder."""
    needs = {}
    with open(f"{kernel.modules}/modules.dep") as file:
        for line in file:
            path, rest = line.split(":")
            needs[path] = rest.split()
    by_name = {re.sub(r"\.ko.*", "", os.path.basename(path)).replace("-", "_"): path for path in needs}
    wanted = set()
    for name in MODULES:
        path = by_name.get(name.replace("-", "_"))  # else it is built in
        if path:
            wanted |= {path, *needs[path]}
    return sorted(wanted)


def plain_module(path):
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        return subprocess.run(["zstd", "-dqc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def add_modules(archive, kernel):
    """The modules, and depmod's tables of these only."""
    with tempfile.TemporaryDirectory() as root:
        folder = f"{root}/lib/modules/{kernel.release}"
        for path in modules_with_dependencies(kernel):
            target = os.path.join(folder, re.sub(r"\.(xz|zst)$", "", path))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(plain_module(f"{kernel.modules}/{path}"))
        for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
            if os.path.exists(f"{kernel.modules}/{name}"):
                shutil.copy(f"{kernel.modules}/{name}", folder)
        subprocess.run(["/sbin/depmod", "-b", root, kernel.release], check=True)
        for parent, _, names in os.walk(root):
            for name in sorted(names):
                path = os.path.join(parent, name)
                archive.file_from(path, os.path.relpath(path, root))


def add_busybox(archive):
    # busybox as the shell would run its own applets whatever the PATH says.
    archive.link("bin/sh", "dash")
    archive.file_from("/bin/busybox")
    given = {os.path.basename(tool) for tool in TOOLS} | {"busybox", "sh", "modprobe", "insmod", "rmmod", "lsmod"}
    for name in subprocess.run(["/bin/busybox", "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split():
        if name not in given:
            archive.link(f"bin/{name}", "busybox")


def base(kernel):
    """Tools, modules, /init and the functions for tests."""
    guest = [os.path.join(HERE, "guest", name) for name in ("init", "lib.sh")]

    def make(archive):
        for name in ("dev", "proc", "sys", "tmp", "run", "etc", "mnt", "lib64", "var/log"):
            archive.folder(name) if "/" not in name else archive.parents(name + "/x")
        archive.file_from(guest[0], "init")
        archive.file_from(guest[1], "vm/lib.sh")
        archive.text("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
        archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
        archive.link("etc/mtab", "/proc/mounts")
        for tool in TOOLS:
            archive.program(tool)
        for library in LIBRARIES:
            archive.program(library)
        for name in ("modprobe", "insmod", "rmmod", "lsmod"):
            archive.link(f"sbin/{name}", "/usr/bin/kmod")
        add_busybox(archive)
        add_modules(archive, kernel)

    stamped = stamp([*TOOLS, *LIBRARIES, "/bin/busybox", kernel.image, f"{kernel.modules}/modules.dep", *guest])
    return cached("base", stamped, make)


def python():
    """The interpreter with its own library, and the system tests."""
    library = "/usr/lib/python3.11"
    interpreter = "/usr/bin/python3.11"
    system = os.path.join(ROOT, "tests", "system")
    names = sorted(name for name in os.listdir(system) if name.endswith(".py"))

    def make(archive):
        archive.program(interpreter)
        archive.link("usr/bin/python3", "python3.11")
        for parent, folders, files in os.walk(library):
            folders[:] = [name for name in folders if name not in PYTHON_LEAVES_OUT and name != "__pycache__"]
            for name in sorted(files):
                path = os.path.join(parent, name)
                archive.program(path) if name.endswith(".so") else archive.file_from(path)
        for name in names:
            archive.file_from(os.path.join(system, name), f"mendfs/tests/system/{name}")

    return cached("python", stamp([interpreter, library, *(os.path.join(system, name) for name in names)]), make)


def programs(folder):
    """The programs under test from FOLDER/bin."""
    paths = [os.path.join(folder, "bin", name) for name in PROGRAMS]

    def make(archive):
        for path in paths:
            archive.program(path, f"mendfs/bin/{os.path.basename(path)}")

    return cached("programs", stamp(paths), make)


def fio():
    def make(archive):
        archive.program("/usr/bin/fio")

    return cached("fio", stamp(["/usr/bin/fio"]), make)


def hostfs():
    """Filesystems for an image file to lie on."""
    tools = ["/sbin/mkfs.ext4", "/sbin/mkfs.xfs", "/usr/sbin/filefrag"]

    def make(archive):
        for tool in tools:
            archive.program(tool)
        archive.file_from("/etc/mke2fs.conf")

    return cached("hostfs", stamp([*tools, "/etc/mke2fs.conf"]), make)


def acpi():
    """A table that replaces QEMU's of the NVDIMM: the kernel finds it in an archive that comes first and is not compressed."""
    source = os.path.join(HERE, "guest", "nvdimm.asl")

    def make(archive):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["iasl", "-p", f"{folder}/nvdimm", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise ImageError(f"iasl cannot compile {source}: {done.stdout[-500:]}")
            archive.file_from(f"{folder}/nvdimm.aml", "kernel/firmware/acpi/nvdimm.aml")

    return cached("acpi", stamp(["/usr/bin/iasl", source]), make)


def guide():
    """The blocks of docs/ADMIN.md; what mount(8) and umount(8) look for; udev, unpacked beside the build as the kernel is."""
    files = guide_blocks.files(guide_blocks.read())
    helper = os.path.join(ROOT, "build", "bin", "umount.fuse.mendfs")
    udev = kernel_packages.unpacked("udev")

    def make(archive):
        for name, text in files.items():
            archive.text(f"mendfs/guide/{name}", text, 0o644)
        archive.file_from(os.path.join(HERE, "guest", "guide.sh"), "vm/guide.sh")
        archive.program(helper, "sbin/umount.fuse.mendfs")
        for name in ("mount.mendfs", "mount.fuse.mendfs"):
            archive.link(f"sbin/{name}", "/mendfs/bin/mendfs")
        archive.program(f"{udev}/bin/udevadm", "bin/udevadm")
        archive.link("lib/systemd/systemd-udevd", "/bin/udevadm")
        for name in ("50-udev-default.rules", "80-drivers.rules"):
            archive.file_from(f"{udev}/lib/udev/rules.d/{name}", f"lib/udev/rules.d/{name}")

    stamped = stamp([helper, f"{udev}/bin/udevadm", os.path.join(HERE, "guest", "guide.sh")])
    return cached("guide", stamped + repr(files), make)


def join(path, parts, files):
    """One initrd of these archives, and of `files` (name: content) as the last."""
    with open(path, "wb") as out:
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, out)
            out.write(bytes(-out.tell() % 512))
        archive = Archive(out)
        for name, data in files.items():
            archive.text(name, data)
        archive.end()
