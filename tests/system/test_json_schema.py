#!/usr/bin/env python3
"""Every JSON output and event against its schema, and mendctl on mounted and unmounted filesystems."""
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, program, run

try:
    import schema
except ImportError:
    print("SKIP: needs python3-jsonschema")
    raise SystemExit(77) from None

harness.need_mounts()
ODD_NAME = b"odd\xff\n\x1b[31m"


def ask(command, *arguments, **more):
    """The whole answer, validated."""
    answer = json.loads(mendctl(command, *arguments, "--json", **more).stdout)
    schema.validate(command, answer)
    return answer


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Schemas(unittest.TestCase):
    def test_a_wrong_object_is_told_from_a_right_one(self):
        right = {"version": 1, "extents": [{"pos": 0, "len": 4096, "device_offset": 0, "shared": False, "written": True, "new": 1}]}
        schema.validate("map", right)
        for wrong in ({"extents": []}, {"version": 2, "extents": []}, {"version": 1}, {"version": 1, "extents": [{"pos": -1}]},
                      {"version": 1, "extents": [{**right["extents"][0], "shared": 0}]}):
            with self.assertRaises(AssertionError):
                schema.validate("map", wrong)

    def test_what_only_hardware_tells_has_a_schema_too(self):
        base = {"version": 1, "time_ns": 1, "uuid": "00000000-0000-0000-0000-000000000000"}
        event = {**base, "type": "dimm_health", "domain": "datadev", "dimm": "nmem0", "health": "critical", "alarms": ["spares"],
                 "spares_percent": 3, "temperature_celsius": -1.5}
        schema.validate("event", event)
        done = {"kind": "hardware", "bus": "ndbus0", "state": "finished", "started": True, "duration_ns": 1, "listed_bytes": 0, "found_bytes": 0}
        schema.validate("scrub", {"version": 1, "scrubs": [done]})
        unknown = {"version": 1, "badblocks": [], "kernel_list": {"state": "unknown", "reason": "for root only"}}
        schema.validate("badblocks", unknown)
        for name, wrong in (("event", {**event, "health": "unwell"}), ("event", {**event, "alarms": "spares"}),
                            ("scrub", {"version": 1, "scrubs": [{**done, "kind": "soft"}]}),
                            ("badblocks", {**unknown, "kernel_list": {"reason": "none"}})):
            with self.assertRaises(AssertionError):
                schema.validate(name, wrong)

    def test_an_event_lacking_a_key_of_its_type_is_refused(self):
        event = {"version": 1, "type": "lost", "time_ns": 1, "domain": "mount", "mountpoint": "/m", "count": 3,
                 "uuid": "00000000-0000-0000-0000-000000000000"}
        schema.validate("event", event)
        with self.assertRaises(AssertionError):
            schema.validate("event", {key: value for key, value in event.items() if key != "count"})
        with self.assertRaises(AssertionError):
            schema.validate("event", {**event, "type": "no such type"})

    def test_every_schema_is_a_schema(self):
        for name in schema.names():
            schema.validator(name)


