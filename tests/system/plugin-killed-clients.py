#!/usr/bin/python3
"""plugin-killed-clients: 1000 clients vanish with 64 requests in flight each, while other
connections write and verify.

nbdkit before 1.33.11 aborts when that happens unless the plugin serves one request a connection
(run with FARSWAP_TEST_STOCK=1 to see it). Four of five clients close their socket without a word,
the fifth is a process ended by SIGKILL. Afterwards the server lives, the verifiers saw only their
own data, and every page that the dead wrote is whole: an older one, a newer one, or zero.
"""

import os
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import nbd  # noqa: E402

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect  # noqa: E402

CLIENTS = 1000
IN_FLIGHT = 64
VERIFIERS = 3
OWN = 64 << 20   # bytes of each verifier
ENOUGH = 40_000  # pages that each compares
DEAD = 64 << 20  # the range of those who vanish, after the verifiers'


def fill_the_wire(server, source, rng):
    """A connection with 64 requests of all kinds in flight, none of them waited for."""
    handle = server.connect()
    handle.buffers = []  # alive as long as the connection
    for _ in range(IN_FLIGHT):
        length = rng.choice((1, 1, 2, 16)) * PAGE
        offset = VERIFIERS * OWN + rng.randrange((DEAD - length) // PAGE) * PAGE
        verb = rng.choices(("write", "read", "trim"), (5, 4, 1))[0]
        if verb == "trim":
            handle.aio_trim(length, offset)
            continue
        data = source.bytes(length) if verb == "write" else bytearray(length)
        handle.buffers.append(nbd.Buffer.from_bytearray(data))
        {"write": handle.aio_pwrite, "read": handle.aio_pread}[verb](handle.buffers[-1], offset)
    expect(handle.aio_in_flight() > 0, "nothing is in flight")
    return handle


def killed_process(server, source, rng, ready):
    handle = fill_the_wire(server, source, rng)
    os.write(ready, b"x")
    while True:
        handle.poll(-1)


def drop_all(server, source, rng):
    for number in range(CLIENTS):
        if number % 5 == 4:
            read_end, write_end = os.pipe()
            worker = harness.Worker(killed_process, server, source, rng, write_end)
            os.close(write_end)
            os.read(read_end, 1)
            os.close(read_end)
            worker.kill()
            source.serial += IN_FLIGHT * 16  # what the child made
            rng.random()
        else:
            fill_the_wire(server, source, rng)  # closed when the last reference goes: here
        expect(server.alive(), f"the server died after {number + 1} clients")


def verifier(server, corpus, number, rng, stop):
    """Until told to stop, and enough is done: writes, verifies, starts over on a new connection."""
    model = content.Model(OWN, base=number * OWN)
    source = content.Source(corpus, first=(number + 1) << 40)
    while not os.path.exists(stop) or model.compared < ENOUGH:
        handle = server.connect()
        for _ in range(50):
            length = rng.randrange(1, 300 * PAGE)
            offset = rng.randrange(OWN - length + 1)
            model.write(handle, offset, source.bytes(length))
            model.check(handle, offset, length)
        handle.shutdown()
    model.check_all(server.connect())
    content.enough(model.compared, ENOUGH)


def check_the_dead(handle, corpus):
    step = 16 << 20
    written = 0
    for base in range(VERIFIERS * OWN, VERIFIERS * OWN + DEAD, step):
        got = handle.pread(step, base)
        for at in range(0, step, PAGE):
            written += corpus.serial_of(got[at:at + PAGE], (base + at) // PAGE) != 0
    print(f"{written} of {DEAD // PAGE} pages of the dead hold data")
    # Some 2150, give or take 160, where a server that is late serves the first of each alone.
    expect(written > DEAD // PAGE // 20, "hardly any request in flight was ever served")


def test():
    rng = harness.seeded()
    corpus = content.Corpus(rng)
    server = servers.device(str(VERIFIERS * OWN + DEAD), "320M")
    stop = os.path.join(harness.workdir(), "stop")
    workers = [harness.Worker(verifier, server, corpus, i, type(rng)(rng.getrandbits(64)), stop)
               for i in range(VERIFIERS)]
    drop_all(server, content.Source(corpus, first=1 << 50), rng)
    with open(stop, "w"):
        pass
    for worker in workers:
        worker.join()
    check_the_dead(server.connect(), corpus)
    expect(server.alive(), "the server died")
    if not harness.STOCK:
        server.check()


harness.main(test)
