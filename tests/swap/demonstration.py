#!/usr/bin/python3
"""Real swap on the running kernel: scripts/run's own demonstration, a hungry program in a quarter of
its RAM with overflow to farswapd, verified to the last byte, and its table."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main  # noqa: E402


def row(table, name):
    found = re.search(rf"^  {re.escape(name)} +(\S.*)$", table, re.M)
    expect(found, f"no row '{name}' in:\n{table}")
    return found.group(1)


def demonstration():
    run = runner.Run()
    run.wait_said("swap on:")
    table = run.expect_status(0)
    print(run.said(), table, sep="\n")

    expect("every page came back right" in run.said(), "no verdict")
    overflowed, fetched = map(int, row(table, "pages overflowed, fetched").split(", "))
    expect(overflowed > 1000 and fetched > 100, f"{overflowed} overflowed, {fetched} fetched")
    expect(int(row(table, "  of them remote")) > 1000, "few pages were remote at the end")
    ratio = float(row(table, "compression ratio"))
    expect(2 <= ratio <= 4, f"compression ratio {ratio}")
    expect("(0 faults" not in row(table, "fault: p50, p99, p99.9, longest"), "no fault was timed")
    runner.expect_nothing_remains()
    runner.expect_quick(swaps_for_nothing)


def swaps_for_nothing():
    run = runner.Run(*runner.SMALL, "--", "true")
    run.expect_status(0)
    return run.said()


main(demonstration)
