#!/usr/bin/python3
"""link-cut: between the host and its donor a router drops every packet for 30 seconds, under load; no
link goes down, and nobody is told. The server is killed with -9 at random all the while."""

import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import far  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402

SIZE = 128 << 20
POOL = 16 << 20
CUT_S = 30


def test():
    rng = harness.seeded()
    way, host = far.host(SIZE, POOL)
    work = load.Load(host, rng, writer=True)
    work.filled()
    killer = load.Killer(host, rng, 12, 16)  # so that puts are given up, too
    work.goes_on()
    way.cut()
    host.away(CUT_S)
    way.heal()
    work.goes_on()
    killer.stop()
    work.finish()
    host.expect_nothing_lost("failed_writes", "no_space")  # the pool may be full meanwhile
    host.check()


harness.main(test)
