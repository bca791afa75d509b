#!/usr/bin/python3
"""crash-large: a server under load is killed with -9 again and again, and nothing that was acknowledged is
lost, undone or torn.

    crash-large.py nbd 300       farswap-nbd; the test is its supervisor, with a spare that waits for the lock
    crash-large.py plugin 30     nbdkit with the plugin, started anew

The load is hammer.c: clients with several requests in flight that reconnect, send again or give up, and
compare all they read with one model from the first kill to the last. The pool is smaller than what
they write; the rest overflows to a donor (farswapd, Redis) that stays. Meanwhile compaction is asked for, and memory=,
codec= and huge= change, the first two at the restarts, too. Afterwards everything is read, the image is
proven, and the donor has one segment for each LIVE row.
"""

import os
import re
import subprocess
import sys
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + "/../system/lib"]

import harness  # noqa: E402
import servers  # noqa: E402
from harness import Skip, built, expect, need, run, spawn, wait_for, workdir  # noqa: E402

SIZE = 96 << 20
CLIENTS = 4
MEMORY = ("16M", "20M", "24M", "32M")
CODECS = ("lz4", "lz4:8", "zstd", "raw")
HUGE = ("age", "first", "store")


class Hammer:
    """hammer.c as a process."""

    def __init__(self, socket, seed):
        program = os.environ.get("FARSWAP_HAMMER")
        if not program or not os.path.exists(program):
            raise Skip("the clients are not built (libnbd-dev is missing)")
        self.process = spawn([program, socket, str(SIZE), str(CLIENTS), str(seed)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=open(os.path.join(workdir(), "hammer.log"), "ab"), text=True)

    def numbers(self):
        """What it has done so far, by name."""
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.parse(self.process.stdout.readline())

    @staticmethod
    def parse(line):
        expect(line, "the clients have ended")
        numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
        expect(numbers["failed"] == 0, "a client saw something wrong")
        return numbers

    def end(self):
        """Settles and verifies everything."""
        self.process.stdin.close()
        line = self.process.stdout.readline()
        status = self.process.wait(120)
        numbers = self.parse(line)
        expect(status == 0, f"the clients ended with {status}")
        return numbers


def parameters(rng):
    return {"memory": rng.choice(MEMORY), "codec": rng.choice(CODECS)}


class Nbd(servers.Server):
    """farswap-nbd with a spare."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.spare = None

    def one_that_waits(self, rng):
        self.parameters.update(parameters(rng))
        return spawn(self.command() + ["--wait"], log=f"{self.name}.log",
                     env=self.environment())

    def begin(self, rng):
        self.parameters.update(parameters(rng))
        self.start()
        self.spare = self.one_that_waits(rng)

    def kill_and_go_on(self, rng):
        self.kill()
        self.process = self.spare
        self.spare = self.one_that_waits(rng)

    def leave(self):
        harness.end(self.spare)


class Plugin(servers.Plugin):
    """nbdkit with the plugin, which nobody waits for."""

    def begin(self, rng):
        self.parameters.update(parameters(rng))
        argv = ["nbdkit", "-f"] + self.where() + self.command()
        self.process = spawn(argv, log=f"{self.name}.log", env=self.environment())

    def kill_and_go_on(self, rng):
        self.kill()
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.begin(rng)

    def leave(self):
        pass


def disturb(server, rng):
    """What an operator may ask for; it may well find nobody there."""
    what = rng.choice((["compact"], ["set", f"memory={rng.choice(MEMORY)}"],
                       ["set", f"codec={rng.choice(CODECS)}"], ["set", f"huge={rng.choice(HUGE)}"]))
    argv = [built("client/cli/farswap"), what[0], server.parameters["name"], *what[1:]]
    spawn(argv, log="cli.log", env=servers.image_environment())


def strike(server, hammer, rng, kills):
    """Kills at random moments, some of them in a recovery."""
    before = hammer.numbers()
    for number in range(1, kills + 1):
        time.sleep(rng.choice((0.005, 0.02, 0.05, 0.1, 0.2)) * rng.random() * 2)
        if rng.random() < 0.15:
            disturb(server, rng)
        expect(server.alive(), f"the server ended by itself: {server.log()[-2000:]}")
        server.kill_and_go_on(rng)
        if number % 10 == 0:
            wait_for(lambda: hammer.numbers()["answered"] > before["answered"] + 1000, 60,
                     "the clients to get answers")
            before = hammer.numbers()
            print(f"{number} kills: {before}", flush=True)


def keys(donor):
    done = run([need("redis-cli"), "-s", donor.socket, "dbsize"])
    return int(done.stdout.split()[-1])


def rest(server, donor):
    """The donor has one segment for each LIVE row, and the sentinel."""
    def equal():
        return keys(donor) - 1 == server.counters()["segments"]

    try:
        wait_for(equal, 60, "the donor to have one segment for each LIVE row")
    finally:
        print(f"{keys(donor)} keys at the donor, {server.counters()['segments']} segments")


def main():
    door, kills = sys.argv[1], int(sys.argv[2])
    rng = harness.seeded()
    donor = servers.Donor(memory="512M") if door == "nbd" else servers.Redis()
    server = {"nbd": Nbd, "plugin": Plugin}[door](size=str(SIZE), overflow=donor.uri)
    server.begin(rng)
    hammer = Hammer(server.socket, rng.getrandbits(32))
    strike(server, hammer, rng, kills)
    print(f"at the end: {hammer.end()}")
    rest(server, donor)
    server.kill()
    server.leave()
    server.check()


harness.main(main)
