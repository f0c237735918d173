"""Debian's kernel packages, fetched by name and unpacked beside the build: nothing is installed and the system's package lists stay as they are.

`6.1` is Debian 12's kernel, any other version the newest package of that name in the suites that have one.
"""
import glob
import lzma
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEPS = os.path.join(ROOT, "build", "deps")
DEFAULT = "6.1"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("bookworm", "bookworm-backports", "trixie-backports")
FETCH_TIMEOUT = 240


class KernelError(Exception):
    """No kernel: the message says what to do."""


class Kernel:
    """An unpacked kernel: what to boot, and its modules."""

    def __init__(self, folder):
        self.folder = folder
        found = glob.glob(f"{folder}/lib/modules/*") + glob.glob(f"{folder}/usr/lib/modules/*")
        if len(found) != 1:
            raise KernelError(f"{folder} has no modules; remove it and run this again")
        self.modules = found[0]
        self.release = os.path.basename(self.modules)
        # Not compressed it boots in 2.6 CPU seconds less (under TCG).
        self.image = os.path.join(folder, "vmlinux")

    def module_root(self):
        """The folder in which lib/modules lies."""
        return os.path.dirname(os.path.dirname(os.path.dirname(self.modules)))


def run(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=FETCH_TIMEOUT)
    if done.returncode:
        raise KernelError(f"{' '.join(command[:2])} failed ({' '.join(command[-2:])}): {done.stdout[-500:]}")
    return done.stdout


class Apt:
    """apt with lists of its own, of the suites above only."""

    def __init__(self, folder):
        os.makedirs(f"{folder}/lists/partial", exist_ok=True)
        os.makedirs(f"{folder}/cache/archives/partial", exist_ok=True)
        self.folder = folder
        sources = f"{folder}/sources.list"
        with open(sources, "w") as file:
            for suite in SUITES:
                file.write(f"deb [signed-by={KEYRING}] {self.mirror()} {suite} main\n")
        self.options = ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/nonexistent",
                        "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User=root",
                        "-o", "Acquire::Languages=none", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=2", "-q"]

    def mirror(self):
        """The one that apt already uses."""
        done = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
        sites = [site for site in done.stdout.split() if site.endswith("/debian") and "security" not in site]
        return sites[0] if sites else "http://deb.debian.org/debian"

    def update(self):
        run("apt-get", *self.options, "update")

    def search(self, pattern):
        text = run("apt-cache", *self.options, "search", "--names-only", pattern)
        return [line.split()[0] for line in text.splitlines()]

    def download(self, package, folder):
        run("apt-get", *self.options, "download", package, cwd=folder)


def version_key(name):
    return [int(number) for number in re.findall(r"\d+", name)]


def newest(names, version):
    """Of linux-image-VERSION...-amd64, the plain flavour."""
    pattern = re.compile(rf"linux-image-{re.escape(version)}([.+-][0-9a-z.+-]*)?-amd64")
    plain = [name for name in names if pattern.fullmatch(name) and not re.search(r"-(cloud|rt)-", name)]
    return max(plain, key=version_key) if plain else None


def payload(image):
    """The ELF kernel inside a bzImage compressed with xz, or None."""
    start = image.find(b"\xfd7zXZ\0")
    if start < 0:
        return None
    text = lzma.LZMADecompressor().decompress(image[start:])
    return text if text.startswith(b"\x7fELF") else None


def unpack_image(folder):
    """FOLDER/vmlinux from whatever the package has."""
    found = glob.glob(f"{folder}/boot/vmlinuz-*") + glob.glob(f"{folder}/usr/lib/modules/*/vmlinuz")
    if not found:
        raise KernelError(f"{folder} has no kernel image")
    with open(found[0], "rb") as file:
        image = file.read()
    with open(f"{folder}/vmlinux", "wb") as file:
        file.write(payload(image) or image)


def fetch(version, folder):
    apt = Apt(os.path.join(DEPS, "apt-kernel"))
    apt.update()
    name = newest(apt.search(rf"^linux-image-{re.escape(version)}.*-amd64$"), version)
    if not name:
        raise KernelError(f"no package linux-image-{version}*-amd64 in {' '.join(SUITES)}")
    os.makedirs(folder, exist_ok=True)
    # Since 7.2 modules and image are in packages of their own.
    others = re.escape(name[len("linux-image-"):])
    for package in [name] + apt.search(f"^linux-(modules|base|binary)-{others}$"):
        apt.download(package, folder)
    for package in glob.glob(f"{folder}/*.deb"):
        run("dpkg-deb", "-x", package, folder)
        os.remove(package)
    unpack_image(folder)


def unpacked(package):
    """The folder with what is in a package of Debian 12 that need not be installed."""
    folder = os.path.join(DEPS, package)
    complete = os.path.join(folder, ".complete")
    if os.path.exists(complete):
        return folder
    try:
        os.makedirs(folder, exist_ok=True)
        apt = Apt(os.path.join(DEPS, "apt-kernel"))
        apt.update()
        apt.download(f"{package}/bookworm", folder)
        for name in glob.glob(f"{folder}/*.deb"):
            run("dpkg-deb", "-x", name, folder)
            os.remove(name)
        open(complete, "w").close()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"the package {package} cannot be fetched: {error}") from error
    return folder


def get(version=DEFAULT):
    """The kernel, fetched when it is not there yet."""
    folder = os.path.join(DEPS, f"kernel-{version}")
    complete = os.path.join(folder, ".complete")
    if not os.path.exists(complete):
        try:
            fetch(version, folder)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelError(f"kernel {version} cannot be fetched: {error}") from error
        kernel = Kernel(folder)
        run("/sbin/depmod", "-b", kernel.module_root(), kernel.release)
        open(complete, "w").close()
    return Kernel(folder)
