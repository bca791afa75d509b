#!/usr/bin/python3
"""A second scripts/run is refused while one is at work; --stop ends that one, and waits for it."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main  # noqa: E402


def twice():
    first = runner.Run(*runner.SMALL, "--", "sleep", "1000")
    first.wait_said("swap on:")
    second = runner.Run(*runner.SMALL, "--", "true")
    second.expect_status(1)
    expect(f"another run is at work (process {first.process.pid})" in second.said(), second.said())
    expect(runner.swaps(), "the first run's swap is gone")

    stop = runner.Run("--stop")
    stop.expect_status(0)
    runner.expect_nothing_remains()
    first.expect_status(143)

    stop = runner.Run("--stop")
    stop.expect_status(0)
    expect("nothing to stop" in stop.said(), stop.said())


main(twice)
