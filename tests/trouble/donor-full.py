#!/usr/bin/python3
"""donor-full: farswapd has memory for half of what should leave. Writes are refused and nothing else
suffers; once it was started again with more, all is well. The server is killed with -9 meanwhile."""

import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import donors  # noqa: E402
import full  # noqa: E402
import harness  # noqa: E402


def test():
    rng = harness.seeded()
    donor = donors.Donor(memory="20M")
    full.through(rng, donor.uri, lambda: donor.again(memory="1G"))


harness.main(test)
