#!/usr/bin/python3
"""link-slow: the way to the donor carries 1 MB/s, with a short queue that drops what is more. The
server is killed with -9 at random all the while."""

import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import far  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
from harness import expect  # noqa: E402

SIZE = 64 << 20
POOL = 12 << 20


def test():
    rng = harness.seeded()
    way, host = far.host(SIZE, POOL)
    for warning in ("everybody on this host can read the store's password", "the password goes to 10.97.2.2"):
        expect(warning in host.log(), f"it does not say: {warning}")
    work = load.Load(host, rng, writer=True)
    work.filled()
    way.slow("8mbit")
    killer = load.Killer(host, rng)
    work.goes_on(40)
    killer.stop()
    way.slow("400mbit")
    work.finish()
    host.expect_nothing_lost("failed_writes", "no_space")
    host.check()


harness.main(test)