class Mounted(harness.Case):
    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="64M")
        self.file = self.mount.path("f")
        with open(self.file, "wb") as file:
            file.write(os.urandom(8 * BLOCK))
        run("cp", self.file, self.mount.path("copy"))
        self.odd = os.path.join(os.fsencode(self.mount.directory), ODD_NAME)
        os.link(os.fsencode(self.file), self.odd)

    def test_every_command_answers_as_its_schema_says(self):
        where = self.mount.directory
        self.assertEqual(ask("list", where)["filesystems"][0]["mountpoint"], where)
        self.assertIn(where, [item.get("mountpoint") for item in ask("list")["filesystems"]])
        self.assertTrue(all(extent["shared"] for extent in ask("map", self.file)["extents"]))
        self.assertTrue(ask("owners", where, "--all")["owners"])
        self.assertTrue(ask("owners", where, "--sector", "0", "--count", "8")["owners"])
        self.assertEqual(ask("badblocks", where)["badblocks"], [])
        self.assertEqual(ask("damaged", where)["damaged"], [])
        injected = ask("inject-error", where, "--file", self.file, "--offset", BLOCK - 1, "--length", 2)["injected"]
        self.assertEqual(sum(item["len"] for item in injected), 2)
        self.assertTrue(ask("badblocks", where)["badblocks"])
        damaged = ask("damaged", where)["damaged"]
        self.assertEqual(len(damaged), 2)
        self.assertEqual(ask("uninject-error", where, "--all")["removed"], injected)
        self.assertTrue(ask("stats", where)["requests"])
        self.assertEqual(ask("clone", self.file, self.mount.path("clone"))["cloned"][0]["len"], 8 * BLOCK)
        self.assertEqual(ask("check", where)["findings"], [])
        self.assertEqual(len(ask("sync", where)["synced"]), 1)
        self.assertEqual(len(ask("drop-caches", where)["dropped"]), 1)
        self.assertEqual([item["program"] for item in ask("version", where)["programs"]], ["mendctl", "mendfs"])

    def test_a_scrub_of_what_no_bus_scrubs_says_so(self):
        for target in (self.mount.directory, self.file):
            done = mendctl("scrub", "--hardware", target, check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("no NVDIMM", done.stderr)
        done = mendctl("scrub", self.mount.directory, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--hardware", done.stderr)
        self.assertNotIn("kernel_badblocks", ask("list", self.mount.directory)["filesystems"][0])

    def test_every_event_is_as_its_schema_says(self):
        monitor = self.monitor(self.mount.directory)
        mendctl("inject-error", self.mount.directory, "--file", self.file, "--offset", 0, "--length", 1)
        for kind in ("media_failure", "file_damaged", "file_damaged"):
            monitor.wait(kind)
        with open(self.file, "r+b") as file:
            file.write(bytes(BLOCK))
        mendctl("uninject-error", self.mount.directory, "--all")
        self.mount.umount()
        monitor.wait("unmount")
        for event in monitor.all:
            schema.validate("event", event)
        self.assertEqual(monitor.all[0]["type"], "running")
        self.assertEqual(monitor.process.wait(harness.TIMEOUT), 0)

    def test_of_lost_metadata_event_and_list_say_what_is_known(self):
        where = self.mount.directory
        self.mount.remount()
        victim = [o for o in ask("owners", where, "--all")["owners"] if o.get("tree") == "extents" and o["copy"] == "primary"][0]
        monitor = self.monitor(where)
        for offset in (victim["device_offset"], victim["peer_offset"]):
            mendctl("inject-error", where, "--device-offset", offset, "--length", BLOCK, "--latent")
        mendctl("drop-caches", where)
        with self.assertRaises(OSError):
            with open(self.file, "rb") as file:
                file.read()
        event = monitor.wait("metadata_lost")
        for one in monitor.all:
            schema.validate("event", one)
        self.assertEqual((event["tree"], event["files"]), ("extents", 2))
        self.assertTrue(any("paths_raw" in file for file in event["first_files"]))
        listed = ask("list", where)["filesystems"][0]
        self.assertEqual((listed["state"], listed["state_reason"], listed["lost_metadata_blocks"]), ("readonly", "metadata_lost", 1))
        wrong = {**event, "advice": ""}
        with self.assertRaises(AssertionError):
            schema.validate("event", wrong)

    def test_a_name_that_is_not_utf8_is_in_paths_raw(self):
        owners = ask("owners", self.mount.directory, "--all", "--kind", "data")["owners"]
        element = next(owner for owner in owners if len(owner["paths"]) == 2)
        self.assertEqual({base64.b64decode(raw) for raw in element["paths_raw"]}, {b"/f", b"/" + ODD_NAME})
        self.assertIn("/odd\ufffd\n\x1b[31m", element["paths"])
        plain = next(owner for owner in owners if owner["paths"] == ["/copy"])
        self.assertNotIn("paths_raw", plain)

    def test_a_table_never_sends_control_characters_to_the_terminal(self):
        done = subprocess.run([program("mendctl"), "owners", self.mount.directory, "--all"], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=harness.TIMEOUT, check=True)
        self.assertNotIn(b"\x1b", done.stdout)
        self.assertIn(rb"\012\033[31m", done.stdout)

    def test_files_are_named_as_the_shell_sees_them_or_from_the_root(self):
        extents = ask("map", self.file)["extents"]
        self.assertEqual(ask("map", "f", cwd=self.mount.directory)["extents"], extents)
        self.assertEqual(ask("map", self.mount.directory, "/f")["extents"], extents)
        self.assertEqual(ask("map", self.mount.image, "--file", "/f")["extents"], extents)
        link = os.path.join(self.folder, "link")
        os.symlink(self.file, link)
        self.assertEqual(ask("map", link)["extents"], extents)
        self.assertEqual(ask("list", link)["filesystems"], ask("list", self.mount.image)["filesystems"])

    def test_a_clone_refuses_what_exists_unless_forced(self):
        copy = self.mount.path("copy")
        refused = mendctl("clone", self.file, copy, check=False)
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("-f", refused.stderr)
        with open(copy, "ab") as file:
            file.write(b"longer than its source")
        mendctl("clone", "-f", self.file, copy)
        self.assertEqual(file_hash(copy), file_hash(self.file))
        self.assertEqual(mendctl("clone", self.file, os.path.join(self.folder, "outside"), check=False).returncode, 1)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "outside")))

    def as_stranger(self, *words):
        """mendctl as another user; the programs may lie where that user cannot go."""
        os.chmod(self.folder, 0o755)
        copy = os.path.join(self.folder, "mendctl")
        shutil.copy(program("mendctl"), copy)
        return subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", copy, *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=harness.TIMEOUT, check=False)

    def test_strangers_clone_with_their_own_rights(self):
        os.chmod(self.mount.directory, 0o777)
        clone = self.mount.path("clone")
        done = self.as_stranger("clone", self.file, clone)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(file_hash(clone), file_hash(self.file))
        self.assertEqual(os.stat(clone).st_uid, 65534)
        self.assertTrue(all(extent["shared"] for extent in ask("map", clone)["extents"]))
        os.chmod(self.file, 0o600)
        done = self.as_stranger("clone", self.file, self.mount.path("other"))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertFalse(os.path.exists(self.mount.path("other")))

    def test_strangers_may_not_command(self):
        done = self.as_stranger("damaged", self.mount.directory)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("as root", done.stderr)


