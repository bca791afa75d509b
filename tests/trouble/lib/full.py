"""full: a store without room for what should leave. Writes are refused, early; what was there stays,
and every read is answered. When there is room again, it goes on."""

import load
from harness import wait_for

SIZE = 64 << 20
POOL = 12 << 20
STRETCH = 40


def refuses_nothing(work):
    before = work.count("refused")
    work.goes_on(STRETCH)
    return work.count("refused") == before


def is_full(host, work):
    """Of some work. A client that is refused for another reason (the store was slow) goes on."""
    counters = host.counters()
    return work.count("refused") > 0 and counters["store_full"] > 0 and counters["no_space"] > 0


def through(rng, overflow, make_room):
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=overflow).start()
    work = load.Load(host, rng)
    killer = load.Killer(host, rng, 1, 4)
    work.filled()
    work.goes_on(5)
    wait_for(lambda: is_full(host, work), load.PATIENCE_S, "the store to be full, and the counters to know")
    make_room()
    wait_for(lambda: refuses_nothing(work), load.PATIENCE_S, "writes to succeed once there is room")
    killer.stop()
    work.finish()
    host.expect_nothing_lost("failed_writes", "no_space")
    host.check()
    return host
