#!/usr/bin/env python3
"""Each section of each of bench's fio job files with verify=crc32c: it reads what the pass before wrote, or what it wrote itself, with one job and with four; and
all is there after a remount."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

sys.path.insert(0, os.path.join(harness.ROOT, "bench"))
import jobs

FILE_SIZE = "2m"
SECONDS = "200ms"
VERIFY = {"verify": "crc32c", "verify_fatal": "1", "verify_state_save": "0"}


class Fio(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="64M")
        self.data = self.mount.path("data")
        os.mkdir(self.data)

    def fio(self, *arguments, count):
        """Its JSON of all jobs together; a checksum that is wrong fails it."""
        environment = dict(os.environ, DIRECTORY=self.data, SECONDS=SECONDS, JOBS=str(count), FILE_SIZE=FILE_SIZE)
        text = harness.run("fio", "--eta=never", "--output-format=json", *arguments, env=environment, cwd=jobs.FIO).stdout
        job = json.loads(text[text.index("{"):])["jobs"][0]
        self.assertEqual(job["error"], 0, text)
        return job

    def whole(self, way, size, **more):
        """Every block of the four files, in order."""
        options = dict(VERIFY, rw=way, bs=size, directory=self.data, filename_format="data.$jobnum", size=FILE_SIZE, ioengine="psync",
                       numjobs=jobs.DATA_FILES, **more)
        return self.fio("--name=whole", "--thread", "--group_reporting", *(f"--{name}={value}" for name, value in options.items()), count=jobs.DATA_FILES)

    def verified(self, file):
        """The job file with the options that make it verify."""
        with open(os.path.join(jobs.FIO, file + ".fio")) as source:
            text = source.read()
        path = os.path.join(self.folder, file + ".fio")
        with open(path, "w") as target:
            target.write(text.replace("include common.fio\n", "include common.fio\n" + "".join(f"{name}={value}\n" for name, value in VERIFY.items())))
        return path

    def run_section(self, file, section):
        size = section.rpartition("-")[2]
        self.whole("write", size, do_verify=0)
        for count in (1, jobs.DATA_FILES):
            done = self.fio(f"--section={section}", self.verified(file), count=count)
            self.assertGreater(done["read"]["total_ios"] + done["write"]["total_ios"], 0)
        self.mount.remount()
        self.assertEqual(self.whole("read", size)["read"]["io_bytes"], jobs.DATA_FILES << 21)

    def run_file(self, file):
        for section in jobs.sections(file):
            with self.subTest(file=file, section=section):
                self.run_section(file, section)

    def test_direct(self):
        self.run_file("direct")

    def test_buffered(self):
        self.run_file("buffered")

    def test_cached(self):
        self.run_file("cached")

    def test_sync(self):
        self.run_file("sync")

    def test_mmap(self):
        self.run_file("mmap")

    def test_no_job_file_is_forgotten(self):
        self.assertEqual(set(jobs.FIO_FILES), {name[:-4] for name in os.listdir(jobs.FIO)} - {"common"})
        self.assertEqual({f"test_{file}" for file in jobs.FIO_FILES} - set(dir(self)), set())

    def test_a_wrong_byte_is_noticed(self):
        self.whole("write", "4k", do_verify=0)
        with open(os.path.join(self.data, "data.2"), "r+b") as file:
            file.seek(1 << 20 | 100)
            file.write(b"?")
        with self.assertRaisesRegex(AssertionError, "verify|checksum|crc32c"):
            self.fio("--section=read-4k", self.verified("buffered"), count=jobs.DATA_FILES)


if __name__ == "__main__":
    harness.need_mounts()
    harness.need_program("fio")
    unittest.main()
