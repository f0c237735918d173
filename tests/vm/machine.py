"""One boot of a guest under QEMU, and what the host does for it while it runs.

The guest asks over its second serial port, a line at a time, and waits for the answer (guest/lib.sh: host). Its console goes to a file.
"""
import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time

import gdb

QEMU = "qemu-system-x86_64"
CONNECT_TIMEOUT = 20
HALT_AGAIN = 1
MACHINE_CHECK = "9 0xbd80000000000134 0x7"  # bank, status (action required), mcgstatus
ACTION_OPTIONAL = "9 0xbd000000000000c0 0x5"
USER_MODE_TRIES = 500
# What a good guest never says on its console.
TROUBLE = re.compile(r"(Kernel panic|Oops|BUG: |kernel BUG|WARNING: CPU|general protection fault|soft lockup|hung_task|Out of memory"
                     r"|ERROR: AddressSanitizer|runtime error:|ERROR: LeakSanitizer)[^\n]*")


class Spec:
    """What a test asks of its machine; each has a default."""

    def __init__(self, nvdimm=258, memory=1024, smp=2, timeout=120):
        self.nvdimm = nvdimm    # MiB, N * 16 + 2: the label area takes the rest
        self.memory = memory    # MiB
        self.smp = smp
        self.timeout = timeout  # seconds, of all boots together


class Qmp:
    """QEMU's monitor. Several threads may ask."""

    def __init__(self, path):
        self.socket = connect(path)
        self.file = self.socket.makefile("rw")
        self.lock = threading.Lock()
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        with self.lock:
            self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self.file.flush()
            while True:
                line = self.file.readline()
                if not line:
                    raise EOFError("QEMU is gone")
                answer = json.loads(line)
                if "error" in answer:
                    raise OSError(answer["error"]["desc"])
                if "return" in answer:
                    return answer["return"]

    def human(self, line):
        answer = self.call("human-monitor-command", **{"command-line": line})
        if answer.strip() and line.startswith("mce"):
            raise OSError(answer.strip())
        return answer

    def close(self):
        with contextlib.suppress(OSError):
            self.file.close()
        self.socket.close()


def connect(path):
    end = time.monotonic() + CONNECT_TIMEOUT
    while True:
        there = socket.socket(socket.AF_UNIX)
        try:
            there.connect(path)
            return there
        except OSError:
            there.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def user_mode(registers, cpu):
    """Whether that virtual CPU is in user mode, in what `info registers -a` says."""
    parts = re.split(r"CPU#(\d+)", registers)
    of_cpu = dict(zip(parts[1::2], parts[2::2])).get(str(cpu), registers if len(parts) == 1 else "")
    return re.search(r"CPL=3\b", of_cpu) is not None


class Outcome:
    """How a boot ended."""

    def __init__(self):
        self.word = None        # the status that the guest told
        self.exit_status = None  # QEMU's
        self.timed_out = False
        self.restart = False
        self.step = ""
        self.trouble = None     # a line of the console


def judge(outcome):
    """None when all is well, else why not. A restart is neither: the test goes on."""
    if outcome.trouble:
        return f"the guest's console says: {outcome.trouble}"
    if outcome.timed_out:
        return "it did not end in time"
    if outcome.word is None:
        return f"the guest ended (QEMU's exit status {outcome.exit_status}) without saying how the test went"
    if outcome.word:
        return f"the test ended with status {outcome.word}"
    if outcome.exit_status != 1:
        return f"the test said 0, but QEMU's exit status is {outcome.exit_status}"
    return None


