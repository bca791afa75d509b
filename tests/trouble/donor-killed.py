#!/usr/bin/python3
"""donor-killed: farswapd with a name is killed with -9 and started again under load, again and again,
and so is the server, at times of its own."""

import sys
import time

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import donors  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
from harness import expect  # noqa: E402

SIZE = 128 << 20
POOL = 16 << 20
KILLS = 8


def test():
    rng = harness.seeded()
    donor = donors.Donor()
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=donor.uri, write_wait="60").start()
    work = load.Load(host, rng)
    killer = load.Killer(host, rng)
    for kill in range(KILLS):
        if kill == 2:
            work.filled()  # the first kills are while it is
        donor.kill()
        time.sleep(rng.uniform(0, 0.5))  # how long nobody answers
        donor.start()
        work.goes_on(40) if kill >= 2 else time.sleep(rng.uniform(0, 0.5))
    killer.stop(KILLS // 2)
    work.finish()
    counters = host.expect_nothing_lost()
    expect(counters["pages_store"] > SIZE // 4096 // 2, "most of it should be at the donor")
    host.check()


harness.main(test)
