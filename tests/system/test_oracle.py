#!/usr/bin/env python3
"""A random tree of unique contents with clones, partial clones and hard links; poison at 50 random places of its data; owners, paths, the damaged
list, EIO blocks and all other bytes compared with an oracle, before and after a remount.

The oracle is built from what the test itself wrote: every 4 KiB block written carries a number of its own, so who shares a block follows from the model
of the files, and where it lies on the device from looking for its bytes in the image file. mendctl's output is only ever the thing compared.
"""
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from harness import BLOCK, mendctl, mendctl_json

SEED = int(os.environ.get("MENDFS_SEED") or random.SystemRandom().randrange(1 << 32))
PLACES = 50


def block_bytes(number, length=BLOCK):
    """Block `number`'s content: unique, and recognisable in the image."""
    stamp = b"mendfs-oracle %016x " % number
    return (stamp * (BLOCK // len(stamp) + 1))[:length]


class Model:
    """What the test wrote: inode -> list of block numbers and the size; names -> inode."""

    def __init__(self):
        self.files = {}  # key -> {"blocks": [number or None], "size": n}
        self.names = {}  # path from the mount's root -> key
        self.lengths = {}  # block number -> bytes that carry content
        self.next_block = 1
        self.next_key = 1

    def new_file(self, path, blocks, size):
        key = self.next_key
        self.next_key += 1
        self.files[key] = {"blocks": blocks, "size": size}
        self.names[path] = key
        return key

    def paths(self, key):
        return {path for path, other in self.names.items() if other == key}

    def holders(self, number):
        """(key, index) of every place where this block is mapped."""
        return {(key, index) for key, file in self.files.items() for index, block in enumerate(file["blocks"]) if block == number}

    def content(self, key):
        file = self.files[key]
        data = b"".join(bytes(BLOCK) if block is None else block_bytes(block) for block in file["blocks"])
        return data[:file["size"]]


def damage_of(model, bad_numbers):
    """key -> set of bad block indexes."""
    damage = {}
    for number in bad_numbers:
        for key, index in model.holders(number):
            damage.setdefault(key, set()).add(index)
    return damage


def ranges_of(model, key, indexes):
    """Contiguous byte ranges, clipped to the end of the file."""
    out = []
    for index in sorted(indexes):
        pos = index * BLOCK
        length = min(BLOCK, model.files[key]["size"] - pos)
        if out and out[-1][0] + out[-1][1] == pos:
            out[-1] = (out[-1][0], out[-1][1] + length)
        else:
            out.append((pos, length))
    return out


def compare_damaged(model, damage, listed):
    """Differences between the oracle's damage and `mendctl damaged`; [] when equal."""
    expected = {frozenset(model.paths(key)): ranges_of(model, key, indexes) for key, indexes in damage.items()}
    found = {frozenset(item["paths"]): sorted((r["pos"], r["len"]) for r in item["ranges"]) for item in listed}
    return [f"{sorted(paths)}: expected {expected.get(paths)}, listed {found.get(paths)}"
            for paths in expected.keys() | found.keys() if expected.get(paths) != found.get(paths)]


def compare_owners(model, number, offset, owners):
    expected = {(frozenset(model.paths(key)), index * BLOCK, offset) for key, index in model.holders(number)}
    found = {(frozenset(owner["paths"]), owner["pos"], owner["device_offset"]) for owner in owners if owner["kind"] == "data"}
    return [] if expected == found and len(owners) == len(expected) else [f"expected {expected}, found {found}"]


class Oracle(harness.Case):
    fsck_after = True

    def setUp(self):
        super().setUp()
        print(f"seed {SEED} (rerun with MENDFS_SEED={SEED})", flush=True)
        self.random = random.Random(SEED)
        self.mount = self.mounted(size="256M")
        self.model = Model()

    def write_file(self, path):
        count = self.random.randrange(1, 40)
        size = count * BLOCK - self.random.choice((0, 0, self.random.randrange(BLOCK)))
        blocks = list(range(self.model.next_block, self.model.next_block + count))
        self.model.next_block += count
        key = self.model.new_file(path, blocks, size)
        with open(self.mount.path(path[1:]), "wb") as file:
            file.write(self.model.content(key))

    def clone(self, source, path):
        harness.run("cp", self.mount.path(source[1:]), self.mount.path(path[1:]))
        file = self.model.files[self.model.names[source]]
        self.model.new_file(path, list(file["blocks"]), file["size"])

    def partial_clone(self, source, path):
        """Some aligned blocks of the source into a file of its own, at another offset."""
        file = self.model.files[self.model.names[source]]
        whole = file["size"] // BLOCK
        if not whole:
            return
        start = self.random.randrange(whole)
        count = self.random.randrange(1, whole - start + 1)
        at = self.random.randrange(8)
        with open(self.mount.path(source[1:]), "rb") as src, open(self.mount.path(path[1:]), "wb") as dst:
            done = 0
            while done < count * BLOCK:
                done += os.copy_file_range(src.fileno(), dst.fileno(), count * BLOCK - done, start * BLOCK + done, at * BLOCK + done)
        blocks = [None] * at + file["blocks"][start:start + count]
        self.model.new_file(path, blocks, len(blocks) * BLOCK)

    def link(self, source, path):
        os.link(self.mount.path(source[1:]), self.mount.path(path[1:]))
        self.model.names[path] = self.model.names[source]

    def populate(self):
        folders = [""]
        for i in range(12):
            folder = self.random.choice(folders) + f"/dir{i}"
            os.mkdir(self.mount.path(folder[1:]))
            folders.append(folder)
        for i in range(60):
            self.write_file(self.random.choice(folders) + f"/file{i}")
        steps = [self.clone] * 3 + [self.partial_clone] * 3 + [self.link] * 2
        for i in range(120):
            source = self.random.choice(sorted(self.model.names))
            self.random.choice(steps)(source, self.random.choice(folders) + f"/more{i}")
        harness.run("sync", "-f", self.mount.directory)
        mendctl("sync", self.mount.directory)

    def locate(self):
        """block number -> device offset, by its bytes in the image."""
        with open(self.mount.image, "rb") as image:
            data = image.read()
        places = {}
        for offset in range(0, len(data), BLOCK):
            if data.startswith(b"mendfs-oracle ", offset):
                if data[offset + 29] == 0:
                    continue  # a tail so short that its own number is cut off: not one to poison
                number = int(data[offset + 14:offset + 30], 16)
                places.setdefault(number, []).append(offset)
        live = {block for file in self.model.files.values() for block in file["blocks"] if block}
        # The unaligned tail of a copy may be a copy of its own: only blocks with one place are poisoned.
        return {number: where[0] for number, where in places.items() if number in live and len(where) == 1}

    def check_contents(self, damage):
        for path, key in sorted(self.model.names.items()):
            expected = self.model.content(key)
            bad = damage.get(key, set())
            with open(self.mount.path(path[1:]), "rb", buffering=0) as file:
                self.assertEqual(os.fstat(file.fileno()).st_size, len(expected), path)
                for index in range(-(-len(expected) // BLOCK)):
                    try:
                        got = os.pread(file.fileno(), BLOCK, index * BLOCK)
                    except OSError as error:
                        self.assertEqual(error.errno, 5, path)
                        self.assertIn(index, bad, f"{path}: EIO in good block {index}")
                        continue
                    self.assertNotIn(index, bad, f"{path}: bad block {index} could be read")
                    self.assertEqual(got, expected[index * BLOCK:(index + 1) * BLOCK], f"{path}: wrong bytes in block {index}")

    def check_all(self, places, bad):
        damage = damage_of(self.model, bad)
        self.assertEqual(compare_damaged(self.model, damage, mendctl_json("damaged", self.mount.directory)), [])
        for number in bad:
            owners = mendctl_json("owners", self.mount.directory, "--offset", places[number], "--length", BLOCK)
            self.assertEqual(compare_owners(self.model, number, places[number], owners), [])
        self.check_contents(damage)

    def check_broken_twins(self, places, bad):
        """The comparison itself must be able to fail: one owner dropped, one block off."""
        damage = damage_of(self.model, bad)
        listed = mendctl_json("damaged", self.mount.directory)
        self.assertTrue(compare_damaged(self.model, damage, listed[1:]), "a dropped file went unnoticed")
        shifted = [dict(item, ranges=[dict(r, pos=r["pos"] + BLOCK) for r in item["ranges"]]) for item in listed]
        self.assertTrue(compare_damaged(self.model, damage, shifted), "a shifted block went unnoticed")
        number = max(bad, key=lambda n: len(self.model.holders(n)))
        owners = mendctl_json("owners", self.mount.directory, "--offset", places[number], "--length", BLOCK)
        self.assertTrue(compare_owners(self.model, number, places[number], owners[1:]), "a dropped owner went unnoticed")
        off = [dict(owner, pos=owner.get("pos", 0) + BLOCK) for owner in owners]
        self.assertTrue(compare_owners(self.model, number, places[number], off), "an owner one block off went unnoticed")

    def test_every_owner_path_and_byte_is_right_after_fifty_poisons_and_a_remount(self):
        self.populate()
        places = self.locate()
        shared = [number for number in places if len(self.model.holders(number)) > 1]
        alone = [number for number in places if len(self.model.holders(number)) == 1]
        self.assertGreater(len(shared), PLACES)
        bad = set(self.random.sample(shared, PLACES * 3 // 5)) | set(self.random.sample(alone, PLACES * 2 // 5))
        self.assertEqual(len(bad), PLACES)
        for number in sorted(bad):
            # Anywhere in what the shortest holder has of this block, so that every holder is hit within its size.
            room = min(min(BLOCK, self.model.files[key]["size"] - index * BLOCK) for key, index in self.model.holders(number))
            byte = self.random.randrange(room)
            mendctl("inject-error", self.mount.directory, "--device-offset", places[number] + byte, "--length",
                    self.random.randrange(1, min(64, room - byte) + 1))
        self.check_all(places, bad)
        self.check_broken_twins(places, bad)
        self.mount.remount()
        self.check_all(places, bad)
        self.assertEqual(mendctl_json("check", self.mount.directory), [])


if __name__ == "__main__":
    harness.need_mounts()
    unittest.main()
