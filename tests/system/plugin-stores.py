#!/usr/bin/python3
"""plugin-stores: a device several times its pool on each kind of store, against a model, also after a
kill -9 of its server; what the donor's memory, or the file, shows of its pages; and a mirror that
loses a donor for good.

Encrypted, nothing that was written may be found there; not encrypted, it must be, or the search is
blind.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from array import array

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, need, run, wait_for  # noqa: E402

SIZE = 96 << 20
POOL = 24 << 20
SHADOW = 1 << 40  # larger mappings are a sanitizer's own


def folder():
    """Not in the working directory, which may be on a file system in memory."""
    made = tempfile.mkdtemp(prefix=f"fsw-{os.getpid()}-", dir="/var/tmp")
    harness.at_exit(shutil.rmtree, made, True)
    return made


def needles(corpus):
    """Pieces of the pages that every codec keeps as they are: they are noise."""
    return [corpus.text[at:at + 32] for at in range(1000, 16 * PAGE, PAGE)]


def resident(pagemap, first, last):
    """The runs of pages that are in memory. What is not must not be read: that would put it there."""
    pagemap.seek(first // PAGE * 8)
    words = array("Q", pagemap.read((last - first) // PAGE * 8))
    begin = None
    for number, word in enumerate(words):
        if word >> 63 and begin is None:
            begin = number
        elif not word >> 63 and begin is not None:
            yield first + begin * PAGE, first + number * PAGE
            begin = None
    if begin is not None:
        yield first + begin * PAGE, first + len(words) * PAGE


def memory_of(pid):
    """What a process has in memory, piece by piece. (A sanitizer's shadow holds none of our bytes.)"""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory, \
            open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap:
        for line in maps:
            first, last, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
            if "w" not in rights or int(last, 16) - int(first, 16) > SHADOW:
                continue
            for at, end in resident(pagemap, int(first, 16), int(last, 16)):
                memory.seek(at)
                yield memory.read(end - at)


def bytes_of(path):
    with open(path, "rb") as file:
        while piece := file.read(16 << 20):
            yield piece


def found(pieces, corpus):
    return sum(any(needle in piece for needle in needles(corpus)) for piece in pieces)


def fill(server, rng, corpus):
    handle, model = server.connect(), content.Model(SIZE)
    source = content.Source(corpus)
    for offset in range(0, SIZE, 4 << 20):
        model.write(handle, offset, source.bytes(4 << 20))
    for _ in range(200):
        length = rng.randrange(1, 64 * PAGE)
        offset = rng.randrange(SIZE - length + 1)
        verb = rng.choices(("write", "trim", "check"), (45, 6, 49))[0]
        if verb == "write":
            model.write(handle, offset, source.bytes(length))
        else:
            getattr(model, verb)(handle, offset, length)
    model.check_all(handle, 4 << 20)
    return model


def sane(server):
    counters = server.counters()
    expect(counters["overflow_pages"] > 10_000, f"{counters['overflow_pages']} pages overflowed")
    for name in ("corrupt_pages", "store_lost_pages", "failed_reads", "failed_writes"):
        expect(counters[name] == 0, f"{name} is {counters[name]}")


def next_server(server):
    """After a kill -9, by name alone: the image says where the pages are, and has the key."""
    server.kill()
    return servers.device(None, str(POOL), name=server.parameters["name"])


def one(rng, corpus, overflow, pieces, encrypted):
    server = servers.device(str(SIZE), str(POOL), patient=True, overflow=overflow)
    model = fill(server, rng, corpus)
    hits = found(pieces(), corpus)
    print(f"{overflow}: {hits} pieces with what was written")
    expect((hits == 0) == encrypted, f"{overflow}: {hits} pieces show what was written")
    server = next_server(server)
    model.check_all(server.connect(), 4 << 20)
    sane(server)
    server.check()
    server.destroy()


def has_two_copies(server):
    """And nothing leaves any more: a page has one copy for as long as a donor is slow."""
    before = server.counters()["overflow_segments"]
    time.sleep(0.5)  # nothing leaves in that time
    now = server.counters()
    return now["segments_lacking"] == 0 and now["overflow_segments"] == before


def mirror(rng, corpus):
    donors = [servers.Donor("1G"), servers.Donor("1G")]
    server = servers.device(str(SIZE), str(POOL), patient=True, overflow=" ".join(d.uri for d in donors))
    model = fill(server, rng, corpus)
    wait_for(lambda: has_two_copies(server), 240, "every segment to have two copies")
    donors[0].process.kill()
    model.check_all(server.connect(), 4 << 20)
    sane(server)
    server = next_server(server)  # one donor is enough
    model.check_all(server.connect(), 4 << 20)
    sane(server)
    server.stop()
    name = server.parameters["name"]
    for _ in range(servers.LATE_TRIES):
        began = time.monotonic()
        done = server.cli("destroy", name)
        expect(done.returncode != 0 and "--local" in done.stderr, f"{done.stdout}{done.stderr}")
        left = run([need("redis-cli"), "-s", donors[1].socket, "dbsize"]).stdout.strip()
        if left == "0" or time.monotonic() < began + 3:  # else it was perhaps late
            break
    expect(left == "0", "the donor that answers was not told to forget")
    done = server.cli("destroy", "--local", name)
    expect(done.returncode == 0, f"{done.stdout}{done.stderr}")


def test():
    rng = harness.seeded()
    corpus = content.Corpus(rng)
    if harness.STOCK:
        return
    donor, path = servers.Donor("1G"), os.path.join(folder(), "overflow")
    memory = lambda: memory_of(donor.process.pid)  # noqa: E731
    for crypt in ("", "crypt+"):
        one(rng, corpus, f"{crypt}file:{path}", lambda: bytes_of(path), crypt != "")
        expect(not os.path.exists(path), "destroy leaves the file behind")
    for crypt in ("crypt+", ""):  # in this order: what was dropped is not overwritten at once
        one(rng, corpus, crypt + donor.uri, memory, crypt != "")
    mirror(rng, corpus)


harness.main(test)