class Unmounted(harness.Case):
    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="64M")
        with open(self.mount.path("f"), "wb") as file:
            file.write(os.urandom(4 * BLOCK))
        self.extents = ask("map", self.mount.path("f"))["extents"]
        self.mount.umount()
        self.image = self.mount.image

    def test_queries_answer_and_write_not_one_byte(self):
        before, listing = file_hash(self.image), sorted(os.listdir(self.folder))
        filesystem = ask("list", self.image)["filesystems"][0]
        self.assertNotIn("mountpoint", filesystem)
        self.assertEqual(filesystem["state"], "ok")
        self.assertEqual(filesystem["device"], self.image)
        self.assertEqual(ask("map", self.image, "/f")["extents"], self.extents)
        owners = ask("owners", self.image, "--offset", self.extents[0]["device_offset"], "--length", 1)["owners"]
        self.assertEqual(owners[0]["paths"], ["/f"])
        self.assertTrue(ask("owners", self.image, "--all", "--kind", "metadata")["owners"])
        self.assertEqual(ask("badblocks", self.image)["badblocks"], [])
        self.assertEqual(ask("damaged", self.image)["damaged"], [])
        self.assertEqual(ask("check", self.image)["findings"], [])
        self.assertEqual(file_hash(self.image), before)
        self.assertEqual(sorted(os.listdir(self.folder)), listing)

    def test_injecting_writes_the_poison_file_only_and_the_next_mount_knows(self):
        before = file_hash(self.image)
        injected = ask("inject-error", self.image, "--file", "/f", "--offset", 5000, "--length", 10)["injected"]
        self.assertEqual(injected, [{"device_offset": self.extents[0]["device_offset"] + 5000, "len": 10}])
        self.assertEqual(file_hash(self.image), before)
        with open(self.image + ".poison") as file:
            self.assertIn(f"{injected[0]['device_offset']} 10", file.read())
        self.mount.mount()
        damaged = ask("damaged", self.mount.directory)["damaged"]
        self.assertEqual([item["paths"] for item in damaged], [["/f"]])

    def test_taking_back_leaves_no_trace_at_the_next_mount(self):
        ask("inject-error", self.image, "--file", "/f", "--offset", 5000, "--length", 10)
        self.mount.remount()
        self.assertTrue(ask("badblocks", self.mount.directory)["badblocks"])
        self.mount.umount()
        self.assertEqual(ask("uninject-error", self.image, "--all")["removed"][0]["len"], 10)
        self.mount.mount()
        self.assertEqual(ask("badblocks", self.mount.directory)["badblocks"], [])
        self.assertEqual(ask("damaged", self.mount.directory)["damaged"], [])

    def test_a_bare_image_can_be_poisoned(self):
        bare = os.path.join(self.folder, "bare")
        with open(bare, "wb") as file:
            file.truncate(16 << 20)
        ask("inject-error", bare, "--device-offset", 123, "--length", 4, "--latent")
        with open(bare + ".poison") as file:
            text = file.read()
        self.assertIn("for none", text)
        self.assertIn("123 4 latent", text)
        self.assertEqual(ask("uninject-error", bare, "--device-offset", 125, "--length", 1)["removed"],
                         [{"device_offset": 125, "len": 1}])

    def test_commands_for_mounts_say_how_to_mount(self):
        for command in ("monitor", "stats", "sync", "drop-caches", "shutdown"):
            done = mendctl(command, self.image, check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertEqual(len(done.stderr.splitlines()), 1)
            self.assertIn(f"mendfs {self.image} DIR", done.stderr)

    def test_mkfs_says_what_it_made(self):
        image = os.path.join(self.folder, "new")
        schema.validate("mkfs", json.loads(run(program("mkfs.mendfs"), "-s", "64M", "-L", "name", "--json", image).stdout))


class Dead(harness.Case):
    def setUp(self):
        super().setUp()
        self.mount = self.mounted(size="64M")

    def kill(self):
        self.mount.daemon.kill()
        self.mount.daemon.wait(harness.TIMEOUT)
        self.mount.daemon = None

    def test_a_dead_mount_is_named_with_the_line_that_clears_it(self):
        self.kill()
        for words in (["damaged", self.mount.directory], ["map", self.mount.path("some", "file")], ["damaged", "mnt"]):
            done = mendctl(*words, check=False, cwd=self.folder)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertEqual(len(done.stderr.splitlines()), 1)
            self.assertIn(f"fusermount3 -u {self.mount.directory}", done.stderr)
        everything = mendctl("list", "--json")
        self.assertIn(f"fusermount3 -u {self.mount.directory}", everything.stderr)
        schema.validate("list", json.loads(everything.stdout))
        self.assertEqual(ask("list", self.mount.image)["filesystems"][0]["state"], "ok")

    def test_a_monitor_says_that_the_daemon_is_gone(self):
        monitor = self.monitor(self.mount.directory)
        self.kill()
        self.assertEqual(monitor.process.wait(harness.TIMEOUT), 1)
        self.assertEqual(len(monitor.process.stderr.read().splitlines()), 1)

    def test_commands_find_the_mount_by_its_relative_image_while_it_is_mounted(self):
        self.assertEqual(ask("list", "image", cwd=self.folder)["filesystems"][0]["mountpoint"], self.mount.directory)


class Help(unittest.TestCase):
    def test_every_command_has_help_and_version(self):
        listing = mendctl("--help").stdout
        for command in ("list", "map", "owners", "badblocks", "damaged", "inject-error", "uninject-error", "monitor", "clone", "stats",
                        "check", "sync", "drop-caches", "version", "label", "uuid", "resize", "shutdown"):
            self.assertIn(f"\n  {command}", listing)
            self.assertTrue(mendctl(command, "-h").stdout.startswith(f"usage: mendctl {command}"))
            self.assertTrue(mendctl(command, "-V").stdout.startswith("mendctl "))

    def test_usage_errors_are_one_line_and_exit_2(self):
        for words in ([], ["nothing"], ["list", "--nothing"], ["owners"], ["owners", "/"], ["owners", "/", "--offset", "1"],
                      ["owners", "/", "--all", "--kind", "x"], ["owners", "/", "--offset", "-1", "--length", "1"],
                      ["inject-error", "/", "--length", "1"], ["inject-error", "/", "--device-offset", "1", "--length", "0"],
                      ["damaged", "/", "--all"], ["clone", "a"], ["label"], ["resize", "/", "big"], ["resize", "/", "0"], ["shutdown"],
                      ["shutdown", "/", "--mode", "x"]):
            done = mendctl(*words, check=False)
            self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (2, "", 1), words)


if __name__ == "__main__":
    unittest.main()
