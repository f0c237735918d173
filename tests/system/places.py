"""What the tests of POSIX semantics share: the same test on mendfs (both ways to write) and on the host's tmpfs, which says whether the test is right."""
import ctypes
import errno
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
USER = 12345
libc = ctypes.CDLL(None, use_errno=True)


def checked(result, path=None):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def renameat2(old, new, flags):
    checked(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags), old)


def fallocate(fd, mode, pos, length):
    checked(libc.fallocate(fd, mode, ctypes.c_int64(pos), ctypes.c_int64(length)))


def link_open(fd, path):
    """A name for what is open."""
    checked(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(path), 0x400), path)


class Listing:
    """A directory read by getdents64(2), which readdir(3) is made of: as much at a time as the caller likes."""
    SYS_GETDENTS64 = 217  # x86-64

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def read(self, size):
        """The names that one call gives; none at the end. struct linux_dirent64: 8 bytes of inode and of offset each, 2 of length, 1 of type, the name."""
        buffer = ctypes.create_string_buffer(size)
        size = checked(libc.syscall(self.SYS_GETDENTS64, self.fd, buffer, size))
        entries = buffer.raw[:size]
        names, at = [], 0
        while at < len(entries):
            length = int.from_bytes(entries[at + 16:at + 18], sys.byteorder)
            names.append(os.fsdecode(entries[at + 19:at + length].split(b"\0")[0]))
            at += length
        return names

    def rest(self, size):
        names = []
        while got := self.read(size):
            names += got
        return names


def errno_of(call, *arguments, **more):
    """0, or the errno that it fails with."""
    try:
        call(*arguments, **more)
    except OSError as error:
        return error.errno
    return 0


def as_user(call, uid=USER, gid=USER):
    """In a child without privileges: the errno of the call, or 0."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            number = errno_of(call)
        except BaseException as error:  # the child must end here, whatever happens
            print(error, file=sys.stderr)
            number = 255
        os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Place(harness.Case):
    """A directory self.dir to work in; self.again() as after a remount."""
    options = ()
    is_mendfs = True
    fsck_after = True

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        if self.is_mendfs:
            self.mount = self.mounted(*self.options, size="64M")
            self.dir = self.mount.directory
        else:
            self.dir = os.path.join(self.folder, "place")
            os.mkdir(self.dir)

    def again(self):
        if self.is_mendfs:
            self.mount.remount()

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def file(self, name, data=b"", mode=0o644):
        with open(self.path(name), "wb") as file:
            file.write(data)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def open(self, name, flags=os.O_RDWR | os.O_CREAT, mode=0o644):
        fd = os.open(self.path(name), flags, mode)
        self.addCleanup(self.close_quietly, fd)
        return fd

    @staticmethod
    def close_quietly(fd):
        try:
            os.close(fd)
        except OSError:
            pass

    def assert_errno(self, number, call, *arguments, **more):
        got = errno_of(call, *arguments, **more)
        self.assertEqual(got, number, f"{errno.errorcode.get(got, got)}, not {errno.errorcode.get(number, number)}: {arguments}")


def variants(base, module, oracle=True):
    """The test case `base` on each kind of mount, and on the oracle; to be found by unittest in `module`."""
    for name, members in (("WriteThrough", {}), ("Writeback", {"options": ("writeback",)}), ("Oracle", {"is_mendfs": False})):
        if name != "Oracle" or oracle:
            module[base.__name__ + name] = type(base.__name__ + name, (base, Place), dict(members, __module__=module["__name__"]))
