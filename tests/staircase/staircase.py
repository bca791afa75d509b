#!/usr/bin/env python3
"""Holds the include staircase.

    rooms      a folder that meson.build enters with subdir(); their order is the staircase
    contracts  include/farswap sees contracts only
    downward   a room sees contracts, itself, and what it may use of the rooms above it (USES)
    foreign    a foreign library's header is seen in its own rooms only (FOREIGN)

With --prove, each rule is broken once in a copy of the tree, and must be caught.
"""
import pathlib
import re
import shutil
import sys
import tempfile

# What a room may include besides contracts and itself. Rooms not named here: everything above them.
USES = {
    "common": [],
    "core": ["common"],
    "client/store": ["common"],
    "client/door": ["common", "client/store"],
    "server": ["common"],
}

# Header (as a prefix of what is included) -> the only places that may include it.
FOREIGN = {
    "nbdkit-plugin.h": ["nbdkit-plugin/"],
    "nbdkit-filter.h": ["nbdkit-plugin/"],
    "uv.h": ["server/", "client/store/"],
    "hiredis": ["server/", "client/store/"],
    "lz4": ["core/codec/lz4.c"],
    "zstd": ["core/codec/zstd.c", "bench/levels.c"],
    "zdict.h": ["bench/levels.c"],
    "xxhash.h": ["common/checksum.c"],
    "fuse": ["client/fuse/"],
    "libnbd.h": ["client/store/", "client/attach/", "bench/"],
    "netlink/": ["client/attach/"],
    "openssl/": ["client/store/"],
    "json-c/": ["client/cli/status_json.c"],
    "ncurses.h": ["client/cli/top.c"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
SUBDIR = re.compile(r"^\s*subdir\('([^']+)'\)", re.M)


def rooms_of(root):
    """The staircase, top step first. A subdir's own subdirs are part of it."""
    return SUBDIR.findall((root / "meson.build").read_text())


def room_of(path, rooms):
    fitting = [room for room in rooms if path.startswith(room + "/")]
    return max(fitting, key=len, default=None)


def resolve(root, path, kind, header):
    """What an include means: a path inside the tree, or None for a foreign header."""
    if header.startswith("farswap/"):
        return "include/" + header
    beside = (root / path).parent / header
    if kind == '"' and beside.exists():
        return str(beside.resolve().relative_to(root))
    return header if (root / header).exists() else None


def allowed_rooms(room, rooms):
    if room in USES:
        return USES[room]
    above = rooms[: rooms.index(room)]
    # A front door is not the base of another; tests and benchmarks may see all.
    return above if room in ("tests", "bench") else [r for r in above if r in USES and r != "server"]


def check_file(root, path, rooms):
    room = "include" if path.startswith("include/") else room_of(path, rooms)
    for kind, header in INCLUDE.findall((root / path).read_text(errors="replace")):
        target = resolve(root, path, kind, header)
        if target is None:
            if room in ("tests", "bench"):
                continue
            for prefix, places in FOREIGN.items():
                if header.startswith(prefix) and not any(path.startswith(p) for p in places):
                    yield f"{path}: includes <{header}>, which belongs to {', '.join(places)}"
            continue
        if target.startswith("include/"):
            continue
        if room == "include":
            yield f"{path}: a contract includes {target}, which is none"
            continue
        other = room_of(target, rooms)
        if room is None or other == room:
            continue
        if other not in allowed_rooms(room, rooms):
            yield f"{path}: includes {target}, and {room} may not look into {other}"


def check(root):
    rooms = rooms_of(root)
    complaints = []
    for room, uses in USES.items():
        if room not in rooms:
            complaints.append(f"meson.build: subdir('{room}') is missing")
            continue
        for other in uses:
            if other not in rooms[: rooms.index(room)]:
                complaints.append(f"meson.build: {room} comes before {other}, which it uses")
    if rooms and rooms[-1] != "tests":
        complaints.append(f"meson.build: {rooms[-1]} comes after tests")
    files = [
        p.relative_to(root).as_posix()
        for folder in ["include"] + rooms
        for p in sorted((root / folder).rglob("*.[ch]"))
    ]
    for path in sorted(set(files)):
        room = room_of(path, rooms)
        if room is None and not path.startswith("include/"):
            complaints.append(f"{path}: in no room of meson.build")
        complaints += check_file(root, path, rooms)
    if len(files) < 20:
        complaints.append(f"only {len(files)} files found: this looks at the wrong folder")
    return complaints


def add_line(path, line):
    return lambda root: (root / path).write_text(line + "\n" + (root / path).read_text())


def swap_rooms(root):
    build = root / "meson.build"
    text = build.read_text().replace("subdir('common')\nsubdir('core')", "subdir('core')\nsubdir('common')")
    build.write_text(text)


BREAKS = {
    "a contract includes core": add_line("include/farswap/store.h", '#include "core/entry.h"'),
    "common includes core": add_line("common/parse.c", '#include "core/entry.h"'),
    "core includes client/store": add_line("core/page.c", '#include "client/store/resp.h"'),
    "client/store includes core": add_line("client/store/resp.c", '#include "core/entry.h"'),
    "the plugin includes the server": add_line("nbdkit-plugin/farswap.c", '#include "server/value.h"'),
    "core includes nbdkit": add_line("core/page.c", "#include <nbdkit-plugin.h>"),
    "core includes libuv": add_line("core/page.c", "#include <uv.h>"),
    "the plugin includes hiredis": add_line("nbdkit-plugin/farswap.c", "#include <hiredis/hiredis.h>"),
    "device.c includes lz4": add_line("core/device.c", "#include <lz4.h>"),
    "object.c includes xxhash": add_line("core/object.c", "#include <xxhash.h>"),
    "core before common in meson.build": swap_rooms,
}


def prove(root):
    """Breaks each rule in a copy; returns how many breaks went unseen."""
    unseen = 0
    for name, break_it in BREAKS.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "tree"
            copy.mkdir()
            for part in ["meson.build", "include"] + rooms_of(root):
                source = root / part
                if source.is_file():
                    shutil.copy(source, copy / part)
                elif source.exists():
                    shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("*.o"))
            break_it(copy.resolve())
            complaints = check(copy.resolve())
            unseen += not complaints
            print(f"{'caught' if complaints else 'UNSEEN'}: {name}: {'; '.join(complaints)}")
    return unseen


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    complaints = check(root)
    for line in complaints:
        print(line)
    unseen = prove(root) if "--prove" in sys.argv and not complaints else 0
    return 1 if complaints or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
