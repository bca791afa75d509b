#!/usr/bin/python3
"""Twenty kills with -9 of farswap-fuse under real swap on the running kernel: a program of four times
its RAM fills, overwrites and verifies its memory meanwhile, with pages overflowing to farswapd. It
finds no wrong page, and the kernel logs no I/O error."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
import harness  # noqa: E402
from harness import built, expect, main, wait_for  # noqa: E402

KILLS = 20
TRIES = 20
KILLED = 137
LIMIT = 64 << 20
SIZE = 4 * LIMIT


def kernel_errors():
    """Of the kernel's log, what says that an access failed."""
    log = harness.run(["dmesg"]).stdout.splitlines()
    return {line for line in log if "I/O error" in line or "Read-error on swap" in line or
            "Write-error on swap" in line}


def kill_one(run):
    wait_for(lambda: len(runner.servers()) == 2 or run.process.poll() is not None, 60, "a spare")
    if run.process.poll() is not None:
        return False
    os.kill(runner.servers()[0], signal.SIGKILL)
    return True


def rounds(kills, errors):
    """The program once, a server killed four times a second; how many were."""
    run = runner.Run("--size", str(2 * SIZE), "--memory", "48M", "--limit", str(LIMIT), "--",
                     built("tests/swap/hoard"), "--size", str(SIZE))
    run.wait_said("swap on:")
    while kills > 0 and kill_one(run):
        kills -= 1
        time.sleep(0.25)  # for the program to work
    status, _ = run.end()
    # Linux 6.18 sometimes kills in a tight cgroup although swap is free (scripts/lib/demo.sh).
    expect(status in (0, KILLED), f"the program ended with {status}: {run.said()}")
    expect("WRONG" not in run.said(), run.said())
    new = set(kernel_errors()) - errors
    expect(not new, f"the kernel says: {new}")
    return kills if status == 0 else None


def test():
    if os.path.exists("/dev/nbd0"):
        raise harness.Skip("this kernel has nbd: scripts/run does not use FUSE here")
    errors = kernel_errors()
    left = KILLS
    for _ in range(TRIES):
        now = rounds(left, errors)
        if now is not None:
            left = now
        print(f"{KILLS - left} kills so far", flush=True)
        if left == 0:
            break
    expect(left == 0, f"{KILLS - left} kills only")
    runner.expect_nothing_remains()


main(test)
