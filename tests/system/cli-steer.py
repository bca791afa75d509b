#!/usr/bin/python3
"""cli-steer: set and compact on a device that is in use, wrong ways of both, who may not, and what the
terminal shows while a server takes its time. Every command's --help has examples."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import nbd

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, at_exit, built, expect, run, stand_still, wait_for, workdir  # noqa: E402

SIZE = 64 << 20
PAGES = SIZE // PAGE // 2
TRIES = 5
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]


def cli(*arguments, prefix=()):
    return run([*prefix, built("client/cli/farswap"), *arguments], env=servers.image_environment())


def must(*arguments):
    done = cli(*arguments)
    expect(done.returncode == 0 and not done.stderr, f"{arguments}: {done.stdout}{done.stderr}")
    return done.stdout


def refused(status, text, *arguments, prefix=()):
    done = cli(*arguments, prefix=prefix)
    expect(done.returncode == status and text in done.stderr and not done.stdout,
           f"{arguments}: not {status} and {text!r}: {done}")


def fill(server):
    handle = server.connect()
    source = content.Source(content.Corpus(harness.seeded()))
    for page in range(PAGES):
        handle.pwrite(source.bytes(PAGE), page * PAGE)
    return handle


def sets(server, name):
    must("set", name, "memory=72M")
    wait_for(lambda: server.counters()["mem_limit"] == 72 << 20, 60, "the limit to be followed")
    must("set", name, "codec=zstd:3", "memory=80M")
    wait_for(lambda: server.counters()["mem_limit"] == 80 << 20, 60, "two settings in one call")
    refused(1, "memory=lots is not allowed", "set", name, "memory=lots")
    refused(1, "no store", "set", name, "memory=4M")
    refused(1, "codec=gzip", "set", name, "codec=gzip")
    refused(1, "can't be changed", "set", name, "size=1G")
    refused(1, "say memory=SIZE", "set", name, "memory")
    refused(1, "stands before codec is set, the rest is not", "set", name, "memory=84M", "codec=gzip", "prefetch=off")
    wait_for(lambda: server.counters()["mem_limit"] == 84 << 20, 60, "the first of three settings")
    must("set", name, "memory=80M")
    wait_for(lambda: server.counters()["mem_limit"] == 80 << 20, 60, "the last of them")
    refused(1, "no device nobody", "set", "nobody", "memory=80M")
    for call in (["set"], ["set", name], ["set", "--memory", name], ["compact", "a", "b"], ["compact", "-x"]):
        refused(2, "usage: farswap", *call)
    must("set", name, "watermarks=90:80", "prefetch=off", "fetch_timeout=5", "write_wait=0",
         "read_age=half", "huge=store",
         "overflow_limit=1G")
    settings = json.loads(must("status", "--json", name))[0]["settings"]
    expect(settings == {"codec": "zstd:3", "watermarks": "90:80", "prefetch": "off", "fetch_timeout": "5",
                        "write_wait": "0", "read_age": "half", "huge": "store",
                        "overflow_limit": str(1 << 30)},
           f"status says {settings}")
    expect("codec=zstd:3\n" in must("status", name), "people are not told the codec")
    for key, value in settings.items():  # what it says it takes
        must("set", name, f"{key}={value}")
    must("set", name, "watermarks=auto", "prefetch=8k", "fetch_timeout=0", "codec=lz4", "write_wait=60",
         "read_age=young", "huge=age", "overflow_limit=off")
    settings = json.loads(must("status", "--json", name))[0]["settings"]
    expect(settings == {"codec": "lz4", "watermarks": "auto", "prefetch": "8192", "fetch_timeout": "0",
                        "write_wait": "60", "read_age": "young", "huge": "age",
                        "overflow_limit": "off"},
           f"status says {settings}")
    refused(1, "START:STOP", "set", name, "watermarks=80:90")
    refused(1, "prefetch=lots", "set", name, "prefetch=lots")
    refused(1, "has no store", "set", name, "overflow-lost=1")
    expect(server.counters()["mem_limit"] == 80 << 20, "a refused setting was followed")


def compacts(server, handle, name):
    before = server.counters()["pool_frames"]
    for page in range(0, PAGES, 2):
        handle.trim(PAGE, page * PAGE)
    said = must("compact", name)
    expect(re.fullmatch(rf"{name}: pool \S+ \S+, was \S+ \S+\n|{name}: pool \S+, was \S+\n", said), said)
    expect(server.counters()["pool_frames"] < 0.75 * before, f"compact says {said!r} and did nothing")


def leave(name, *options):
    """What overflow says. Again, where its store was late: the server waits for 5 s."""
    done = servers.again_if_late(lambda: cli("overflow", *options, name), "did not answer")
    expect(done.returncode == 0 and not done.stderr, f"overflow {options}: {done}")
    return done.stdout


def overflows():
    """Pages leave when asked, the right ones, and come back right; what stops it is said."""
    donor = servers.Donor()
    server = servers.Server(size=SIZE, overflow=donor.uri).start()
    name = server.parameters["name"]
    handle, model = server.connect(), content.Model(SIZE)
    source = content.Source(content.Corpus(harness.seeded()))
    for offset in range(0, 4 << 20, PAGE):
        model.write(handle, offset, source.bytes(PAGE))
    model.write(handle, 8 << 20, os.urandom(100 * PAGE))
    expect("no page in RAM is known to be idle" in must("overflow", name), "pages are idle at once")
    expect("does not compress" in must("overflow", "--huge", "--idle", "60", name), "idle huge pages")
    huge = server.counters()["huge_pages"]
    expect(huge >= 100, f"{huge} pages do not compress: nothing is tested")
    said = leave(name, "--huge")
    counters = server.counters()
    expect(counters["huge_pages"] == 0 and counters["pages_store"] == huge and counters["pages_pool"] == 1124 - huge,
           f"--huge: {said} {counters}")
    wait_for(lambda: "no page" not in leave(name, "--idle", "1"), 60, "pages that are idle for 1 s")
    said = leave(name, "--all")
    counters = server.counters()
    expect(counters["pages_pool"] == 0 and counters["pages_store"] > 600, f"--all: {said} {counters}")
    expect(re.match(rf"{name}: [\d.]+ \w+ left for the store, as [\d.]+ \w+ there", said), said)
    model.check_all(handle, 4 << 20)
    overflows_wrong_ways(server, donor, name, handle, source)
    handle.shutdown()


def overflows_wrong_ways(server, donor, name, handle, source):
    for call in (["--idle"], ["--idle", "x", name], ["--idle", "-1", name], ["--all", "--huge", name],
                 ["--all", "--idle", "5", name], ["--idle", "1", "--idle", "2", name], [name, name], ["-a"]):
        refused(2, "usage: farswap overflow", "overflow", *call)
    refused(1, "no device nobody", "overflow", "nobody")
    handle.pwrite(source.bytes(PAGE), 0)
    refused(1, "has lost nothing", "set", name, "overflow-lost=1")
    refused(1, "which?", "set", name, "overflow-lost=2")
    expect("a day may leave" not in must("status", name), "status tells a limit that there is not")
    must("set", name, "overflow_limit=1M")
    expect(" of 1 MiB a day may leave" in must("status", name), must("status", name))
    limit = json.loads(must("status", "--json", name))[0]["limit"]
    expect(limit["bytes"] == limit["left"] == 1 << 20 and limit["refill_s"] == 0, f"limit is {limit}")
    must("set", name, "overflow_limit=off")
    donor.process.kill()
    donor.process.wait()
    refused(1, "did not answer, or would not take it: the rest stays in RAM", "overflow", "--all", name)
    expect(server.counters()["pages_pool"] == 1, "the page that could not leave is gone")
    must("set", name, "overflow-lost=1")
    fails_with_eio(handle, PAGE)
    server.kill()
    refused(1, "nobody to ask", "overflow", name)
    must("destroy", "--local", name)


def fails_with_eio(handle, offset):
    """A page whose store was declared lost is an error, and nobody waits for it."""
    try:
        handle.pread(PAGE, offset)
    except nbd.Error as error:
        expect(error.errnum == errno.EIO, f"{error}")
        return
    raise harness.Failed("a page of a store that is lost was read")


def overflow_on_a_terminal():
    """While the donor takes its time; and the next server does what a dead one was asked."""
    donor = servers.Donor()
    server = servers.Server(size=SIZE, overflow=donor.uri).start()
    name = server.parameters["name"]
    handle = fill(server)
    handle.shutdown()
    for _ in range(TRIES):
        stand_still(donor.process.pid)
        process, master = on_a_terminal("overflow", "--all", name)
        said = read_until(master, r" %, ")
        expect(f"{name}: pages leave: " in said, f"it says {said!r}")
        server.kill()
        rest = read_until(master, r"the next one will do it")
        expect(process.wait(60) == 1, rest)
        os.kill(donor.process.pid, signal.SIGCONT)
        server.start()
        if "did not answer" not in said + rest:  # we were later than the server waits for its store
            break
    expect("the next one will do it" in rest, f"of a dead server: {rest!r}")
    wait_for(lambda: server.counters()["pages_pool"] == 0, 60, "the next server to do it")
    server.check()


def on_a_terminal(*arguments):
    """The process, and where its terminal can be read."""
    master, slave = os.openpty()
    process = subprocess.Popen([built("client/cli/farswap"), *arguments], env=servers.image_environment(),
                               stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    at_exit(harness.end, process)
    return process, master


def read_until(master, pattern, seconds=60):
    """What the terminal got, up to that."""
    got = []

    def more():
        try:
            got.append(os.read(master, 4096).decode())
        except OSError:  # the other end is closed
            return True
        return pattern is not None and re.search(pattern, "".join(got))
    wait_for(more, seconds, f"{pattern!r} on the terminal, which has {got}")
    return "".join(got)


def takes_its_time(server, name):
    """Who waits is told for what, and for how long; and a server that dies is not waited for."""
    stand_still(server.pid)
    process, master = on_a_terminal("compact", name)
    said = read_until(master, r" [1-9]\d* s")
    expect(f"{name}: packing" in said and "\r\033[K" in said, f"it says {said!r}")
    os.kill(server.pid, signal.SIGCONT)
    rest = read_until(master, None)
    expect(process.wait(60) == 0 and "\r\033[K" in rest and "was" in rest, f"in the end {rest!r}")
    stand_still(server.pid)
    process, master = on_a_terminal("compact", name)
    read_until(master, r"packing")
    server.kill()
    rest = read_until(master, r"the server of")
    expect(process.wait(60) == 1 and "is gone" in rest, f"of a dead server: {process.returncode}, {rest!r}")
    refused(1, "nobody to ask", "compact", name)
    refused(1, "nobody to ask", "set", name, "memory=80M")


def store_takes_its_time():
    """destroy, while the donor does not answer."""
    donor = servers.Donor()
    server = servers.Plugin(overflow=donor.uri).start()
    server.stop()
    for _ in range(TRIES):
        stand_still(donor.process.pid)
        process, master = on_a_terminal("destroy", server.parameters["name"])
        said = read_until(master, r"forgets it: ")
        os.kill(donor.process.pid, signal.SIGCONT)
        rest = read_until(master, None)
        status = process.wait(60)
        if "no answer within 3 s" not in said + rest:  # we were later than it waits for its store
            break
    expect(status == 0 and "forgets it: " in said and "destroyed" in rest, f"destroy: {said!r} {rest!r}")


def nobody_may(server, name):
    """The image is its owner's: another user sees no device, and can neither ask nor look, also when the
    folder is open to all."""
    before = server.counters()
    os.chmod(workdir(), 0o711)
    run_dir = servers.image_environment()["FARSWAP_RUNDIR"]
    for mode in (0o755, 0o777):
        os.chmod(run_dir, mode)
        for call in (["set", name, "memory=72M"], ["compact", name], ["overflow", name], ["stats", name], ["status", name],
                     ["check", name], ["destroy", name]):
            done = cli(*call, prefix=NOBODY)
            expect(done.returncode == 1 and done.stderr and not done.stdout, f"nobody: {call}: {done}")
    attach = "import ctypes, sys; sys.exit(ctypes.CDLL(None).shmat(int(sys.argv[1]), None, 0o10000) != -1)"
    tried = [sys.executable, "-c", attach, str(server.shmid())]
    expect(run(tried).returncode == 1, "even its owner can't map the image: nothing is tested")
    expect(run([*NOBODY, *tried]).returncode == 0, "another user can map the image")
    expect(server.counters()["mem_limit"] == before["mem_limit"], "another user changed memory=")
    expect(server.alive() and server.shmid() is not None, "another user ended it")
    os.chmod(run_dir, 0o755)


def helps():
    """--help of every command: what it is called with, what it does, and lines to copy."""
    commands = re.findall(r"^  farswap (\w+)", must("--help"), re.M)
    expect(len(commands) > 8, f"--help lists {commands}")
    for command in commands:
        for option in ("--help", "-h"):
            said = must(command, option)
            expect(said.startswith(f"usage: farswap {command}"), f"{command}: {said}")
            examples = said.partition("\nExamples:\n")[2].splitlines()
            expect(examples and all(line.startswith(f"  farswap {command}") for line in examples),
                   f"{command} has no examples: {said}")
            expect(must(command, "swap0", option) == said and must("help", command) == said and
                   must(option, command) == said, f"help of {command} elsewhere")
        refused(2, f"{command} has no option --wrong", command, "--wrong") if command != "up" else \
            refused(2, "--wrong: see `farswap up --help`", command, "--wrong")
    refused(2, "there is no command upp", "upp")
    refused(2, "there is no command upp", "help", "upp")
    refused(2, "not how list is called", "list", "swap0")
    refused(2, "not how stats is called", "stats", "--explain", "--classes")
    for command in commands:
        if command not in ("up", "down", "list", "top", "set"):
            refused(1, "there is no device nobody", command, "nobody")


def test():
    helps()
    server = servers.Server(size=SIZE).start()
    name = server.parameters["name"]
    handle = fill(server)
    expect(json.loads(must("status", name, "--json")) and "requests" in must("stats", name, "--explain"),
           "an option after the name")
    sets(server, name)
    compacts(server, handle, name)
    handle.shutdown()
    nobody_may(server, name)
    refused(1, f"{name} has no store", "overflow", name)
    takes_its_time(server, name)
    store_takes_its_time()
    overflows()
    overflow_on_a_terminal()


harness.main(test)
