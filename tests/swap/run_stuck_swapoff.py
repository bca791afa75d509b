#!/usr/bin/python3
"""When swapoff can't finish, scripts/run stops nothing: swap, server and donor stay, it says how much
RAM is missing, and --stop works once that is free.

The kernel is made to fail it for real: a program in another cgroup owns pages on the device, and
that cgroup may neither grow nor kill (version 1: oom_control; version 2 would kill the program, so
there the test has nothing to stand on)."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import Skip, at_exit, built, expect, main, spawn, wait_for, workdir  # noqa: E402

CGROUPS = "/sys/fs/cgroup/memory"


def outsider():
    """hoard, 64 MiB of which 24 fit its cgroup; the rest lies on the highest swap. Holds it."""
    if not os.path.exists(f"{CGROUPS}/memory.oom_control"):
        raise Skip("no cgroup v1 memory controller")
    cgroup = f"{CGROUPS}/fsw-test-{os.getpid()}"
    os.mkdir(cgroup)
    at_exit(lambda: wait_for(lambda: removed(cgroup), 60, f"{cgroup} to be empty"))
    for name, value in (("memory.limit_in_bytes", "24M"), ("memory.oom_control", "1")):
        with open(f"{cgroup}/{name}", "w") as file:
            file.write(value)
    fifo = os.path.join(workdir(), "hold")
    report = os.path.join(workdir(), "report")
    os.mkfifo(fifo)
    process = spawn(["bash", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', cgroup,
                     built("tests/swap/hoard"), "--size", "64M", "--report", report,
                     "--hold", fifo], log="outsider.log")
    wait_for(lambda: process.poll() is not None or os.path.exists(report), 60, "the outsider")
    expect(process.poll() is None, "the outsider ended")
    return process, fifo


def removed(cgroup):
    try:
        os.rmdir(cgroup)
    except OSError:
        return False
    return True


def stuck():
    run = runner.Run(*runner.SMALL, "--", "sleep", "1000")
    run.wait_said("swap on:")
    process, fifo = outsider()
    run.signal(runner.signal.SIGTERM)
    run.expect_status(143)
    for text in ("swapoff failed", "are swapped out", "missing", "everything stays up", "--stop"):
        expect(text in run.said(), f"no '{text}' in: {run.said()}")
    expect("server stopped" not in run.said(), "the server was stopped under an active swap")
    expect(runner.swaps(), "the swap is off all the same")

    with open(fifo, "w"):
        pass  # the outsider may end now
    expect(process.wait(60) == 0, "the outsider found wrong pages")
    stop = runner.Run("--stop")
    stop.expect_status(0)
    runner.expect_in_order(stop.said(), "swap off:", "server stopped")
    runner.expect_nothing_remains()


main(stuck)
