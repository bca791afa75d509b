#!/usr/bin/python3
"""cli-status: farswap status and doctor on devices that work, whose store is away, whose server is
dead, and on none. What status says is compared with what was done."""

import json
import os
import signal
import sys
import time

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, run, wait_for  # noqa: E402

SIZE = 64 << 20
PAGES = 3000
ANSWER_S = 0.2
LARGE = 256 << 10


def cli(*arguments):
    return run([harness.built("client/cli/farswap"), *arguments], env=servers.image_environment())


def look(server):
    done = cli("status", "--json", server.parameters["name"])
    expect(done.returncode == 0, f"status --json: {done.stderr}")
    devices = json.loads(done.stdout)
    expect(len(devices) == 1, f"asked for one device, got {len(devices)}")
    return devices[0]


def of_nothing():
    done = cli("status")
    expect(done.returncode == 0 and "no device" in done.stderr, f"without a device: {done.stderr}")
    expect(json.loads(cli("status", "--json").stdout) == [], "JSON of no device is no empty array")
    done = cli("status", "nobody")
    expect(done.returncode == 1 and "no device nobody" in done.stderr, f"unknown: {done.stderr}")
    for call in (["status", "--jsno"], ["status", "a", "b"], ["doctor", "--fix"]):
        done = cli(*call)
        expect(done.returncode == 2 and "usage: farswap" in done.stderr, f"{call}: {done}")


def write(server):
    """More than the pool holds."""
    handle = server.connect()
    source = content.Source(content.Corpus(harness.seeded()))
    for page in range(PAGES):
        handle.pwrite(source.bytes(PAGE), page * PAGE)
    return handle


