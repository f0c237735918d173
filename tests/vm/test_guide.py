"""docs/ADMIN.md without a virtual machine: it keeps the rules of guide.py, and its systemd units are good. `the_guide` runs its commands in a guest."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guide

UNIT = re.compile(r"/etc/systemd/system/(\S+)$")


def verify(units):
    """What systemd-analyze says against these (name: text)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, text in units.items():
            paths.append(os.path.join(folder, name))
            with open(paths[-1], "w") as file:
                file.write(text)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120, env=dict(os.environ, SYSTEMD_UNIT_PATH=f"{folder}:"))
        return done.returncode, "".join(line + "\n" for line in done.stdout.splitlines() if folder in line or any(name in line for name in units))


class Rules(unittest.TestCase):
    def refused(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".md") as file:
            file.write(text)
            file.flush()
            with self.assertRaises(guide.GuideError):
                guide.read(file.name)

    def test_the_guide_keeps_them(self):
        kinds = [block.kind for block in guide.read()]
        self.assertGreater(kinds.count("run"), 15)
        self.assertGreater(kinds.count("prints"), 15)
        self.assertEqual(kinds.count("file"), 5)

    def test_what_is_not_run_must_be_listed(self):
        self.refused("```sh not-run\nreboot\n```\n")
        self.refused("```sh not-run\nreboot\n```\n## What was not run\nNothing.\n")

    def test_a_block_of_no_kind_is_refused(self):
        self.refused("```bash\nls\n```\n")
        self.refused("```sh maybe\nls\n```\n")
        self.refused("```\nls\n```\n")

    def test_output_of_no_command_and_a_file_of_no_path_are_refused(self):
        self.refused("```text\nhello\n```\n")
        self.refused("```ini\n[Unit]\n```\n")

    def test_nothing_of_it_is_left_out(self):
        blocks = guide.read()
        names = list(guide.files(blocks))
        for kind in ("run", "file", "guest"):
            self.assertEqual(sum(name.endswith(f".{kind}") for name in names), sum(block.kind == kind for block in blocks))


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze not found")
class Units(unittest.TestCase):
    def units(self):
        """The alert's script is not on this machine: the program that it is run by stands in for it."""
        files = {block.path(): block.text for block in guide.read() if block.kind == "file"}
        found = {UNIT.match(path)[1]: text for path, text in files.items() if UNIT.match(path)}
        self.assertEqual(sorted(found), ["mendfs-alert.service", "srv-pmem.mount"])
        script = re.search(r"ExecStart=(\S+)", found["mendfs-alert.service"])[1]
        self.assertIn(script, files)
        found["mendfs-alert.service"] = found["mendfs-alert.service"].replace(script, "/bin/sh")
        return found

    def test_they_are_good(self):
        self.assertEqual(verify(self.units()), (0, ""))

    def test_a_bad_one_would_be_told(self):
        units = self.units()
        units["srv-pmem.mount"] = units["srv-pmem.mount"].replace("Where=/srv/pmem", "Where=/srv/elsewhere")
        status, text = verify(units)
        self.assertNotEqual((status, text), (0, ""))
        units = self.units()
        units["mendfs-alert.service"] = units["mendfs-alert.service"].replace("ExecStart=", "ExecStrat=")
        self.assertNotEqual(verify(units), (0, ""))


if __name__ == "__main__":
    if not shutil.which("systemd-analyze"):
        print("SKIP: systemd-analyze not found: the units of docs/ADMIN.md were not verified")
    unittest.main()
