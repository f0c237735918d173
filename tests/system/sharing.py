"""The ioctls of control/mendfs_ioctl.h for the system tests: clone, deduplicate, map; and the mount that these use."""
import fcntl
import os
import struct
import time

import harness

TICKET = struct.Struct("=32s")
CLONE = struct.Struct("=32sQQQII")
TARGET = struct.Struct("=32sQQQiI")
DEDUPE = struct.Struct("=QQII")
EXTENT = struct.Struct("=QQQII")
MAP = struct.Struct("=QQIIQ")
TARGETS, EXTENTS = 60, 120
WHOLE, DIFFERS = 1, 1
LAST, UNWRITTEN, SHARED, BAD = 1, 2, 4, 8


def code(direction, number, size):
    return direction << 30 | size << 16 | 0xED << 8 | number


IOC_TICKET = code(2, 1, TICKET.size)
IOC_CLONE = code(1, 2, CLONE.size)
IOC_DEDUPE = code(3, 3, DEDUPE.size + TARGETS * TARGET.size)
IOC_MAP = code(3, 4, MAP.size + EXTENTS * EXTENT.size)


def ioctl(fd, number, data):
    buffer = bytearray(data)
    fcntl.ioctl(fd, number, buffer)
    return bytes(buffer)


def ticket(fd):
    return ioctl(fd, IOC_TICKET, bytes(TICKET.size))


def clone(to, source, source_offset=0, length=0, offset=0, flags=0, reserved=0):
    """`source`: a descriptor, or a ticket."""
    sealed = source if isinstance(source, bytes) else ticket(source)
    while True:
        try:
            return ioctl(to, IOC_CLONE, CLONE.pack(sealed, source_offset, length, offset, flags, reserved))
        except BlockingIOError:
            time.sleep(0.001)


def dedupe(source, offset, length, *targets, count=None, reserved=0):
    """Each target (descriptor or ticket, offset); answers (status, bytes deduped, bytes gained) of each."""
    data = DEDUPE.pack(offset, length, len(targets) if count is None else count, reserved)
    for file, at in targets:
        data += TARGET.pack(file if isinstance(file, bytes) else ticket(file), at, 0, 0, 0, 0)
    data = ioctl(source, IOC_DEDUPE, data.ljust(DEDUPE.size + TARGETS * TARGET.size, b"\0"))
    answers = [TARGET.unpack_from(data, DEDUPE.size + i * TARGET.size) for i in range(len(targets))]
    return [(status, deduped, gained) for _, _, deduped, gained, status, _ in answers]


def map_page(fd, start, length, room=EXTENTS, reserved=0):
    data = ioctl(fd, IOC_MAP, MAP.pack(start, length, room, 0, reserved).ljust(MAP.size + EXTENTS * EXTENT.size, b"\0"))
    count = MAP.unpack_from(data)[3]
    return [EXTENT.unpack_from(data, MAP.size + i * EXTENT.size)[:4] for i in range(count)]


def map_all(fd, room=EXTENTS):
    """(offset, length, device offset, flags) of all extents, by pages."""
    extents, start = [], 0
    while True:
        page = map_page(fd, start, (1 << 64) - 1 - start, room)
        extents += page
        if not page or page[-1][3] & LAST:
            return extents
        start = page[-1][0] + page[-1][1]


class opened:
    """Descriptors that are closed at the end."""

    def __init__(self, *paths, flags=os.O_RDWR):
        self.fds = [os.open(path, flags) for path in paths]

    def __enter__(self):
        return self.fds if len(self.fds) > 1 else self.fds[0]

    def __exit__(self, *ignored):
        for fd in self.fds:
            os.close(fd)


def number_of(call, *arguments, **more):
    """errno of the call, 0 when it succeeds."""
    try:
        call(*arguments, **more)
        return 0
    except OSError as error:
        return error.errno


class Case(harness.Case):
    """A mount that other users may use, and files in it."""
    fsck_after = True

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        self.mount = self.mounted("allow_other", size="256M")

    def make(self, name, data=b"", owner=None, mode=0o644):
        path = self.mount.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
        if owner:
            os.chown(path, owner, owner)
        return path
