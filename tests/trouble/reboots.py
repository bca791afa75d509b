#!/usr/bin/python3
"""reboots: the host reboots ten times, as far as farswap can tell: server, image and /run are gone, and
what is on disk is there. What the donor holds does not grow, and each device is all zeros at first."""

import glob
import os
import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import content  # noqa: E402
import donors  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
from harness import PAGE, expect, need, run, wait_for, workdir  # noqa: E402

SIZE = 24 << 20
POOL = 8 << 20
REBOOTS = 10
NAME = "host0"


def held(donor):
    """Values at the donor."""
    return int(run([need("redis-cli"), "-s", donor.socket, "dbsize"]).stdout)


def reboot(host):
    """The image is gone with the memory, its files with /run."""
    shmid = host.shmid()
    host.kill()
    run(["ipcrm", "-m", str(shmid)])
    for path in glob.glob(os.path.join(workdir(), "run", f"{NAME}*")):
        os.unlink(path)


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    donor = donors.Donor()
    most = 0
    for number in range(REBOOTS + 1):
        host = load.Host(name=NAME, size=str(SIZE), memory=str(POOL), overflow=donor.uri).start()
        handle, model = host.connect(), content.Model(SIZE)
        model.check(handle, 0, SIZE)
        if number > 0:
            wait_for(lambda: held(donor) <= 2, 60, "what the host before left to be forgotten")
        for offset in range(0, SIZE, 1 << 20):
            model.write(handle, offset, source.bytes(1 << 20))
        wait_for(lambda: host.counters()["pages_store"] > SIZE // PAGE // 3, 60, "pages to leave")
        model.check_all(handle, 1 << 20)
        handle.shutdown()
        most = max(most, held(donor))
        if number < REBOOTS:
            reboot(host)
    print(f"{REBOOTS} reboots, {most} values at the donor at most", flush=True)
    expect(100 < most < 2 * SIZE // PAGE // 20, f"{most} values at the donor")
    host.check()
    host.destroy()
    expect(held(donor) == 0, f"{held(donor)} values stay at the donor after destroy")


harness.main(test)
