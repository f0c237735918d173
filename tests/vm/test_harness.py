#!/usr/bin/env python3
"""What could fail silently in tests/vm: a guest's failure must fail the run, whichever way it fails.

Some of it boots guests; without QEMU that part is skipped, aloud.
"""
import contextlib
import importlib.machinery
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import image
import kernel
import machine
import suite


def load_run():
    loader = importlib.machinery.SourceFileLoader("vm_run", os.path.join(HERE, "run"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("vm_run", loader))
    loader.exec_module(module)
    return module


run = load_run()


def outcome(**fields):
    made = machine.Outcome()
    vars(made).update(fields)
    return made


class Judging(unittest.TestCase):
    def test_only_word_and_exit_status_together_are_success(self):
        self.assertIsNone(machine.judge(outcome(word=0, exit_status=1)))

    def test_whatever_else_is_failure(self):
        for fields in ({}, {"exit_status": 0}, {"exit_status": 1}, {"word": 0}, {"word": 0, "exit_status": 0}, {"word": 0, "exit_status": -9},
                       {"word": 1, "exit_status": 3}, {"word": 3, "exit_status": 1}, {"word": 0, "exit_status": 3},
                       {"word": 0, "exit_status": 1, "timed_out": True}, {"word": 0, "exit_status": 1, "trouble": "Oops"}):
            self.assertIsNotNone(machine.judge(outcome(**fields)), fields)

    def test_trouble_on_the_console_is_seen(self):
        for line in ("[ 1.0] Kernel panic - not syncing: x", "[ 1.0] BUG: kernel NULL pointer", "[ 2.0] WARNING: CPU: 0 PID: 1 at mm/x.c",
                     "==12==ERROR: AddressSanitizer: heap-use-after-free", "x.c:3:4: runtime error: shift", "[ 9.9] Oops: 0000 [#1]"):
            self.assertIsNotNone(machine.TROUBLE.search(f"all is well\n{line}\nmore\n"), line)
        self.assertIsNone(machine.TROUBLE.search("[ 1.0] Memory failure: 0x144003: recovery action for dax page: Recovered\n"))

    def test_user_mode_is_read_for_the_right_cpu(self):
        registers = "\nCPU#0\nEIP=1 CPL=0 II=0\n\nCPU#1\nEIP=2 CPL=3 II=0\n"
        self.assertFalse(machine.user_mode(registers, "0"))
        self.assertTrue(machine.user_mode(registers, "1"))
        self.assertFalse(machine.user_mode(registers, "2"))


class Headers(unittest.TestCase):
    def write(self, text):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "x.sh")
        with open(path, "w") as file:
            file.write(text)
        return suite.Test(path)

    def test_a_header_is_read(self):
        test = self.write("#!/bin/sh\n# It works (ci)\n# vm: smp=1 nvdimm=514 fio\n. /vm/lib.sh\n")
        self.assertTrue(test.is_ci)
        self.assertEqual((test.spec().smp, test.spec().nvdimm, test.extras), (1, 514, ["fio"]))

    def test_a_word_without_meaning_is_an_error(self):
        for words in ("smb=1", "smp=x", "pyton", "timeout=-1"):
            with self.assertRaises(suite.TestError):
                self.write(f"#!/bin/sh\n# x\n# vm: {words}\n")
        with self.assertRaises(suite.TestError):
            self.write("echo no header\n")

    def test_every_test_has_one_and_ends_with_the_functions(self):
        tests = suite.find()
        self.assertTrue(any(test.is_ci for test in tests))
        for test in tests:
            self.assertIn("\n. /vm/lib.sh\n", test.text, test.name)
            self.assertEqual(test.spec().nvdimm % 16, 2, test.name)

    def test_an_unknown_name_is_a_usage_error(self):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as caught:
            run.main(["no_such_test"])
        self.assertEqual(caught.exception.code, 2)


