"""The work: fio sections of bench/fio/ and the phases of bench-meta, each a job with one figure."""
import configparser
import json
import os
import subprocess

FIO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fio")
FIO_FILES = ("direct", "buffered", "cached", "sync", "mmap")
PHASES = ("create", "write", "stat-written", "stat", "read", "readdir", "rename", "unlink")
META_SHAPES = ((1, 1), (1, 16), (4, 1), (4, 16))  # threads, directories
DATA_FILES = 4


class Failed(Exception):
    """This filesystem cannot do this job; the text says why."""


class FioJob:
    def __init__(self, file, section, count):
        self.file, self.section, self.count = file, section, count
        self.names = [f"{file}/{section}/{count}"]

    def unit(self, name):
        return "MiB/s" if self.section.endswith("1m") else "per second"

    def run(self, filesystem, setting):
        environment = dict(os.environ, DIRECTORY=os.path.join(filesystem.directory, "data"), SECONDS=f"{int(setting.seconds * 1000)}ms",
                           JOBS=str(self.count), FILE_SIZE=str(setting.file_bytes))
        text = execute(["fio", "--eta=never", "--output-format=json", f"--section={self.section}", self.file + ".fio"],
                       setting.seconds, cwd=FIO, env=environment)
        done = json.loads(text[text.index("{"):])["jobs"][0]
        if done["error"]:
            raise Failed(os.strerror(done["error"]))
        unit = "bw" if self.section.endswith("1m") else "iops"
        rate = sum(done[kind][unit] for kind in ("read", "write"))
        ops = sum(done[kind]["total_ios"] for kind in ("read", "write"))
        return {self.names[0]: rate / 1024 if unit == "bw" else rate}, ops


class MetaJob:
    def __init__(self, threads, dirs):
        self.threads, self.dirs = threads, dirs
        self.names = [f"meta/{phase}/{threads}x{dirs}" for phase in PHASES]

    def unit(self, name):
        return "per second"

    def run(self, filesystem, setting):
        work = os.path.join(filesystem.directory, "names")
        os.makedirs(work, exist_ok=True)
        text = execute([os.path.join(setting.build, "bin", "bench-meta"), work, str(self.threads), str(self.dirs), str(setting.seconds / 4)],
                       setting.seconds * 2)
        rates = dict(line.split("=") for line in text.split())
        return {f"meta/{phase}/{self.threads}x{self.dirs}": float(rates[phase]) for phase in PHASES}, 0


def execute(command, seconds, **more):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=60 + 10 * seconds, **more)
    except subprocess.TimeoutExpired:
        raise Failed("did not end in time") from None
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise Failed(lines[0][:200])
    return done.stdout


def sections(file):
    parser = configparser.ConfigParser(strict=False, allow_no_value=True, comment_prefixes=(";", "include"))
    parser.read(os.path.join(FIO, file + ".fio"))
    return [section for section in parser.sections() if section != "global"]


def all_jobs():
    fio = [FioJob(file, section, count) for file in FIO_FILES for section in sections(file) for count in (1, 4)]
    return fio + [MetaJob(threads, dirs) for threads, dirs in META_SHAPES]


def prepare(filesystem, setting):
    """The files that fio works on, written once."""
    folder = os.path.join(filesystem.directory, "data")
    os.makedirs(folder, exist_ok=True)
    piece = os.urandom(1 << 20)
    for number in range(DATA_FILES):
        with open(os.path.join(folder, f"data.{number}"), "wb", buffering=0) as file:
            for _ in range(max(1, setting.file_bytes >> 20)):
                file.write(piece)
