#!/usr/bin/env python3
"""kill -9 of the daemon at random moments: under load from several processes and fio, while it mounts and recovers, while it unmounts. The image,
on tmpfs, survives. After each round fsck.mendfs and mendctl check must be clean and everything that was acknowledged as it was; nothing removed may
be back.

$MENDFS_SEED reruns a seed (up to scheduling), $MENDFS_KILLS sets the number of rounds.
"""
import os
import random
import shutil
import stat
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import killwork
from harness import program, run

SEED = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
COUNT_WORKERS = 3
FIO_KEPT = 4


def is_sanitized():
    with open(program("mendfs"), "rb") as file:
        return b"__asan_init" in file.read()


def has_uring():
    return harness.libfuse_version() >= (3, 18)


def rounds():
    """All of them once, where the kernel and the library offer io_uring; a sample for the other transport and for sanitizers."""
    if os.environ.get("MENDFS_KILLS"):
        return int(os.environ["MENDFS_KILLS"])
    if os.environ.get("MENDFS_LONG"):
        return 1000
    if is_sanitized():
        return 12
    return 100 if harness.TRANSPORT == "io_uring" and has_uring() else 20


class Victim(harness.Mount):
    """A mount whose daemon is killed, at any moment of its life."""

    def spawn(self, *options, env=None):
        """Start the daemon and wait for nothing."""
        os.makedirs(self.directory, exist_ok=True)
        options = [*self.options, *options]
        self.log = open(self.directory + ".log", "w+")
        self.daemon = subprocess.Popen([program("mendfs"), self.image, self.directory, "-f", *(["-o", ",".join(options)] if options else [])],
                                       stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})})

    def mount(self, *options, env=None):
        self.spawn(*options, env=env)
        harness.wait_for(lambda: self.is_mounted() or self.daemon.poll() is not None, what="the mount")
        if self.daemon.poll() is not None:
            raise AssertionError(f"mendfs ended with {self.daemon.returncode}: {self.read_log()}")

    def strike(self):
        """kill -9. Was there anything left to kill?"""
        self.daemon.kill()
        return self.daemon.wait(harness.TIMEOUT) == -9

    def clear(self):
        """The dead mount point, as the manual says."""
        self.daemon = None
        self.log.close()
        if self.is_mounted():
            harness.wait_for(lambda: not self.is_mounted() or run("fusermount3", "-u", self.directory, check=False).returncode == 0,
                             what="fusermount3 -u of the dead mount point")
        if stat.S_ISBLK(os.stat(self.image).st_mode):
            harness.wait_for(self.is_free, what="the end of the dead mount in every mount namespace")

    def is_free(self):
        try:
            os.close(os.open(self.image, os.O_RDONLY | os.O_EXCL))
            return True
        except OSError:
            return False

    def umount(self):
        if self.daemon and self.daemon.poll() is not None:
            self.clear()
        if self.daemon:
            super().umount()


class Fio:
    """One fio at a time; those that ended and the one that the kill ended are verified up to what fio saw acknowledged."""

    def __init__(self, folder, directory, rng):
        self.folder, self.directory, self.random = folder, directory, rng
        self.process, self.number, self.jobs = None, 0, []
        self.verified = 0

    def command(self, job, *more):
        name, options = job
        return ["fio", f"--name={name}", f"--directory={self.directory}", "--size=2M", "--verify=crc32c", "--ioengine=psync", "--minimal",
                *options, *more]

    def start(self):
        self.number += 1
        rw, direct = self.random.choice(("write", "randwrite")), self.random.randrange(2)
        size = self.random.choice(("4k", "16k", "64k") if direct else ("4k", "1536", "64k"))
        job = (f"fio{self.number}", [f"--rw={rw}", f"--direct={direct}", f"--bs={size}", f"--randseed={self.random.randrange(1 << 30)}"])
        self.jobs.append(job)
        self.process = subprocess.Popen(self.command(job, "--do_verify=0", "--verify_state_save=1", "--rate_iops=1500"), cwd=self.folder,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self):
        """Whether it finished or lost the daemon, its state says how far it came; without one (not a single write) there is nothing to verify."""
        if self.process:
            self.process.wait(killwork.STEP_TIMEOUT)
            self.process = None
        self.jobs = [job for job in self.jobs if os.path.exists(self.state(job))]

    def state(self, job):
        return os.path.join(self.folder, f"local-{job[0]}-0-verify.state")

    def verify(self, job):
        done = run(*self.command(job, "--verify_only", "--verify_state_load=1", "--verify_state_save=0"), check=False, cwd=self.folder,
                   timeout=killwork.STEP_TIMEOUT)
        if done.returncode:
            raise AssertionError(f"fio: {' '.join(done.args)}: {done.stdout[-300:]}{done.stderr[-1000:]}")

    def verify_some(self):
        """The last one, and an older one that has been through more kills."""
        for job in self.jobs[-1:] + self.random.sample(self.jobs[:-1], min(1, len(self.jobs[:-1]))):
            self.verify(job)
            self.verified += 1
        while len(self.jobs) > FIO_KEPT:
            os.unlink(os.path.join(self.directory, f"{self.jobs.pop(0)[0]}.0.0"))