def of_work(server):
    handle = write(server)
    for page in range(0, PAGES, 3):
        handle.pread(PAGE, page * PAGE)
    handle.trim(PAGE, 0)
    handle.shutdown()
    device = look(server)
    expect(device["state"] == "served" and device["pid"] == server.pid, f"{device['state']}")
    expect(device["size"] == SIZE and device["swap"] is None, "size or swap is wrong")
    for kind, count in (("write", PAGES), ("read", PAGES // 3), ("discard", 1)):
        times = device["latency"][kind]
        expect(times["count"] == count, f"{kind}: {times['count']} timed, {count} done")
        expect(0 < times["p50_ns"] <= times["p99_ns"] <= times["max_ns"] < 60e9, f"{times}")
    expect(device["counters"] == {**device["counters"], **{
        name: value for name, value in server.counters().items() if name in ("reads", "writes")}},
        "status and stats differ")
    text = cli("status").stdout
    for wanted in (server.parameters["name"], f"by process {server.pid}", "memory=", "write",
                   "median"):
        expect(wanted in text, f"status does not say {wanted!r}:\n{text}")
    expect("\033" not in text, "colours where there is no terminal")


def of_several():
    """Each device once, in order of name, with its own numbers; what can't be read does not hide the rest."""
    small = servers.Plugin(name=f"b{os.getpid()}", size=16 << 20).start()
    large = servers.Plugin(name=f"a{os.getpid()}", size=32 << 20).start()
    names = [large.parameters["name"], small.parameters["name"]]
    for server, pages in ((small, 3), (large, 5)):
        handle = server.connect()
        handle.pwrite(os.urandom(pages * PAGE), 0)
        handle.shutdown()
    small.kill()
    done = cli("status", "--json")
    devices = json.loads(done.stdout)
    expect(done.returncode == 0 and [device["name"] for device in devices] == names, f"{done}")
    for device, size, pages, state, pid in zip(devices, (32 << 20, 16 << 20), (5, 3), ("served", "stopped"),
                                               (large.pid, 0)):
        expect((device["size"], device["counters"]["pages_stored"], device["state"], device["pid"]) ==
               (size, pages, state, pid), f"{device}")
        expect(set(device["rates"]) < set(device["counters"]) and device["latency"]["write"]["count"] > 0,
               f"{device}")
    expect([device["name"] for device in json.loads(cli("status", names[1], "--json").stdout)] == names[1:],
           "one of two")
    text = cli("status").stdout
    expect(0 <= text.find(names[0] + "  served by process") < text.find("\n\n" + names[1] + "  stopped"), text)
    done = cli("stats")
    expect(done.returncode == 1 and "there are 2 devices: say which" in done.stderr, f"stats of two: {done}")
    broken = os.path.join(servers.image_environment()["FARSWAP_RUNDIR"], "broken.image")
    with open(small.image_file()) as record, open(broken, "w") as file:
        file.writelines("shmid=2147483000\n" if line.startswith("shmid=") else line for line in record)
    done = cli("status", "--json")
    expect(done.returncode == 1 and "broken: " in done.stderr and len(json.loads(done.stdout)) == 2, f"{done}")
    os.unlink(broken)
    large.destroy()
    small.destroy()


def of_large_requests():
    """farswap-nbd keeps requests: none is told to have begun with an earlier one. What the server says is
    never longer than what the client waited, but for the width of a bucket."""
    server = servers.Server(size=SIZE).start()
    handle = server.connect()
    longest = 0
    for turn in range(150):
        before = time.monotonic()
        if turn % 2 == 0:
            handle.pwrite(os.urandom(LARGE), turn * LARGE % SIZE)
        else:
            handle.pread(LARGE, (turn - 1) * LARGE % SIZE)
        longest = max(longest, time.monotonic() - before)
    began = time.monotonic()
    wait_for(lambda: time.monotonic() > began + 2 * longest, 60 + 2 * longest, "more time to pass than a request took")
    for call in (lambda: handle.pread(LARGE, 0), lambda: handle.pwrite(bytes(LARGE), 0)):
        before = time.monotonic()
        call()
        longest = max(longest, time.monotonic() - before)
    handle.shutdown()
    latency = look(server)["latency"]
    for kind in ("read", "write"):
        expect(latency[kind]["count"] == 76, f"{kind}: {latency[kind]}")
        expect(latency[kind]["max_ns"] <= 1.25e9 * longest,
               f"{kind}: {latency[kind]}, and the client waited {longest} s at most")
    server.destroy()


def of_two_stores():
    """Each by itself, on its own wire: what one missed, the other has been sent."""
    donors = [servers.Donor(), servers.Donor()]
    server = servers.Plugin(size=SIZE, memory="4M", overflow=" ".join(donor.uri for donor in donors),
                            write_wait="60").start()
    store = lambda: look(server)["store"]  # noqa: E731
    states = lambda: [copy["state"] for copy in store()["copies"]]  # noqa: E731
    write(server)
    wait_for(lambda: states() == ["connected"] * 2 and server.counters()["segments_lacking"] == 0 and
             server.counters()["store_sent_bytes"] > 1 << 20, 60, "two copies of all that left")
    donors[1].process.kill()
    wait_for(lambda: states() == ["connected", "away"], 60, "status to say which store is away")
    before = store()["copies"]
    write(server)
    wait_for(lambda: store()["copies"][0]["sent"] > before[0]["sent"] + (1 << 20), 60, "the other to be sent more")
    now = store()
    expect(now["away"] == 1 and now["connected"] and [copy["uri"] for copy in now["copies"]] ==
           [donor.uri for donor in donors], f"{now}")
    expect(now["copies"][1]["sent"] < before[1]["sent"] + (1 << 20) and now["copies"][1]["last_error"], f"{now}")
    expect(abs(now["copies"][1]["since"] - time.time()) < 600, f"{now}")
    text = cli("status").stdout
    for donor, wanted in zip(donors, ("connected for ", "AWAY for ")):
        expect(f"\n            {donor.uri}: {wanted}" in text and " sent, " in text, text)
    server.kill()
    now = store()
    expect(now["away"] is None and [copy["state"] for copy in now["copies"]] == [None] * 2, f"{now}")
    for what in ("sent", "received"):  # at rest: the image has both, and they agree
        expect(sum(copy[what] for copy in now["copies"]) == now[what] > 0, f"{what}: {now}")
    expect(cli("destroy", "--local", server.parameters["name"]).returncode == 0, "destroy")


def comes_back_empty(server, donor):
    harness.spawn([harness.built("server/farswapd"), "--unix", donor.socket, "--memory", "1G"],
                  env=servers.image_environment())
    wait_for(lambda: [copy["state"] for copy in look(server)["store"]["copies"]] == ["emptied"], 60,
             "status to say that the store was emptied")
    expect(look(server)["store"]["away"] == 1, "an emptied store is not counted")


def of_a_store(server, donor):
    wait_for(lambda: look(server)["store"]["connected"], 60, "status to say that the store answers")
    wait_for(lambda: look(server)["store"]["copies"][0]["sent"] > 1 << 20, 60,
             "status to say what went to the store")
    store = look(server)["store"]
    expect([copy["state"] for copy in store["copies"]] == ["connected"] and store["away"] == 0,
           f"{store}")
    done = servers.again_if_late(lambda: cli("doctor", server.parameters["name"]))
    expect(done.returncode == 0 and "answers" in done.stdout, f"doctor: {done.stdout}")
    donor.process.send_signal(signal.SIGKILL)
    donor.process.wait()
    wait_for(lambda: not look(server)["store"]["connected"], 60, "status to say that it is away")
    expect("AWAY" in cli("status").stdout, "people are not told that the store is away")
    done = cli("doctor", server.parameters["name"])
    expect(done.returncode == 1 and "FAIL" in done.stdout, f"doctor of a dead store: {done.stdout}")
    comes_back_empty(server, donor)


def while_it_hangs(server):
    """A server that is stopped is not waited for: an answer within 0.2 s, once the machine has a moment."""
    os.kill(server.pid, signal.SIGSTOP)
    harness.at_exit(signal_if_alive, server, signal.SIGCONT)

    def quick():
        began = time.monotonic()
        device = look(server)
        took = time.monotonic() - began
        expect(device["state"] == "served" and device["counters"]["writes"] == PAGES, f"{device}")
        return took < ANSWER_S
    wait_for(quick, 60, f"status of a stopped server within {ANSWER_S} s")
    for command in ("stats", "list", "doctor"):
        expect(cli(command).returncode == 0, f"{command} of a stopped server")
    os.kill(server.pid, signal.SIGCONT)


def signal_if_alive(server, number):
    if server.alive():
        os.kill(server.pid, number)


def of_the_dead(server):
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    device = look(server)
    expect(device["state"] == "stopped" and device["pid"] == 0, f"a dead server: {device['state']}")
    expect(not device["store"]["connected"], "a dead server's store is said to be connected")
    expect("no server" in cli("doctor").stdout, "doctor does not miss the server")


def test():
    of_nothing()
    of_several()
    of_large_requests()
    of_two_stores()
    donor = servers.Donor()
    server = servers.Plugin(size=SIZE, memory="4M", overflow=donor.uri, write_wait="60").start()
    of_work(server)
    while_it_hangs(server)
    of_a_store(server, donor)
    of_the_dead(server)
    run([harness.built("client/cli/farswap"), "destroy", "--local", server.parameters["name"]],
        env=servers.image_environment())


harness.main(test)
