#!/usr/bin/python3
"""plugin-overflow: a device eight times its pool, whose pages overflow to farswapd, against a model.

Three connections write, discard, zero and read ranges of their own at random. Afterwards all is
compared, the counters must show that pages went to the store and were fetched from it, the image
must be sound, and once everything is discarded the store must be empty.
"""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

SIZE = 768 << 20
POOL = 96 << 20
CLIENTS = 3
OWN = SIZE // CLIENTS
ROUNDS = 2000


def client(server, corpus, number, rng):
    handle = server.connect()
    model = content.Model(OWN, base=number * OWN)
    source = content.Source(corpus, first=(number + 1) << 40)
    for offset in range(0, OWN, 8 << 20):
        model.write(handle, offset, source.bytes(min(8 << 20, OWN - offset)))
    model.check_all(handle, 4 << 20)
    for _ in range(ROUNDS):
        length = rng.choice((rng.randrange(1, 4 * PAGE), rng.randrange(1, 256 * PAGE)))
        offset = rng.randrange(OWN - length + 1)
        verb = rng.choices(("write", "trim", "zero", "check"), (45, 6, 4, 45))[0]
        if verb == "write":
            model.write(handle, offset, source.bytes(length))
        else:
            getattr(model, verb)(handle, offset, length)
    model.check_all(handle, 4 << 20)
    content.enough(model.compared, 80_000)


def counted(server):
    counters = server.counters()
    print({name: counters.get(name) for name in (
        "overflow_pages", "fetch_pages", "overflow_raced", "write_stalls", "segments")})
    for name in ("overflow_pages", "fetch_pages"):
        expect(counters.get(name, 0) > 100_000, f"{name} is {counters.get(name)}: not overflowing")
    for name in ("corrupt_pages", "store_lost_pages", "failed_reads", "failed_writes", "no_space"):
        expect(counters.get(name) == 0, f"{name} is {counters.get(name)}")
    expect(counters["mem_used_max"] <= POOL, "the image took more than memory=")


def emptied(server):
    """Nothing lives in a segment, so each is dropped."""
    server.connect().trim(SIZE, 0)
    wait_for(lambda: server.counters()["segments"] == 0, 60, "the store to be empty")


def test():
    rng = harness.seeded()
    corpus = content.Corpus(rng)
    donor = servers.Donor("2G")
    server = servers.device(str(SIZE), str(POOL), patient=True, overflow=donor.uri)
    workers = [harness.Worker(client, server, corpus, i, type(rng)(rng.getrandbits(64)))
               for i in range(CLIENTS)]
    for worker in workers:
        worker.join(600)
    if harness.STOCK:
        return
    counted(server)
    server.check()
    emptied(server)
    server.check()


harness.main(test)
