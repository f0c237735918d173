#!/usr/bin/env python3
"""Build and run the tests; ./run-tests installs what is missing first.

  ./run-tests               one Release build and its tests (under 15 minutes)
  ./run-tests --all         every leg: quickstart, Release, the other transport, ASan+UBSan, TSan, libFuzzer, Debian's own libfuse, a virtual machine (under 60 minutes)
  ./run-tests --leg NAME    that leg only (may be repeated); --list names them
  ./run-tests --build-only  build, run nothing
  ./run-tests --long        full runs of what is sampled otherwise

Each leg prints its seconds, tests and skips; more skips than tests/EXPECTED_SKIPS names fail the run.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# name: (build folder, cmake arguments, ctest arguments, environment)
LEGS = {
    "quickstart": (),
    "release": ("build", [], ["-LE", "vm"], {"MENDFS_TRANSPORT": "io_uring"}),
    # What a kill leaves does not depend on how requests came.
    "dev-fuse": ("build", [], ["-L", "system", "-E", "system-kill"], {"MENDFS_TRANSPORT": "dev_fuse"}),
    "asan": ("build-asan", ["-DMENDFS_SANITIZE=address,undefined"], ["-LE", "twins|vm", "-E", "system-fio"],
             {"ASAN_OPTIONS": "abort_on_error=1:handle_sigbus=0:detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}),
    "tsan": ("build-tsan", ["-DMENDFS_SANITIZE=thread"], ["-L", "threads"], {"TSAN_OPTIONS": "halt_on_error=1:handle_sigbus=0"}),
    "fuzz": ("build-fuzz", ["-DMENDFS_FUZZ=ON", "-DCMAKE_C_COMPILER=clang-14"], ["-L", "fuzz"], {}),
    "system-libfuse": ("build-314", ["-DMENDFS_SYSTEM_LIBFUSE=ON"], ["-L", "system", "-E", "system-kill|system-fio"], {}),
    # Guests with persistent memory (tests/vm), under 6 minutes. Other machines are slower, or busy.
    "vm": ("build", [], ["-L", "vm"], {"MENDFS_VM_SLOW": "3"}),
}
QEMU = "qemu-system-x86_64"
NO_LOOP = "no loop device can be made here"  # what tests of block devices say when they skip


def expected_skips():
    table = {}
    with open(os.path.join(ROOT, "tests", "EXPECTED_SKIPS")) as file:
        for line in file:
            words = line.split("#")[0].split()
            if len(words) == 2:
                table[words[0]] = int(words[1])
    return table


def makes_loops():
    """Containers often have none, whatever the user may do in them."""
    try:
        return subprocess.run(["losetup", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def run(command, log, env=None, timeout=None):
    """The command's exit status; its output goes to the log."""
    log.flush()
    try:
        return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env,
                              timeout=timeout).returncode
    except subprocess.TimeoutExpired:
        return 124


def build(leg, log):
    folder, arguments, _, _ = LEGS[leg]
    configure = ["cmake", "-S", ".", "-B", folder, "-G", "Ninja", "-DMENDFS_WERROR=ON", "-DMENDFS_TESTS=ON",
                 "-DCMAKE_BUILD_TYPE=Release", f"-DMENDFS_LIBFUSE_PREFIX={ROOT}/build/deps/libfuse", *arguments]
    return run(configure, log) or run(["ninja", "-C", folder], log)


def count(text):
    """Tests, failures and skips inside the test programs' own output: Check's and unittest's closing lines."""
    tests = failed = skipped = 0
    for checks, failures, errors in re.findall(r"^(?:\d+: )?\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)", text, re.M):
        tests += int(checks)
        failed += int(failures) + int(errors)
    tests += sum(int(n) for n in re.findall(r"^(?:\d+: )?Ran (\d+) tests? in", text, re.M))
    taps = re.findall(r"^(?:\d+: )?(not )?ok \d+ - ", text, re.M)
    tests += len(taps)
    failed += sum(bool(no) for no in taps)
    for line in re.findall(r"^(?:\d+: )?FAILED \((.*)\)$", text, re.M):
        failed += sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)", line))
    skipped += sum(int(n) for n in re.findall(r"^(?:\d+: )?(?:OK|FAILED) \(.*?skipped=(\d+)", text, re.M))
    skipped += len(re.findall(r"^(?:\d+: )?SKIP: ", text, re.M))
    return tests, failed, skipped


