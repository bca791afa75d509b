#!/usr/bin/python3
"""mirror: two donors under load. One is started again empty, and gets its copies back; then the other
is destroyed for good, and nothing is lost. The server is killed with -9 at random all the while."""

import sys
import time

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import donors  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
from harness import wait_for  # noqa: E402

SIZE = 128 << 20
POOL = 16 << 20
SEGMENT = 65520


def have_two_copies(host, work, killer):
    """Nothing leaves any more, and nothing has one copy only: a page has while a donor is slow, which
    it may be on a busy machine, and is lost with it. Clients only read then."""
    work.only_reads(1)

    def settled():
        """Nothing leaves for a while, and two servers, one after the other, see nothing to do."""
        before, kills = host.counters()["overflow_segments"], killer.kills
        time.sleep(1)
        wait_for(lambda: killer.kills >= kills + 2 or killer.failure, load.PATIENCE_S, "the next servers")
        now = host.counters()
        return now["segments_lacking"] == 0 and now["overflow_segments"] == before

    wait_for(settled, load.PATIENCE_S, "every segment to have two copies")


def test():
    rng = harness.seeded()
    one, other = donors.Donor(), donors.Donor()
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=f"{one.uri} {other.uri}",
                     write_wait="60").start()
    work = load.Load(host, rng)
    work.filled()
    killer = load.Killer(host, rng)
    work.goes_on()
    have_two_copies(host, work, killer)
    one.again(empty=True)
    work.only_reads(0)
    work.goes_on()
    wait_for(lambda: host.counters()["copies_repaired"] > SIZE // SEGMENT // 4, load.PATIENCE_S,
             "copies to be put again")
    have_two_copies(host, work, killer)
    other.gone()
    work.only_reads(0)
    work.goes_on()
    killer.stop(3)
    wait_for(lambda: "1 store is AWAY" in host.cli("status").stdout and host.counters()["stores_away"] == 1,
             load.PATIENCE_S, "status to say that one store is away")
    work.finish()
    host.expect_nothing_lost()
    host.check()
    host.give_up()


harness.main(test)
