#!/usr/bin/python3
"""cli-steer: set and compact on a device that is in use, wrong ways of both, who may not, and what the
terminal shows while a server takes its time. Every command's --help has examples."""

import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, at_exit, built, expect, run, wait_for, workdir  # noqa: E402

SIZE = 64 << 20
PAGES = SIZE // PAGE // 2
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
    wait_for(lambda: server.counters()["mem_limit"] == 72 << 20, 10, "the limit to be followed")
    must("set", name, "codec=zstd:3", "memory=80M")
    wait_for(lambda: server.counters()["mem_limit"] == 80 << 20, 10, "two settings in one call")
    refused(1, "memory=lots is not allowed", "set", name, "memory=lots")
    refused(1, "no store", "set", name, "memory=4M")
    refused(1, "codec=gzip", "set", name, "codec=gzip")
    refused(1, "can't be changed", "set", name, "size=1G")
    refused(1, "say memory=SIZE", "set", name, "memory")
    refused(1, "no device nobody", "set", "nobody", "memory=80M")
    for call in (["set"], ["set", name], ["set", "--memory", name], ["compact", "a", "b"], ["compact", "-x"]):
        refused(2, "usage: farswap", *call)
    expect(server.counters()["mem_limit"] == 80 << 20, "a refused setting was followed")


def compacts(server, handle, name):
    before = server.counters()["pool_frames"]
    for page in range(0, PAGES, 2):
        handle.trim(PAGE, page * PAGE)
    said = must("compact", name)
    expect(re.fullmatch(rf"{name}: pool \S+ \S+, was \S+ \S+\n|{name}: pool \S+, was \S+\n", said), said)
    expect(server.counters()["pool_frames"] < 0.75 * before, f"compact says {said!r} and did nothing")


def on_a_terminal(*arguments):
    """The process, and where its terminal can be read."""
    master, slave = os.openpty()
    process = subprocess.Popen([built("client/cli/farswap"), *arguments], env=servers.image_environment(),
                               stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    at_exit(harness.end, process)
    return process, master


def read_until(master, text, seconds=30):
    """What the terminal got, up to that text."""
    got = []

    def more():
        try:
            got.append(os.read(master, 4096).decode())
        except OSError:  # the other end is closed
            return True
        return text is not None and text in "".join(got)
    wait_for(more, seconds, f"{text!r} on the terminal, which has {got}")
    return "".join(got)


def takes_its_time(server, name):
    """Who waits is told for what, and for how long; and a server that dies is not waited for."""
    os.kill(server.pid, signal.SIGSTOP)
    process, master = on_a_terminal("compact", name)
    said = read_until(master, " 1 s")
    expect(f"{name}: packing" in said and "\r\033[K" in said, f"it says {said!r}")
    os.kill(server.pid, signal.SIGCONT)
    rest = read_until(master, None)
    expect(process.wait(30) == 0 and "\r\033[K" in rest and "was" in rest, f"in the end {rest!r}")
    os.kill(server.pid, signal.SIGSTOP)
    process, master = on_a_terminal("compact", name)
    read_until(master, "packing")
    server.kill()
    rest = read_until(master, "the server of")
    expect(process.wait(30) == 1 and "is gone" in rest, f"of a dead server: {rest!r}")
    refused(1, "nobody to ask", "compact", name)
    refused(1, "nobody to ask", "set", name, "memory=80M")


def store_takes_its_time():
    """destroy, while the donor does not answer."""
    donor = servers.Donor()
    server = servers.Plugin(overflow=donor.uri).start()
    server.stop()
    os.kill(donor.process.pid, signal.SIGSTOP)
    process, master = on_a_terminal("destroy", server.parameters["name"])
    read_until(master, "forgets it: ")
    os.kill(donor.process.pid, signal.SIGCONT)
    rest = read_until(master, None)
    expect(process.wait(60) == 0 and "destroyed" in rest, f"destroy: {rest!r}")


def nobody_may(server, name):
    """The image is its owner's: another user sees no device, and can neither ask nor look, also when the
    folder is open to all."""
    before = server.counters()
    os.chmod(workdir(), 0o711)
    run_dir = servers.image_environment()["FARSWAP_RUNDIR"]
    for mode in (0o755, 0o777):
        os.chmod(run_dir, mode)
        for call in (["set", name, "memory=72M"], ["compact", name], ["stats", name], ["status", name],
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
    refused(2, "there is no command upp", "upp")


def test():
    helps()
    server = servers.Server(size=SIZE).start()
    name = server.parameters["name"]
    handle = fill(server)
    sets(server, name)
    compacts(server, handle, name)
    handle.shutdown()
    nobody_may(server, name)
    takes_its_time(server, name)
    store_takes_its_time()


harness.main(test)