class Machine:
    """QEMU, started by run() and gone when that returns."""

    def __init__(self, kernel, initrd, spec, folder, boot=1, accelerator="tcg", more=""):
        self.kernel, self.initrd, self.spec, self.folder, self.boot = kernel, initrd, spec, folder, boot
        self.accelerator, self.more = accelerator, more
        self.outcome = Outcome()
        self.console = os.path.join(folder, f"console-{boot}.log")
        self.begin = time.monotonic()
        self.qmp = None
        self.stub = None
        self.watched = {}  # guest virtual address: physical address
        self.hits = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def command(self, console=None):
        cpu = "host" if self.accelerator == "kvm" else "max,vendor=GenuineIntel"  # an AMD panics on injected errors
        accelerator = "kvm" if self.accelerator == "kvm" else "tcg,thread=multi"
        spec = self.spec
        return [QEMU, "-accel", accelerator, "-cpu", cpu, "-smp", str(spec.smp), "-machine", "q35,nvdimm=on",
                "-m", f"{spec.memory}M,slots=4,maxmem=16G", "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot",
                "-object", f"memory-backend-file,id=nv0,share=on,mem-path={self.path('nvdimm')},size={spec.nvdimm}M,align=2M",
                "-device", "nvdimm,id=nvdimm0,memdev=nv0,label-size=256K",
                "-serial", console or f"file:{self.console}",
                "-chardev", f"socket,id=host,path={self.path('host')},server=on,wait=off", "-device", "isa-serial,chardev=host",
                "-qmp", f"unix:{self.path('qmp')},server=on,wait=off", "-gdb", f"unix:{self.path('gdb')},server=on,wait=off",
                "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-S", "-kernel", self.kernel.image, "-initrd", self.initrd,
                # Page tables of their own for user mode empty an emulated TLB twice per system call: without, a guest does the same in half the time.
                "-append", f"console=ttyS0 quiet no_timer_check mitigations=off panic=-1 oops=panic VM_BOOT={self.boot} {self.more}".strip()]

    def run(self, timeout):
        """Boot, serve the guest until it ends, and say how that was."""
        if not os.path.exists(self.path("nvdimm")):
            with open(self.path("nvdimm"), "wb") as file:
                file.truncate(self.spec.nvdimm << 20)
        with open(self.path("qemu.log"), "ab") as log:
            # However this process ends, no guest goes on.
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.serve(process, timeout)
        except (OSError, EOFError, ValueError) as error:
            self.note(f"the host driver failed: {error}")
        finally:
            self.stop(process)
        self.outcome.trouble = self.find_trouble()
        return self.outcome

    def serve(self, process, timeout):
        asks = connect(self.path("host"))
        self.qmp = Qmp(self.path("qmp"))
        thread = threading.Thread(target=self.answer_all, args=(asks, process), daemon=True)
        thread.start()
        self.qmp.call("cont")
        try:
            self.outcome.exit_status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.outcome.timed_out = True
        process.kill()
        process.wait()
        thread.join(CONNECT_TIMEOUT)
        asks.close()

    def stop(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()
        for connection in (self.qmp, self.stub):
            if connection:
                connection.close()
        for name in ("host", "qmp", "gdb"):
            if os.path.exists(self.path(name)):
                os.remove(self.path(name))

    def find_trouble(self):
        with open(self.console, "a+", errors="replace") as file:
            file.seek(0)
            match = TROUBLE.search(file.read())
        return match[0].strip() if match else None

    def note(self, text):
        with open(self.path("driver.log"), "a") as file:
            file.write(f"[boot {self.boot}, {time.monotonic() - self.begin:6.2f} s] {text}\n")

    # --- what the guest may ask for ---

    def answer_all(self, asks, process):
        try:
            with asks.makefile("rw", errors="replace") as file:
                for line in file:
                    answer = self.answer(line.split(), process)
                    self.note(f"{line.strip()} -> {answer}")
                    file.write(answer + "\n")
                    file.flush()
        except (OSError, ValueError):
            pass  # the guest has ended

    def answer(self, words, process):
        action = ACTIONS.get(words[0]) if words else None
        if not action:
            return "error no such request"
        try:
            return f"ok {action(self, process, *words[1:]) or ''}"
        except (OSError, EOFError, ValueError, TypeError) as error:
            return f"error {error}".replace("\n", " ")

    def do_step(self, process, *words):
        self.outcome.step = " ".join(words)

    def do_done(self, process, status):
        self.outcome.word = int(status)

    def do_restart(self, process):
        """Power is cut."""
        self.outcome.restart = True
        process.kill()

    def do_monitor(self, process, *words):
        return self.qmp.human(" ".join(words)).replace("\r\n", " ; ")

    def do_optional(self, process, address, misc="0x86"):
        """An action-optional machine check: the memory at this physical address is bad, nobody touched it. Any state of the CPU will do."""
        self.qmp.human(f"mce {self.everywhere()}1 {ACTION_OPTIONAL} {address} {misc}".replace("mce 1", "mce 0"))

    def do_required(self, process, address, cpu="0", misc="0x86"):
        """A machine check that needs action, on a CPU caught in user mode: in the kernel it would be a panic."""
        for _ in range(USER_MODE_TRIES):
            self.qmp.call("stop")
            try:
                if user_mode(self.qmp.human("info registers -a"), cpu):
                    self.qmp.human(f"mce {self.everywhere()}{cpu} {MACHINE_CHECK} {address} {misc}")
                    return None
            finally:
                self.qmp.call("cont")
            time.sleep(0.003)
        raise OSError(f"CPU {cpu} was never in user mode")

    def everywhere(self):
        return "" if self.spec.smp == 1 else "-b "

    def do_watch(self, process, virtual, physical):
        """From now on each user's access to this byte is a machine check. Needs smp=1, so that whoever touched it is who is hit."""
        if self.spec.smp != 1:
            raise OSError("a watchpoint needs smp=1")
        self.pause()
        self.watched[int(virtual, 0)] = int(physical, 0)
        self.stub.watch(int(virtual, 0))
        self.resume()

    def do_unwatch(self, process):
        if self.stub:
            self.pause()
            for address in self.watched:
                self.stub.unwatch(address)
            self.watched.clear()
            self.resume()

    def do_hits(self, process):
        return str(self.hits)

    def pause(self):
        """The guest stands still and the stub is ours alone."""
        if not self.stub:
            self.stub = gdb.Stub(self.path("gdb"))
            return
        end = time.monotonic() + CONNECT_TIMEOUT
        while self.watcher.is_alive():  # a request that comes while a stop is served is lost
            if time.monotonic() > end:
                raise OSError("the guest does not stop for the gdbstub")
            self.stub.halt()
            self.watcher.join(HALT_AGAIN)

    def resume(self):
        self.watcher = threading.Thread(target=self.watch_all, daemon=True)
        self.stub.go()
        self.watcher.start()

    def watch_all(self):
        """Serve the stops of the watchpoint until the stub is halted for another reason."""
        try:
            while True:
                address = self.stub.stop()
                if address is None:
                    return
                self.poison_access(address)
                self.stub.go()
        except (OSError, EOFError) as error:
            self.note(f"the watchpoint's thread ends: {error}")

    def poison_access(self, address):
        why = self.why_passed_over(address)
        if not why:
            self.qmp.human(f"mce 0 {MACHINE_CHECK} {self.watched[address]:#x} 0x86")
            self.hits += 1
        self.note(f"access to {address:#x}: {why or 'machine check'}")

    def why_passed_over(self, address):
        """A virtual address is each process's own, the poison is not: what matters is where it leads now."""
        if not user_mode(self.qmp.human("info registers -a"), "0"):
            return "passed over: the kernel"
        where = re.search(r"gpa: (0x[0-9a-f]+)", self.qmp.human(f"gva2gpa {address:#x}"))
        if not where or int(where[1], 16) != self.watched.get(address):
            return "passed over: other memory"
        return None


ACTIONS = {
    "step": Machine.do_step,
    "done": Machine.do_done,
    "restart": Machine.do_restart,
    "monitor": Machine.do_monitor,
    "optional": Machine.do_optional,
    "required": Machine.do_required,
    "watch": Machine.do_watch,
    "unwatch": Machine.do_unwatch,
    "hits": Machine.do_hits,
}
