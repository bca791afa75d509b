#!/usr/bin/python3
"""scripts/run killed with -9 leaves a swap in use; the next call takes all of it away, and never a
process that only has a pid of then."""

import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main, spawn  # noqa: E402


def kill_one():
    demo = runner.Run(*runner.SMALL)
    demo.wait_said("  fill ")
    os.kill(demo.process.pid, signal.SIGKILL)
    demo.expect_status(-signal.SIGKILL)
    kinds = {left.split()[0] for left in runner.remains()}
    expect({"process", "mount", "loop", "swap", "cgroup", "shared"} <= kinds,
           f"a killed run should leave everything behind, but only {kinds} are")


def killed():
    kill_one()
    after = runner.Run(*runner.SMALL, "--", "true")
    after.expect_status(0)
    expect("cleaning up after it" in after.said(), after.said())
    runner.expect_in_order(after.said(), "swap off:", "server stopped", "donor stopped", "swap on:")
    runner.expect_nothing_remains()

    kill_one()
    stop = runner.Run("--stop")
    stop.expect_status(0)
    runner.expect_nothing_remains()

    # A record whose process has ended, and whose pid somebody else has now.
    bystander = spawn(["sleep", "1000"])
    with open(runner.state("server.pid"), "w") as record:
        record.write(f"{bystander.pid} 1\n")
    runner.Run("--stop").expect_status(0)
    expect(bystander.poll() is None, "--stop killed a process that it never started")
    expect(not os.path.exists(runner.state("server.pid")), "the stale record stays")


main(killed)
