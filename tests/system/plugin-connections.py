#!/usr/bin/python3
"""plugin-connections: several connections at once write and verify ranges of their own, and
overwrite one range together. Multi-conn promises that what one was answered the others see.
"""

import os
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect  # noqa: E402

CLIENTS = 6
OWN = 48 << 20      # bytes of each client's own range
SHARED = 4 << 20    # the range they all overwrite, after their own
ROUNDS = 700


def client(server, corpus, number, rng):
    """Writes, discards and verifies its own range, and in between throws pages at the shared one."""
    handle = server.connect()
    model = content.Model(OWN, base=number * OWN)
    source = content.Source(corpus, first=(number + 1) << 40)
    for _ in range(ROUNDS):
        length = rng.randrange(1, 400 * PAGE)
        offset = rng.randrange(OWN - length + 1)
        rng.choices((lambda: model.write(handle, offset, source.bytes(length)),
                     lambda: model.trim(handle, offset, length),
                     lambda: model.zero(handle, offset, length)), (90, 5, 5))[0]()
        model.check(handle, offset, length)
        pages = rng.randrange(1, 64)
        place = CLIENTS * OWN + rng.randrange(SHARED // PAGE - pages) * PAGE
        handle.pwrite(source.bytes(pages * PAGE), place)
        check_shared(handle, corpus, place, pages * PAGE)
    model.check_all(handle)
    content.enough(model.compared, 60_000)


def check_shared(handle, corpus, offset, length):
    """Whoever wrote a page last, it is whole (nbdkit memory does not promise that)."""
    if harness.STOCK:
        return
    got = handle.pread(length, offset)
    for at in range(0, length, PAGE):
        corpus.serial_of(got[at:at + PAGE], (offset + at) // PAGE)


def seen_by_others(server, source):
    """Each answered write is there for every other connection, at once."""
    handles = [server.connect() for _ in range(8)]
    for turn in range(2000):
        page = bytes(source.bytes(PAGE))
        handles[turn % 8].pwrite(page, (turn % 5) * PAGE)
        expect(handles[(turn * 3 + 1) % 8].pread(PAGE, (turn % 5) * PAGE) == page,
               f"turn {turn}: a connection does not see another's answered write")


def test():
    rng = harness.seeded()
    corpus = content.Corpus(rng)
    server = servers.device(str(CLIENTS * OWN + SHARED), "448M")
    seen_by_others(server, content.Source(corpus))
    server.connect().zero(5 * PAGE, 0)
    seeds = [type(rng)(rng.getrandbits(64)) for _ in range(CLIENTS)]
    workers = [harness.Worker(client, server, corpus, i, seeds[i]) for i in range(CLIENTS)]
    for worker in workers:
        worker.join()
    check_shared(server.connect(), corpus, CLIENTS * OWN, SHARED)
    expect(server.alive(), f"the server died; cores: {os.cpu_count()}")


harness.main(test)