class Syncer:
    """Checkpoints under load: mendctl sync in a loop, until the daemon is gone."""

    def __init__(self, directory):
        self.process = subprocess.Popen(["sh", "-c", 'while "$0" sync "$1"; do sleep 0.05; done', program("mendctl"), directory],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self):
        self.process.wait(killwork.STEP_TIMEOUT)


class KillCase(harness.Case):
    def make_medium(self):
        return self.make_image("128M")

    def setUp(self):
        super().setUp()
        print(f"seed {SEED} (rerun with MENDFS_SEED={SEED})", flush=True)
        self.random = random.Random(SEED)
        self.slow = 8 if is_sanitized() else 1
        self.image = self.make_medium()
        self.mount = Victim(self.image, os.path.join(self.folder, "mnt"))
        self.addCleanup(self.mount.umount)
        self.workers = [killwork.Hand(number, SEED, self.mount.directory) for number in range(COUNT_WORKERS)]
        for worker in self.workers:
            self.addCleanup(worker.end)
        os.mkdir(self.mount.path("fio"))
        self.fio = Fio(self.folder, self.mount.path("fio"), random.Random(SEED + 1))
        self.env, self.writeback = {}, False  # of the mount that is up
        self.seconds_mount, self.seconds_umount = 0.2 * self.slow, 0.03 * self.slow
        self.kills = {"load": 0, "mount": 0, "umount": 0}
        self.all_workers("prepare")

    # --- pieces of a round

    def all_workers(self, *command):
        for worker in self.workers:
            worker.tell(*command)
        return [worker.answer() for worker in self.workers]

    def begin_load(self, writeback):
        for worker in self.workers:
            worker.tell("work", 0, writeback)
        with_fio = self.random.random() < 0.5 and not writeback
        if with_fio:
            self.fio.start()
        syncer = Syncer(self.mount.directory) if self.random.random() < 0.4 else None
        # fio needs a moment until it writes.
        time.sleep(self.slow * self.random.uniform(0.02, 0.5) + 0.3 * with_fio)
        return syncer

    def end_load(self, syncer):
        words = [worker.answer()[0] for worker in self.workers]
        self.assertEqual(set(words), {"gone"}, self.mount.read_log())
        self.fio.end()
        if syncer:
            syncer.end()

    def strike_under_load(self, writeback):
        syncer = self.begin_load(writeback)
        self.assertIsNone(self.mount.daemon.poll(), "the daemon died by itself: " + self.mount.read_log())
        self.assertTrue(self.mount.strike(), self.mount.read_log())
        self.kills["load"] += 1
        self.end_load(syncer)
        self.mount.clear()

    def strike_while_mounting(self):
        """Recovery is interrupted, up to three times."""
        for _ in range(self.random.randrange(1, 4)):
            self.mount.spawn(env=self.env)
            time.sleep(self.random.uniform(0, 1.2 * self.seconds_mount))
            self.kills["mount"] += self.mount.strike()
            self.mount.clear()

    def strike_while_unmounting(self, writeback):
        for worker in self.workers:
            worker.tell("work", self.random.randrange(5, 40), writeback)
        self.assertEqual({worker.answer()[0] for worker in self.workers}, {"idle"})
        self.all_workers("stop")
        umount = subprocess.Popen(["umount", self.mount.directory], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(self.random.uniform(0, self.seconds_umount))
        hit = self.mount.strike()
        self.seconds_umount *= 1.3 if hit else 0.6  # so that about every other one comes before the daemon's end
        self.kills["umount"] += hit
        umount.communicate(timeout=killwork.STEP_TIMEOUT)
        self.mount.clear()

    def check_image(self):
        done = run(program("fsck.mendfs"), "-n", self.image, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def check_mount(self):
        """Every worker looks at its own folder while the tools look at all."""
        for worker in self.workers:
            worker.tell("verify")
        done = run(program("mendctl"), "check", self.mount.directory, check=False)
        for worker in self.workers:
            worker.answer()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.fio.verify_some()

    def mount_timed(self, *options):
        begin = time.monotonic()
        self.mount.mount(*options, env=self.env)
        self.seconds_mount = time.monotonic() - begin

    def round(self):
        """From one mount that was verified to the next."""
        kind = self.random.choice(("load",) * 6 + ("mount",) * 3 + ("umount",) * 2)
        if kind == "umount":
            self.strike_while_unmounting(self.writeback)
        else:
            self.strike_under_load(self.writeback)
        self.env = self.random.choice(({}, {"PMEM2_FORCE_GRANULARITY": "CACHE_LINE"}))
        if kind == "mount":
            self.strike_while_mounting()
        self.check_image()
        self.writeback = self.random.random() < 0.15
        self.mount_timed(*(["writeback"] if self.writeback else []))
        self.check_mount()

    def keep_evidence(self, number):
        """The image as it is, beside the folder that goes away."""
        copy = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"mendfs-kill-{SEED}-{number}.image")
        run("cp", "--sparse=always", self.image, copy)
        return copy

    def run_rounds(self, total):
        for number in range(total):
            try:
                self.round()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                raise AssertionError(f"round {number} (image kept: {self.keep_evidence(number)}): {error}") from error
        steps = sum(worker.ask("verify")[1] for worker in self.workers)
        print(f"sample: kill -9: {total} of {total} rounds verified ({self.kills['load']} kills under load, {self.kills['mount']} while mounting, "
              f"{self.kills['umount']} while unmounting; {steps} operations, {self.fio.verified} fio verifications)", flush=True)


class KillOnALoopDevice(KillCase):
    """As fuseblk, whose dead mount points hold the device, and whose unmount waits for a daemon that is killed meanwhile."""

    def make_medium(self):
        return self.make_device("128M")

    def test_everything_acknowledged_is_there_after_each_kill(self):
        self.run_rounds(max(12, rounds() // 6))


class Kill(KillCase):
    def test_everything_acknowledged_is_there_after_each_kill(self):
        self.run_rounds(rounds())
        self.assertGreater(self.fio.verified, 0)

    def work_and_kill(self):
        self.all_workers("work", 60, False)
        self.fio.start()
        self.fio.end()
        self.assertTrue(self.mount.strike())
        self.mount.clear()
        self.mount.mount()
        self.check_mount()

    def assert_noticed(self, text):
        with self.assertRaises(AssertionError) as caught:
            self.workers[0].ask("verify")
        self.assertIn(text, str(caught.exception))

    def flip(self, path, pos):
        times = os.stat(path)
        with open(path, "r+b", buffering=0) as file:
            byte = os.pread(file.fileno(), 1, pos)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), pos)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def test_what_changes_behind_the_backs_of_the_workers_is_noticed(self):
        """The broken twins of the check itself."""
        self.work_and_kill()
        path = self.workers[0].ask("victim")[1]
        aside = self.mount.path("aside")
        os.rename(path, aside)
        self.assert_noticed("is gone")
        shutil.copy2(aside, path)
        self.assert_noticed("is inode")
        os.rename(aside, path)
        with open(path + ".back", "x"):
            self.assert_noticed("was removed or never made")
        os.unlink(path + ".back")
        for pos in (0, os.path.getsize(path) - 1):
            self.flip(path, pos)
            self.assert_noticed("is wrong")
            self.flip(path, pos)
        os.chmod(path, 0o777)
        self.assert_noticed("mode")

    def test_what_changes_in_a_file_of_fio_is_noticed(self):
        self.work_and_kill()
        path = os.path.join(self.fio.directory, self.fio.jobs[-1][0] + ".0.0")
        self.flip(path, os.path.getsize(path) // 2)
        with self.assertRaises(AssertionError):
            self.fio.verify_some()


if __name__ == "__main__":
    harness.need_mounts()
    harness.need_program("fio")
    unittest.main()
