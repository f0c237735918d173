"""QEMU's gdbstub, as much of it as a watchpoint on a guest virtual address needs."""
import re
import socket


class Stub:
    """One connection. The guest stands still from the connection until go()."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer = b""

    def send(self, text):
        data = text.encode()
        self.socket.sendall(b"$" + data + b"#%02x" % (sum(data) & 255))

    def packet(self):
        """The next packet from the stub, its acknowledgements dropped."""
        while True:
            match = re.search(rb"\$([^#]*)#..", self.buffer)
            if match:
                self.buffer = self.buffer[match.end():]
                self.socket.sendall(b"+")
                return match[1].decode()
            data = self.socket.recv(4096)
            if not data:
                raise EOFError("the gdbstub is gone")
            self.buffer += data

    def ask(self, text):
        """Stops that are reported meanwhile are not the answer."""
        self.send(text)
        answer = self.packet()
        while answer.startswith("T"):
            answer = self.packet()
        return answer

    def watch(self, address):
        """Stop at each access, reading or writing, to this byte."""
        if self.ask(f"Z4,{address:x},1") != "OK":
            raise OSError(f"the gdbstub takes no watchpoint at {address:#x}")

    def unwatch(self, address):
        self.ask(f"z4,{address:x},1")

    def go(self):
        self.send("c")

    def halt(self):
        """As Ctrl-C: the next packet says that the guest has stopped."""
        self.socket.sendall(b"\x03")

    def stop(self):
        """Wait for the next stop: the watched address, or None where it is another one."""
        self.socket.settimeout(None)
        packet = self.packet()
        match = re.search(r"watch:([0-9a-f]+);", packet)
        return int(match[1], 16) if match else None

    def close(self):
        # shutdown() wakes the thread that waits in stop()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