def run_quickstart(options):
    """The demonstration is a test too: it checks every line that it shows."""
    if options.build_only:
        return 0, 0, 0
    path = os.path.join(ROOT, "build", "log-quickstart.txt")
    begin = time.monotonic()
    with open(path, "w+") as log:
        status = run([os.path.join(ROOT, "quickstart")], log, timeout=900)
        log.seek(0)
        lines = log.read().splitlines()
    good = status == 0 and lines[-1:] == ["quickstart: OK"]
    if not good:
        print("\n".join(lines[-20:]))
    print(f"leg quickstart: {time.monotonic() - begin:.0f} s, 1 tests, {int(not good)} failed, 0 skipped", flush=True)
    return int(good), int(not good), 0


def telling(lines):
    """Of what a failed test printed: the first lines that name a failure, and its last ones."""
    end = max(0, len(lines) - 12)
    named = [line for line in lines[:end] if re.search(r":[FE]:|FAIL: |ERROR: |not ok |NOT CAUGHT|Sanitizer|Timeout", line)]
    return named[:30] + lines[end:]


def run_leg(leg, options):
    if leg == "quickstart":
        return run_quickstart(options)
    if leg == "vm" and not shutil.which(QEMU):
        print(f"leg vm: SKIP: {QEMU} not found; scripts/setup vm installs it", flush=True)
        return 0, 0, 1
    folder, _, arguments, environment = LEGS[leg]
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    path = os.path.join(ROOT, "build", f"log-{leg}.txt")
    begin = time.monotonic()
    with open(path, "w+") as log:
        if build(leg, log):
            log.seek(0)
            print("".join(log.readlines()[-40:]), end="")
            print(f"leg {leg}: the build failed (whole log: {path})", flush=True)
            return 0, 1, 0
        if options.build_only:
            print(f"leg {leg}: built in {time.monotonic() - begin:.0f} s", flush=True)
            return 0, 0, 0
        start = log.tell()
        env = dict(os.environ, **environment, MENDFS_LONG="1" if options.long else "")
        env.pop("MENDFS_LONG") if not options.long else None
        # System tests hold a lock on each other; beside one of them another test runs.
        status = run(["ctest", "--test-dir", folder, "-V", "--no-tests=error", "-j", "2", "--timeout", "900", *arguments], log, env,
                     36000 if options.long else 3000)
        log.seek(start)
        text = log.read()
    tests, failed, skipped = count(text)
    for line in re.findall(r"^(?:\d+: )?(SKIP: .*|sample: .*|seed[: ].*)$", text, re.M):
        print(f"leg {leg}: {line}")
    broken = re.findall(r"^\s*\d+/\d+ Test +#(\d+): (\S+) \.*\**(?!.*(?:Passed|Skipped)).*$", text, re.M)
    if status and not failed:
        failed = max(1, len(broken))
    allowed = expected_skips().get(leg, 0)
    if NO_LOOP in text and not makes_loops():
        print(f"leg {leg}: SKIP: block devices were not tested: {NO_LOOP}")
        allowed += text.count(NO_LOOP)
    if broken or failed:
        for number, name in broken:
            print(f"leg {leg}: {name} failed; what it said of that, and its end:")
            print("\n".join(telling(re.findall(rf"^{number}: (.*)$", text, re.M))))
        if not broken:
            print("\n".join(telling(text.splitlines())))
        print(f"leg {leg}: failed: {' '.join(name for _, name in broken) or 'see the log'} (whole log: {path})")
    if skipped > allowed:
        print(f"leg {leg}: {skipped} skips, but tests/EXPECTED_SKIPS allows {allowed}")
        failed += 1
    print(f"leg {leg}: {time.monotonic() - begin:.0f} s, {tests} tests, {failed} failed, {skipped} skipped", flush=True)
    return tests - failed, failed, skipped


def main():
    parser = argparse.ArgumentParser(prog="run-tests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--leg", action="append", choices=LEGS, default=[])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--long", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join(LEGS))
        return 0
    legs = options.leg or (list(LEGS) if options.all else ["release"])
    totals = [0, 0, 0]
    for leg in legs:
        totals = [a + b for a, b in zip(totals, run_leg(leg, options))]
    passed, failed, skipped = totals
    if not options.build_only:
        print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
