#!/usr/bin/env python3
"""What a mounted tree holds, as JSON: manifest.py DIR. Names that are not UTF-8 and symlink targets are escaped as Python does it for file names."""
import hashlib
import json
import os
import stat
import sys


def contents(path):
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 16):
                digest.update(piece)
    except OSError as error:
        return f"error {error.errno}"
    return digest.hexdigest()


def entry(path):
    st = os.lstat(path)
    values = {"mode": oct(st.st_mode), "uid": st.st_uid, "gid": st.st_gid, "nlink": st.st_nlink, "ino": st.st_ino,
              "size": st.st_size, "blocks": st.st_blocks, "mtime_ns": st.st_mtime_ns}
    if stat.S_ISLNK(st.st_mode):
        values["target"] = os.readlink(path)
    if stat.S_ISREG(st.st_mode):
        values["sha256"] = contents(path)
    return values


def manifest(root):
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root).encode("utf-8", "surrogateescape").decode("latin-1")] = entry(path)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    print(json.dumps(manifest(sys.argv[1]), indent=0, sort_keys=True))
