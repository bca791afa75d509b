#!/usr/bin/python3
"""fuse-killed: the server is killed with -9 thirty times while clients write, discard and verify.

Nobody sees an error, nothing that was acknowledged is lost, nothing is undone, also not by a request
that the next server is asked again; and reads that wait for a store survive it as well. Afterwards
the supervisor is killed, too, and the server goes on.
"""

import os
import re
import signal
import sys
import time

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import fuse  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

CLIENTS = 3
OWN = 96 << 20
KILLS = 30


def client(door, corpus, number, rng, stop):
    disk = door.connect()
    model = content.Model(OWN, base=number * OWN)
    source = content.Source(corpus, first=(number + 1) << 40)
    while not os.path.exists(stop) or model.compared < 50_000:
        length = rng.choice((PAGE, PAGE, rng.randrange(1, 3 * PAGE), rng.randrange(1, 100 * PAGE)))
        offset = rng.randrange(OWN - length + 1)
        verb = rng.choices(("write", "trim", "zero", "check"), (60, 5, 5, 30))[0]
        if verb == "write":
            model.write(disk, offset, source.bytes(length))
        else:
            getattr(model, verb)(disk, offset, length)
        model.check(disk, offset, length)
    model.check_all(disk, 4 << 20)
    content.enough(model.compared, 70_000)


def kill_server(door):
    """The one that serves, once a spare stands by; returns how long nobody answered."""
    wait_for(lambda: len(door.servers()) == 2 and door.holder() == door.servers()[0], 60,
             f"a server and a spare: {door.log()}")
    victim = door.servers()[0]
    started = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: door.holder() not in (None, victim), 60, f"another server: {door.log()}")
    with open(door.path("mm_stat")) as file:
        file.read()
    return time.monotonic() - started


def successors(door):
    """Who took over, and who was about to when it was killed: it has the image then, and does not serve."""
    return len(re.findall(r"server \d+ has taken over|spare \d+ was killed", door.log()))


def supervisor_goes(door):
    """It holds nothing that the servers need: they go on, for one more death. And another one takes over
    what they hold, as often as that is wanted."""
    wait_for(lambda: len(door.servers()) == 2, 60, "a spare")
    server, spare = door.servers()
    disk = door.connect()
    for turn in range(2):
        for pid in (server, spare):
            harness.at_exit(gone, pid)
        os.kill(door.pid, signal.SIGKILL)
        door.process.wait()
        disk.pread(PAGE, 0)
        if turn == 1:
            break
        door.process = harness.spawn(door.command()[:4], log="second.log", env=door.environment())
        wait_for(lambda: len(door.servers()) == 1 and not alive(spare), 60, "a spare instead of the old one")
        expect("supervised by process" in door.refusal_of(door.command()[:4]), "a third supervisor")
        expect(door.holder() == server and alive(server), "the server was not left alone")
        disk.pread(PAGE, 0)
        os.kill(server, signal.SIGKILL)
        disk.pread(PAGE, 0)
        wait_for(lambda: len(door.servers()) == 2 and door.holder() == door.servers()[0], 60, "another spare")
        server, spare = door.servers()
    os.kill(server, signal.SIGKILL)
    disk.pread(PAGE, 0)
    alone_is_watched_again(door, spare)
    disk.shutdown()
    fuse.unmount(door.mount)
    expect(door.process.wait(60) == 0, "the supervisor does not end with its mount")
    wait_for(lambda: not alive(spare), 60, "the last server to end with its mount")


def alone_is_watched_again(door, server):
    """A server without any spare, and the mount goes under it: the supervisor ends, and well."""
    wait_for(lambda: door.holder() == server, 60, "the last spare to serve")
    door.process = harness.spawn(door.command()[:4], log="third.log", env=door.environment())
    wait_for(lambda: len(door.servers()) == 1, 60, "a spare")


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test():
    fuse.alone()
    rng = harness.seeded()
    corpus = content.Corpus(rng)
    donor = servers.Donor("1G")
    door = fuse.Fuse(supervise=True, size=str(CLIENTS * OWN), memory="96M", overflow=donor.uri, write_wait="60")
    door.start()
    if "can't ask for unanswered requests again" in door.log():
        raise harness.Skip("this kernel has no FUSE_NOTIFY_RESEND (Linux 6.9)")
    stop = os.path.join(harness.workdir(), "stop")
    clients = [harness.Worker(client, door, corpus, number, type(rng)(rng.getrandbits(64)), stop)
               for number in range(CLIENTS)]
    harness.at_exit(door.abort)
    pauses = []
    for _ in range(KILLS):
        expect(all(worker.running() for worker in clients), "a client ended")
        pauses.append(kill_server(door))
        time.sleep(rng.random() / 5)
    with open(stop, "w"):
        pass
    for worker in clients:
        worker.join(600)
    print(f"{KILLS} kills, pauses {sorted(pauses)[KILLS // 2]:.3f} s, longest {max(pauses):.3f} s")
    counters = door.counters()
    for name in ("corrupt_pages", "store_lost_pages", "failed_reads", "failed_writes"):
        expect(counters[name] == 0, f"{name} is {counters[name]}")
    expect(counters["overflow_pages"] > 1000, "nothing overflowed")
    wait_for(lambda: successors(door) >= KILLS, 60, "every take-over to be said")
    supervisor_goes(door)
    door.check()


harness.main(test)
