#!/usr/bin/env python3
"""File descriptors exhausted, and clients of the control socket by the thousand: a clear error, and service again afterwards."""
import os
import resource
import socket
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import mendctl, program, run

CLIENTS_MAX = 320  # control/server.c
TOOL_DESCRIPTORS = range(3, 12)


def limited(count):
    """preexec_fn: no more than so many descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


class Tools(harness.Case):
    def test_each_program_with_few_descriptors_works_or_says_why(self):
        """Never a signal, never a hang, never silence; with enough it works."""
        image = self.make_image("32M")
        new = os.path.join(self.folder, "new")
        for command in ((program("fsck.mendfs"), "-n", image), (program("mkfs.mendfs"), "-f", "-s", "32M", new), (program("mendctl"), "check", image),
                        (program("mendfs"), image, os.path.join(self.folder, "nowhere"))):
            results = [self.try_with(count, command) for count in TOOL_DESCRIPTORS]
            self.assertIn(False, results, f"{command[0]}: no limit was small enough to be felt")
            if "nowhere" not in command[-1]:
                self.assertTrue(run(*command, check=False).returncode == 0, command)

    def try_with(self, count, command):
        done = run(*command, check=False, preexec_fn=limited(count))
        self.assertGreaterEqual(done.returncode, 0, f"{command}, {count} descriptors: died of signal {-done.returncode}")
        if done.returncode:
            self.assertTrue(done.stderr.strip(), f"{command}, {count} descriptors: exit {done.returncode} without a word")
        return done.returncode == 0


class Daemon(harness.Case):
    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="64M")
        with open(self.mount.path("file"), "w") as file:
            file.write("content")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.mount.daemon.pid}/fd"))

    def cpu_seconds(self):
        with open(f"/proc/{self.mount.daemon.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit(self, count):
        resource.prlimit(self.mount.daemon.pid, resource.RLIMIT_NOFILE, (count, resource.prlimit(self.mount.daemon.pid, resource.RLIMIT_NOFILE)[1]))

    def address(self):
        """The abstract name under which mendctl finds the mount."""
        return f"\0mendfs/m/{os.stat(self.mount.directory).st_dev:x}"

    def connect(self, address):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.settimeout(harness.TIMEOUT)
        harness.wait_for(lambda: self.is_connected(client, address), what="a place in the backlog")
        return client

    @staticmethod
    def is_connected(client, address):
        try:
            client.connect(address)
            return True
        except BlockingIOError:  # the backlog is full at the moment
            return False

    def works(self):
        with open(self.mount.path("file")) as file:
            self.assertEqual(file.read(), "content")
        with open(self.mount.path("another"), "w") as file:
            file.write("x" * 100000)
        os.unlink(self.mount.path("another"))

    def test_without_descriptors_it_serves_files_does_not_spin_and_serves_clients_again_later(self):
        address = self.address()
        used = {int(name) for name in os.listdir(f"/proc/{self.mount.daemon.pid}/fd")}
        self.limit(min(set(range(len(used) + 1)) - used))  # the next one that it would get
        client = self.connect(address)  # waits in the backlog: nobody can accept it
        client.settimeout(1)
        before = self.cpu_seconds()
        with self.assertRaises(TimeoutError):
            client.recv(1)
        time.sleep(2)
        spent = self.cpu_seconds() - before
        self.assertLess(spent, 1.0, "the daemon spins")
        self.works()
        self.limit(1024)
        client.settimeout(harness.TIMEOUT)
        self.assertIn(b'"protocol"', client.recv(4096))
        self.assertEqual(harness.mendctl_json("check", self.mount.directory), [])
        self.works()

    def test_clients_by_the_thousand_are_bounded_and_refused_in_words(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        address = self.address()
        clients = [self.connect(address) for _ in range(2000)]
        refused = sum(self.is_refused(client) for client in clients[CLIENTS_MAX + 10:])
        self.assertGreater(refused, 1000)
        self.assertLess(self.descriptors(), CLIENTS_MAX + 100)
        with open(f"/proc/{self.mount.daemon.pid}/status") as file:
            threads = next(int(line.split()[1]) for line in file if line.startswith("Threads:"))
        self.assertLess(threads, CLIENTS_MAX + 100)
        done = mendctl("check", self.mount.directory, check=False)
        self.assertTrue(done.returncode == 0 or "too many clients" in done.stderr, done.stderr)
        self.works()
        for client in clients:
            client.close()
        harness.wait_for(lambda: mendctl("check", self.mount.directory, check=False).returncode == 0, what="service after the crowd")

    @staticmethod
    def is_refused(client):
        """Greeted, told why, and let go."""
        text = b""
        client.settimeout(5)
        try:
            while True:
                piece = client.recv(65536)
                if not piece:
                    return b"too many clients" in text
                text += piece
        except (TimeoutError, ConnectionError):
            return b"too many clients" in text


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