class Archives(unittest.TestCase):
    def test_cpio_reads_what_was_written(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.cpio")
            with open(path, "wb") as file:
                archive = image.Archive(file)
                archive.text("a/b/text", "hello\n", 0o644)
                archive.text("a/b/text", "twice\n")
                archive.link("a/link", "b/text")
                archive.end()
            out = os.path.join(folder, "out")
            os.mkdir(out)
            with open(path, "rb") as file:
                done = subprocess.run(["/bin/busybox", "cpio", "-idm"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=out)
            self.assertEqual(done.returncode, 0, done.stdout)
            with open(os.path.join(out, "a", "link")) as file:
                self.assertEqual(file.read(), "hello\n")

    def test_what_it_is_made_of_decides_the_name(self):
        with tempfile.NamedTemporaryFile() as file:
            before = image.stamp([file.name])
            file.write(b"x")
            file.flush()
            self.assertNotEqual(image.stamp([file.name]), before)
        with self.assertRaises(image.ImageError):
            image.stamp([file.name])

    def test_the_newest_plain_kernel_of_a_version_is_chosen(self):
        names = ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-50-amd64", "linux-image-6.1.0-51-cloud-amd64", "linux-image-6.12.3+deb12-amd64",
                 "linux-image-6.1.0-52-amd64-dbg", "linux-image-6.1.0-53-rt-amd64"]
        self.assertEqual(kernel.newest(names, "6.1"), "linux-image-6.1.0-50-amd64")
        self.assertEqual(kernel.newest(names, "6.12"), "linux-image-6.12.3+deb12-amd64")
        self.assertIsNone(kernel.newest(names, "7.2"))


class Guests(unittest.TestCase):
    """Whole runs, of tests that end in every way."""
    @classmethod
    def setUpClass(cls):
        if run.missing():
            print(f"SKIP: {' '.join(run.missing())} not found")
            raise SystemExit(77)
        cls.folder = tempfile.TemporaryDirectory()
        slow = float(os.environ.get("MENDFS_VM_SLOW", "3"))
        cls.runner = suite.Runner(kernel.get(), os.environ.get("BUILD_DIR", os.path.join(kernel.ROOT, "build")), cls.folder.name, slowness=slow)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def reason(self, name):
        reason, _, logs = self.runner.run(suite.Test(os.path.join(run.SELFTEST, f"{name}.sh")))
        self.assertIn("console-1.log", os.listdir(logs))
        return reason

    def test_success_is_success(self):
        self.assertIsNone(self.reason("passes"))

    def test_a_command_that_fails_in_the_middle_fails_the_run(self):
        test = suite.Test(os.path.join(run.SELFTEST, "fails.sh"))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(run.run_all([test], self.runner), 1)
        self.assertIn("not ok 1 - fails", out.getvalue())
        self.assertIn("at: the false one", out.getvalue())

    def test_a_guest_that_hangs_fails_the_run(self):
        self.assertIn("did not end in time", self.reason("hangs"))

    def test_a_guest_that_panics_fails_the_run(self):
        self.assertIn("Kernel panic", self.reason("panics"))

    def test_what_is_on_the_device_outlives_a_power_cut(self):
        self.assertIsNone(self.reason("restarts"))

    def guest_of(self, driver):
        """The pid of its QEMU, and the folder of that, once it is there."""
        while driver.poll() is None:
            with open(f"/proc/{driver.pid}/task/{driver.pid}/children") as file:
                children = file.read().split()
            for pid in children:
                with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
                    words = file.read()
                    found = re.search(r"mem-path=([^,]*)/nvdimm,", words)
                    if words.startswith(machine.QEMU) and found:
                        return int(pid), found[1]
            time.sleep(0.05)
        self.fail("no guest was started")

    def is_gone(self, pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().split(") ")[1].startswith("Z")
        except OSError:
            return True

    def test_no_guest_outlives_its_driver(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            driver = subprocess.Popen([os.path.join(HERE, "run"), "--accel", "tcg", "device_goes_away"], stdout=subprocess.DEVNULL)
            self.addCleanup(driver.wait)
            self.addCleanup(driver.kill)
            pid, folder = self.guest_of(driver)
            driver.send_signal(number)
            driver.wait()
            while not self.is_gone(pid):  # ctest ends a hang
                time.sleep(0.05)
            if number == signal.SIGTERM:
                self.assertFalse(os.path.exists(folder))
            else:
                shutil.rmtree(folder)


if __name__ == "__main__":
    unittest.main()
