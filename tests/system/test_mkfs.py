"""mkfs.mendfs: options, refusals, exit codes, poison known before, and what the daemon thinks of the result."""
import json
import os
import struct
import subprocess
import time
import unittest

import harness
from harness import Case, Mount, mendctl_json, program, run

MIB = 1 << 20
SLOTS = [slot * 2 * MIB for slot in range(8)]
MAGIC = b"MENDFS01"


def mkfs(*arguments, check=True, **more):
    return run(program("mkfs.mendfs"), *arguments, check=check, **more)


def super_of(path, slot=0):
    """Fields of one superblock copy, by the offsets of docs/SPEC.md."""
    with open(path, "rb") as file:
        file.seek(SLOTS[slot])
        raw = file.read(4096)
    areas = [struct.unpack_from("<4Q", raw, 248 + 32 * index) for index in range(8)]
    return {"magic": raw[:8], "uuid": raw[32:48].hex(), "label": raw[48:112].rstrip(b"\0").decode(),
            "size": struct.unpack_from("<Q", raw, 144)[0], "chunk_shift": raw[153], "copies": raw[155],
            "slots": struct.unpack_from("<I", raw, 156)[0], "areas": areas}


class Mkfs(Case):
    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def refused(self, *arguments, code=1):
        """One line on stderr, nothing on stdout."""
        done = mkfs(*arguments, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("mkfs.mendfs: "), done.stderr)
        return done.stderr

    def made(self, *arguments):
        """As --json says, checked against the superblock."""
        path = arguments[-1]
        answer = json.loads(mkfs("--json", *arguments).stdout)
        found = super_of(path, next(k for k in range(8) if super_of(path, k)["magic"] == MAGIC))
        self.assertEqual(answer["version"], 1)
        self.assertEqual(answer["uuid"].replace("-", ""), found["uuid"])
        self.assertEqual(answer.get("label", ""), found["label"])
        self.assertEqual(answer["size_bytes"], found["size"])
        self.assertEqual(answer["journal_bytes"], found["areas"][0][2])
        self.assertEqual(answer["metadata_mode"], "dup" if found["copies"] == 2 else "single")
        self.assertEqual(answer["block_size"], 4096)
        self.assertEqual(answer["format_version"], 4)
        self.assertLess(answer["data_bytes"], answer["size_bytes"])
        return answer, found

    def write_poison(self, image, ranges, uuid="none"):
        with open(image + ".poison", "w") as file:
            file.write(f"# mendfs poison for {uuid}\n")
            for offset, length, *latent in ranges:
                file.write(f"{offset} {length}{' latent' if latent else ''}\n")

    # --- what it makes ---

    def test_prints_geometry_and_makes_an_image(self):
        image = self.path("image")
        text = mkfs("-s", "64M", "-L", "häuschen", image).stdout
        for word in ["häuschen", "64 MiB", "dup", "journal", "poison log", "uuid"]:
            self.assertIn(word, text)
        self.assertEqual(os.path.getsize(image), 64 * MIB)
        self.assertLess(os.stat(image).st_blocks * 512, 16 * MIB)
        self.assertEqual(super_of(image)["label"], "häuschen")
        for slot in range(8):
            self.assertEqual(super_of(image, slot), super_of(image))

    def test_json_has_the_keys_of_the_contract(self):
        answer, _ = self.made("-s", "64M", "-L", "x", "-U", "0EABCD02-0239-4c02-8013-827772ca30c0", self.path("image"))
        self.assertEqual(answer["uuid"], "0eabcd02-0239-4c02-8013-827772ca30c0")
        self.assertEqual(answer["label"], "x")
        self.assertEqual(answer["device"], self.path("image"))
        answer, _ = self.made("-s", "64M", self.path("other"))
        self.assertNotIn("label", answer)
        self.assertNotIn("known_poison_bytes", answer)

    def test_single_has_one_copy_of_metadata_but_two_journals(self):
        _, found = self.made("-m", "single", "-s", "32M", self.path("image"))
        self.assertEqual(found["copies"], 1)
        self.assertNotEqual(found["areas"][0][1], 0)
        self.assertNotEqual(found["areas"][1][1], 0)
        self.assertEqual(found["areas"][2][1], 0)

    def test_quiet_says_nothing(self):
        self.assertEqual(mkfs("-q", "-s", "16M", self.path("image")).stdout, "")

    def test_dry_run_writes_nothing(self):
        image = self.path("image")
        self.assertIn("nothing is written", mkfs("-n", "-s", "32M", image).stdout)
        self.assertFalse(os.path.exists(image))
        with open(image, "wb") as file:
            file.write(os.urandom(32 * MIB))
        before = self.read(image)
        self.assertTrue(json.loads(mkfs("-n", "--json", image).stdout)["dry_run"])
        self.assertIn("64 MiB", mkfs("-n", "-s", "64M", image).stdout)
        self.assertEqual(self.read(image), before)

    def test_size_makes_an_existing_file_longer_or_shorter(self):
        image = self.path("image")
        for size in [48, 16, 100]:
            self.made("-f", "-s", f"{size}M", image)
            self.assertEqual(os.path.getsize(image), size * MIB)
        answer, _ = self.made("-f", image)
        self.assertEqual(answer["size_bytes"], 100 * MIB)

    def test_prealloc_reserves_everything(self):
        image = self.path("image")
        mkfs("-q", "--prealloc", "-s", "32M", image)
        self.assertGreaterEqual(os.stat(image).st_blocks * 512, 32 * MIB)

    def test_metadata_space_is_reserved_on_the_host(self):
        image = self.path("image")
        answer, found = self.made("-s", "64M", image)
        reserved = 8 * 4096 + sum(2 * area[2] for area in found["areas"])
        self.assertGreaterEqual(os.stat(image).st_blocks * 512, reserved)

    def test_it_touches_no_more_of_a_terabyte_than_of_64_mib(self):
        """As on persistent memory, where the journal alone is 64 MiB in two copies. Pages are counted, because seconds depend on the machine."""
        env = dict(os.environ, PMEM2_FORCE_GRANULARITY="CACHE_LINE")
        faults = {}
        for size in ["64M", "1G", "1T"]:
            image = self.path(size)
            run("truncate", "-s", size, image)
            started = time.monotonic()
            child = subprocess.Popen([program("mkfs.mendfs"), "-q", image], stdin=subprocess.DEVNULL, env=env)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(child.returncode, 0)
            faults[size] = used.ru_minflt
            print(f"sample: {size}: {used.ru_minflt} pages, {time.monotonic() - started:.3f} s", flush=True)
            os.unlink(image)
        # 4,000 pages of the journal would be a quarter of it.
        self.assertLess(faults["1T"] - faults["64M"], 4000)

    # --- what it refuses ---

    def test_usage_errors_exit_2(self):
        image = self.path("image")
        for arguments in [[], [image, "more"], ["-Z", image], ["--nonsense", image], ["-s"], ["-s", "12Q", image], ["-s", "0", image],
                          ["-s", "-1", image], ["-s", "99999999T", image], ["-m", "triple", image], ["-U", "abc", image],
                          ["-U", "00000000-0000-0000-0000-000000000000", image], ["-L", "x" * 65, image], ["-L", "a\nb", image]]:
            self.refused(*arguments, code=2)
            self.assertFalse(os.path.exists(image))

    def test_help_and_version(self):
        for option in ["-h", "--help"]:
            self.assertIn("--prealloc", mkfs(option).stdout)
        for option in ["-V", "--version"]:
            self.assertRegex(mkfs(option).stdout, r"^mkfs\.mendfs \d+\.\d+")

    def test_too_small_names_the_minimum_and_leaves_nothing(self):
        self.assertIn("16 MiB", self.refused("-s", "15M", self.path("image")))
        self.assertFalse(os.path.exists(self.path("image")))
        self.made("-s", "16M", self.path("image"))
        self.assertIn("minimum", self.refused("-f", "-s", "1M", self.path("image")))
        self.assertEqual(os.path.getsize(self.path("image")), 16 * MIB)

    def test_missing_size_and_wrong_kinds_of_target(self):
        self.assertIn("-s", self.refused(self.path("image")))
        open(self.path("empty"), "w").close()
        self.assertIn("-s", self.refused(self.path("empty")))
        self.made("-s", "16M", self.path("empty"))
        self.refused("-s", "16M", self.folder)
        self.refused("-s", "16M", "/dev/null")
        self.refused("-s", "16M", os.path.join(self.folder, "no", "such"))
        os.mkfifo(self.path("fifo"))
        self.refused("-s", "16M", self.path("fifo"))

    def test_known_filesystems_need_force(self):
        image = self.path("image")
        for fill in [["mkfs.ext4", "-q", "-F"], ["mkswap", "-q"], ["mkfs.xfs", "-q", "-f"], ["mkfs.vfat"], ["mkfs.btrfs", "-q", "-f"]]:
            run("truncate", "-s", "0", image)
            run("truncate", "-s", "320M", image)
            try:
                run(*fill, image)
            except FileNotFoundError:
                continue
            line = self.refused(image)
            self.assertIn("-f", line)
            self.assertRegex(line, "ext4|swap|xfs|vfat|btrfs")
            self.made("-f", image)

    def test_partition_table_needs_force(self):
        image = self.path("image")
        run("truncate", "-s", "32M", image)
        with open(image, "r+b") as file:  # one Linux partition from sector 2048
            file.seek(446)
            file.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\xff" * 3, 2048, 30000))
            file.seek(510)
            file.write(b"\x55\xaa")
        self.assertIn("dos partition table", self.refused(image))
        self.made("-f", image)

    def test_mendfs_needs_force(self):
        image = self.path("image")
        first, _ = self.made("-s", "32M", image)
        self.assertIn("holds a mendfs", self.refused(image))
        with open(image, "r+b") as file:  # one copy is left
            for slot in SLOTS[:5] + SLOTS[6:]:
                file.seek(slot)
                file.write(b"\0" * 4096)
        self.assertIn("holds a mendfs", self.refused("-n", image))
        second, _ = self.made("-f", image)
        self.assertNotEqual(first["uuid"], second["uuid"])

    # --- poison known before ---

    def places(self, found):
        """Every fixed range of a superblock."""
        ranges = [(slot, 4096) for k, slot in enumerate(SLOTS) if found["slots"] >> k & 1]
        for first, second, length, _ in found["areas"]:
            ranges += [(copy, length) for copy in (first, second) if copy]
        return ranges

    def assert_clear_of(self, found, bad):
        for start, length in self.places(found):
            for offset, count, *_ in bad:
                self.assertFalse(start < offset + count and offset < start + length, (start, length, offset, count))

    def test_each_fixed_place_poisoned_in_turn(self):
        image = self.path("image")
        _, found = self.made("-s", "64M", image)
        os.unlink(image)
        for start, length in self.places(found):
            for at in {start, start + length // 2, start + length - 1}:
                self.write_poison(image, [(at, 1)])
                answer, moved = self.made("-s", "64M", image)
                self.assert_clear_of(moved, [(at, 1)])
                self.assertEqual(answer["known_poison_bytes"], 512)
                self.assertEqual(answer["known_poison_ranges"], 1)
                self.assertEqual(answer.get("quarantined_bytes"), 0 if at // 4096 * 4096 in SLOTS else 4096)
                os.unlink(image)

    def test_known_poison_is_not_touched_and_is_printed(self):
        image = self.path("image")
        self.write_poison(image, [(0, 4096), (5 * MIB, 100000), (40 * MIB + 10, 1)])
        done = mkfs("-s", "64M", image)
        self.assertIn("known poison", done.stdout)
        self.assertNotIn("met while writing", done.stdout)
        with open(image, "rb") as file:
            self.assertEqual(file.read(4096), b"\0" * 4096)
            file.seek(5 * MIB)
            self.assertEqual(file.read(100000), b"\0" * 100000)

    def test_latent_poison_that_a_store_meets_is_planned_around(self):
        image = self.path("image")
        _, found = self.made("-s", "64M", image)
        os.unlink(image)
        hit = [(SLOTS[0] + 100, 1, "latent")] + [(area[copy], 2000, "latent") for area in found["areas"][:3] for copy in (0, 1)]
        self.write_poison(image, hit)
        text = mkfs("-s", "64M", image).stdout
        self.assertIn("met while writing", text)
        # The journal clears what is bad under a block that it writes anyway; everything else moves.
        armed = [tuple(map(int, line.split()[:2])) for line in self.read(image + ".poison").decode().splitlines()[1:]]
        self.assertIn((100, 1), armed)
        self.assert_clear_of(super_of(image, 1), armed)
        self.assertEqual(super_of(image, 0)["magic"], b"\0" * 8)

    def test_no_place_left_names_the_range(self):
        image = self.path("image")
        self.write_poison(image, [(at, 512) for at in range(65536, 16 * MIB, 65536)])
        line = self.refused("-s", "16M", image)
        self.assertRegex(line, r"no place is left for the .*: known poison at \d+, \d+ bytes long, is in the way")
        self.assertFalse(os.path.exists(image))
        self.write_poison(image, [(slot, 4096) for slot in SLOTS[1:]])
        self.assertIn("superblock", self.refused("-s", "16M", image))
        self.made("-m", "single", "-s", "16M", image)

    def test_damaged_poison_file_is_refused_with_its_line(self):
        image = self.path("image")
        with open(image + ".poison", "w") as file:
            file.write("# mendfs poison for none\n0 10\nnonsense\n")
        self.assertIn("line 3", self.refused("-s", "16M", image))
        self.assertFalse(os.path.exists(image))

    def test_poison_stays_armed_and_is_tied_to_the_new_uuid(self):
        image = self.path("image")
        self.write_poison(image, [(20 * MIB, 10), (30 * MIB, 20, "latent")])
        answer, _ = self.made("-s", "64M", image)
        lines = self.read(image + ".poison").decode().splitlines()
        self.assertEqual(lines, [f"# mendfs poison for {answer['uuid']}", f"{20 * MIB} 10", f"{30 * MIB} 20 latent"])
        answer, _ = self.made("-f", image)
        self.assertIn(answer["uuid"], self.read(image + ".poison").decode())
        self.assertEqual(answer["known_poison_bytes"], 512)


class Mounted(Case):
    """What the daemon makes of it."""

    @classmethod
    def setUpClass(cls):
        harness.need_mounts()
        super().setUpClass()

    def test_every_size_and_mode_mounts_and_holds_files(self):
        for size in ["16M", "64M", "1G", "1T"]:
            for mode in ["dup", "single"]:
                image = self.make_image(size, "-m", mode, name=f"{size}-{mode}")
                mount = Mount(image, os.path.join(self.folder, "mnt"))
                try:
                    with open(mount.path("file"), "wb") as file:
                        file.write(b"x" * 100000)
                    mount.remount()
                    with open(mount.path("file"), "rb") as file:
                        self.assertEqual(file.read(), b"x" * 100000)
                finally:
                    mount.umount()
                os.unlink(image)

    def test_served_target_is_refused_even_with_force(self):
        image = self.make_image("64M")
        mount = self.mounted(image=image)
        for arguments in [[], ["-f"], ["-f", "-n"]]:
            started = time.monotonic()
            done = mkfs(*arguments, image, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertLess(time.monotonic() - started, 1)
            self.assertIn(str(mount.daemon.pid), done.stderr)
            self.assertIn(mount.directory, done.stderr)
        mount.umount()
        mkfs("-f", "-q", image)

    def test_poison_known_before_mkfs_is_in_the_ledger_of_the_first_mount(self):
        image = os.path.join(self.folder, "image")
        bad = [(5 * MIB, 1024), (20 * MIB + 512, 5000), (50 * MIB, 4096)]
        with open(image + ".poison", "w") as file:
            file.write("# mendfs poison for none\n" + "".join(f"{offset} {length}\n" for offset, length in bad))
        answer = json.loads(mkfs("--json", "-s", "64M", image).stdout)
        mount = self.mounted(image=image)
        found = mendctl_json("badblocks", mount.directory)
        expected = [(offset // 512 * 512, -(-(offset + length) // 512) * 512 - offset // 512 * 512) for offset, length in bad]
        self.assertEqual([(entry["device_offset"], entry["len"]) for entry in found], expected)
        self.assertEqual({entry["source"] for entry in found}, {"injected"})
        owners = mendctl_json("owners", mount.directory, "--all", "--kind", "quarantine")
        self.assertEqual(sum(owner["len"] for owner in owners), answer["quarantined_bytes"])
        listed = next(entry for entry in mendctl_json("list") if entry.get("uuid") == answer["uuid"])
        self.assertEqual(listed.get("sigbus_count", 0), 0)
        self.assertEqual(mendctl_json("damaged", mount.directory), [])

    def test_owners_cover_a_new_filesystem(self):
        mount = self.mounted(size="64M")
        owners = mendctl_json("owners", mount.directory, "--all")
        end = 0
        for owner in owners:
            self.assertEqual(owner["device_offset"], end)
            end += owner["len"]
        self.assertEqual(end, 64 * MIB)
        kinds = {owner["kind"] for owner in owners}
        self.assertEqual(kinds, {"superblock", "journal", "metadata", "free"})


if __name__ == "__main__":
    unittest.main()
