"""Tests in the guest: found, run in a machine each, judged."""
import math
import os
import re
import shutil
import subprocess
import tempfile
import time

import image
import machine

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = {"nvdimm": int, "memory": int, "smp": int, "timeout": int, "boots": int}
EXTRAS = {"python": image.python, "fio": image.fio, "hostfs": image.hostfs, "guide": image.guide}
FIRST = {"acpi": image.acpi}  # these come before all else
BOOTS_MAX = 5


class TestError(Exception):
    """A test's header is wrong."""


class Test:
    """One file: `#!/bin/sh`, what it shows (with (ci) where CI runs it), and `# vm: word=number extra ...` where it needs something."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)[:-len(".sh")]
        with open(path) as file:
            self.text = file.read()
        header = re.match(r"#!/bin/sh\n((?:# .*\n)+)", self.text)
        if not header:
            raise TestError(f"{path}: no header")
        lines = [line[2:] for line in header[1].splitlines()]
        self.shows = " ".join(line for line in lines if not line.startswith("vm: "))
        self.is_ci = "(ci)" in self.shows
        self.numbers, self.extras = {}, []
        for line in lines:
            if line.startswith("vm: "):
                self.parse(line[4:].split())

    def parse(self, words):
        for word in words:
            key, _, value = word.partition("=")
            if key in WORDS and value.isdecimal():
                self.numbers[key] = WORDS[key](value)
            elif word in EXTRAS or word in FIRST:
                self.extras.append(word)
            else:
                raise TestError(f"{self.path}: \"{word}\" means nothing")

    def spec(self):
        return machine.Spec(**self.numbers)


def find(folder=os.path.join(HERE, "tests")):
    return [Test(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".sh")]


class Runner:
    """Runs tests with one kernel and one set of programs."""

    def __init__(self, kernel, build, logs, accelerator="tcg", slowness=1.0, trace=False):
        self.kernel, self.build, self.logs = kernel, build, logs
        self.accelerator, self.slowness = accelerator, slowness
        self.more = f"VM_SLOW={math.ceil(slowness)}{' VM_TRACE=1' if trace else ''}"

    def parts(self, extras):
        first = [FIRST[name]() for name in extras if name in FIRST]
        return [*first, image.base(self.kernel), image.programs(self.build), *(EXTRAS[name]() for name in extras if name in EXTRAS)]

    def run(self, test):
        """(None or why it failed, seconds, folder of logs)."""
        begin = time.monotonic()
        logs = os.path.join(self.logs, test.name)
        shutil.rmtree(logs, ignore_errors=True)
        os.makedirs(logs)
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="mendfs-vm.", dir=base) as folder:
            try:
                reason = self.run_in(test, folder)
            finally:
                for name in os.listdir(folder):
                    if name.endswith(".log"):
                        shutil.copy(os.path.join(folder, name), logs)
        return reason, time.monotonic() - begin, logs

    def run_in(self, test, folder):
        initrd = os.path.join(folder, "initrd")
        image.join(initrd, self.parts(test.extras), {"vm/test": test.text})
        spec = test.spec()
        end = time.monotonic() + spec.timeout * self.slowness
        for boot in range(1, BOOTS_MAX + 1):
            guest = machine.Machine(self.kernel, initrd, spec, folder, boot, self.accelerator, self.more)
            outcome = guest.run(max(1, end - time.monotonic()))
            if not outcome.restart or outcome.trouble:
                reason = machine.judge(outcome)
                return f"{reason} (at: {outcome.step or 'the beginning'})" if reason else None
        return f"it restarted the guest {BOOTS_MAX} times"


def shell(kernel, build):
    """A prompt on this terminal, in a guest with a namespace and the programs in its PATH."""
    with tempfile.TemporaryDirectory(prefix="mendfs-vm.") as folder:
        initrd = os.path.join(folder, "initrd")
        image.join(initrd, [image.base(kernel), image.programs(build)], {})
        guest = machine.Machine(kernel, initrd, machine.Spec(smp=1), folder, more="VM_SHELL=1")
        with open(guest.path("nvdimm"), "wb") as file:
            file.truncate(guest.spec.nvdimm << 20)
        command = [word for word in guest.command(console="mon:stdio") if word != "-S"]
        return subprocess.call(command) >> 1
