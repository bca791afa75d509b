#!/usr/bin/python3
"""redis-away: a real redis-server under load is stopped (SIGSTOP) for 20 seconds, and later shut down and
started again with its data. The server is killed with -9 at random all the while."""

import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import harness  # noqa: E402
import load  # noqa: E402
import servers  # noqa: E402

SIZE = 128 << 20
POOL = 16 << 20
FROZEN_S = 20
DOWN_S = 3


def test():
    rng = harness.seeded()
    redis = servers.Redis()
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=redis.uri).start()
    work = load.Load(host, rng, writer=True)
    work.filled()
    killer = load.Killer(host, rng, 1, 5)
    work.goes_on()
    load.freeze(redis.process)
    host.away(FROZEN_S)
    load.thaw(redis.process)
    work.goes_on()
    redis.shut_down()
    host.away(DOWN_S)
    redis.start()
    work.goes_on()
    killer.stop()
    work.finish()
    host.expect_nothing_lost("failed_writes", "no_space")  # the pool may be full meanwhile
    host.check()


harness.main(test)
