#!/usr/bin/python3
"""reboots: the host reboots ten times, as far as farswap can tell: server, image and /run are gone, and
what is on disk is there. What the donor holds does not grow, and each device is all zeros at first. Then
the host moves to another donor while the first one is away, which forgets all the same when it is back;
and at last nobody starts a device any more, but says destroy."""

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
ENOUGH = 100  # values at the donor: with fewer this tests nothing
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


def fill(host, source, donor):
    """More than the pool holds, and all of it is read back."""
    handle, model = host.connect(), content.Model(SIZE)
    for offset in range(0, SIZE, 1 << 20):
        model.write(handle, offset, source.bytes(1 << 20))
    wait_for(lambda: host.counters()["pages_store"] > SIZE // PAGE // 3 and held(donor) > ENOUGH, 60,
             "pages to leave")
    model.check_all(handle, 1 << 20)
    handle.shutdown()


def device(donor):
    return load.Host(name=NAME, size=str(SIZE), memory=str(POOL), overflow=donor.uri, write_wait="60").start()


def moves(host, donor, source):
    reboot(host)
    donor.kill()
    other = donors.Donor()
    host = device(other)
    wait_for(lambda: "holds pages of an earlier device" in host.log(), 60, "the server to say what is left")
    fill(host, source, other)
    donor.start()
    expect(held(donor) > ENOUGH, "the donor has lost what it held")
    wait_for(lambda: held(donor) == 0, 60, "the donor that is back to be told")
    host.check()
    return host, other


def ends(host, donor):
    """Without an image, destroy is for what is left."""
    reboot(host)
    expect(held(donor) > ENOUGH, "nothing is left")
    done = host.cli("destroy", NAME)
    expect(done.returncode == 0, f"farswap destroy: {done.stdout}{done.stderr}")
    expect(held(donor) == 0, f"{held(donor)} values stay at the donor after destroy")
    done = host.cli("destroy", NAME)
    expect(done.returncode == 1 and "there is no device" in done.stderr, "destroyed twice")


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    donor = donors.Donor()
    most = 0
    for number in range(REBOOTS + 1):
        host = device(donor)
        content.Model(SIZE).check(host.connect(), 0, SIZE)
        if number > 0:
            wait_for(lambda: held(donor) <= 2, 60, "what the host before left to be forgotten")
        fill(host, source, donor)
        most = max(most, held(donor))
        if number < REBOOTS:
            reboot(host)
    print(f"{REBOOTS} reboots, {most} values at the donor at most", flush=True)
    expect(most < 2 * SIZE // PAGE // 20, f"{most} values at the donor")
    ends(*moves(host, donor, source))


harness.main(test)
