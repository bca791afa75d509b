#!/usr/bin/python3
"""swap-all-killed: real swap on the running kernel, a program of four times its RAM, a pool of a quarter of
it: the rest overflows to farswapd. Server and donor are killed with -9 in turn and come back. The program
finds no wrong page, and the kernel logs no I/O error."""

import contextlib
import os
import re
import signal
import sys
import time

sys.path[:0] = [sys.path[0] + "/../swap/lib", sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import runner  # noqa: E402
import donors  # noqa: E402
import harness  # noqa: E402
from harness import built, expect, main, wait_for, workdir  # noqa: E402

KILLS = 12  # of both together
TRIES = 6
PAGES = 300  # at least, between two kills
KILLED = 137
LIMIT = 40 << 20
SIZE = 4 * LIMIT
POOL = LIMIT


def kernel_errors():
    """Of the kernel's log, what says that an access failed. (A refused write costs nothing but that.)"""
    log = harness.run(["dmesg"]).stdout.splitlines()
    return {line for line in log if "Read-error on swap" in line or
            "I/O error" in line and "WRITE" not in line}


def kill_server(run):
    def both():
        found = runner.servers()
        return found if len(found) == 2 else run.process.poll() is not None

    found = wait_for(both, 120, "a spare")
    if found is not True:
        with contextlib.suppress(ProcessLookupError):  # all of it may be on its way out
            os.kill(found[0], signal.SIGKILL)


def kill_donor(donor, pause):
    donor.kill()
    time.sleep(pause)  # nobody answers
    donor.start()


def counter(name):
    """Of the one device that scripts/run has; 0 if it is on its way out."""
    said = harness.run([built("client/cli/farswap"), "stats"], env=runner.environment()).stdout
    found = re.search(rf"^{name} +(\d+)$", said, re.M)
    return int(found.group(1)) if found else 0


def works(run, pages):
    """Waits until that many pages more have left or come back."""
    before = counter("overflow_pages") + counter("fetch_pages")
    wait_for(lambda: counter("overflow_pages") + counter("fetch_pages") >= before + pages or
             run.process.poll() is not None, 120, "pages to leave or come back")


def lived_through(rng, donor, kills):
    """The program once, with that many kills. False: the kernel killed it."""
    until = os.path.join(workdir(), "until")
    if os.path.exists(until):
        os.unlink(until)
    run = runner.Run("--size", str(2 * SIZE), "--memory", str(POOL), "--limit", str(LIMIT), "--overflow",
                     donor.uri, "--", built("tests/swap/hoard"), "--size", str(SIZE), "--until", until)
    run.wait_said("swap on:")
    for kill in range(kills):
        works(run, PAGES)
        if run.process.poll() is None:
            kill_donor(donor, rng.uniform(0, 0.3)) if kill % 2 else kill_server(run)
    works(run, PAGES)
    with open(until, "w"):
        pass
    status, _ = run.end(240)
    # Linux 6.18 sometimes kills in a tight cgroup although swap is free (scripts/lib/demo.sh).
    expect(status in (0, KILLED), f"the program ended with {status}: {run.said()}")
    expect("WRONG" not in run.said(), run.said())
    return status == 0


def test():
    if os.path.exists("/dev/nbd0"):
        raise harness.Skip("this kernel has nbd: scripts/run does not use FUSE here")
    rng = harness.seeded()
    before = kernel_errors()
    donor = donors.Donor()
    expect(any(lived_through(rng, donor, KILLS) for _ in range(TRIES)), "the kernel killed the program each time")
    new = kernel_errors() - before
    expect(not new, f"the kernel says: {new}")


main(test)
