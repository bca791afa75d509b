#!/usr/bin/python3
"""plugin-core-dump: a core of the server must not hold what every process of the host swapped out.

A random text is written into many pages, then the server works on other contents from several
connections (so that buffers in which the text passed by are used again) and is ended by SIGABRT in
the midst of it. The core that the kernel writes must exist, must not hold the text, and the same
done to nbdkit memory must find it, or the search would prove nothing.
"""

import glob
import mmap
import os
import signal
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, Skip, expect, wait_for  # noqa: E402

SIZE = 64 << 20
LOAD = 3  # connections


def plant(server, secret, rng):
    """The text in pages that compress and in pages that don't, by small and large requests."""
    handle = server.connect()
    soft = (secret + bytes(PAGE - len(secret))) * 64
    hard = b"".join(secret + rng.randbytes(PAGE - len(secret)) for _ in range(64))
    for offset in range(0, SIZE // 2, len(soft) + len(hard)):
        handle.pwrite(soft + hard, offset)
    handle.pwrite(secret + bytes(PAGE - len(secret)), SIZE // 2 - PAGE)
    expect(handle.pread(len(secret), 0) == secret, "the text is not on the device")
    other = content.Source(content.Corpus(rng))
    for length in (PAGE, len(soft) + len(hard)):
        for _ in range(50):
            handle.pwrite(other.bytes(length), SIZE // 2)
            handle.pread(length, SIZE // 2)
    handle.shutdown()


def load(server, rng, number, flag):
    """Works until the server dies."""
    handle = server.connect()
    source = content.Source(content.Corpus(rng), first=(number + 1) << 40)
    done = 0
    try:
        while True:
            length = rng.choice((1, 8, 64)) * PAGE
            offset = SIZE // 2 + rng.randrange(SIZE // 2 - length)
            handle.pwrite(source.bytes(length), offset)
            handle.pread(length, offset)
            done += 1
            if done == 500:
                open(flag, "w").close()
    except Exception:  # the server was aborted, as meant
        expect(done >= 500, "the server died before its time")


def core_of(server, rng, secret, directory):
    """Plants, loads, aborts; returns the core's path."""
    server.start()
    plant(server, secret, rng)
    flags = [os.path.join(directory, f"loaded{i}") for i in range(LOAD)]
    workers = [harness.Worker(load, server, rng, i, flag) for i, flag in enumerate(flags)]
    wait_for(lambda: all(map(os.path.exists, flags)), 60, "the load to run")
    os.kill(server.pid, signal.SIGABRT)
    server.process.wait()
    for worker in workers:
        worker.join()
    cores = glob.glob(f"{directory}/*core*")
    expect(len(cores) == 1, f"one core was expected in {directory}: {cores}")
    return cores[0]


def holds(path, text):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as core:
        return core.find(text) >= 0


def test():
    with open("/proc/sys/kernel/core_pattern") as pattern:
        kind = pattern.read().strip()
    if "/" in kind or kind.startswith("|"):
        raise Skip(f"kernel.core_pattern is {kind}: cores do not land where the process works")
    if servers.sanitizer():
        raise Skip("a sanitizer allows no cores, and keeps copies of its own")
    rng = harness.seeded()
    secret = rng.randbytes(40)
    for make, wanted in ((servers.Stock, True), (servers.Plugin, False)):
        directory = os.path.join(harness.workdir(), make.__name__)
        os.mkdir(directory)
        prefix = ["env", "-C", directory, "prlimit", "--core=unlimited:unlimited"]
        parameters = {"allocator": "malloc"} if make is servers.Stock else {"memory": "128M"}
        server = make(size=str(SIZE), prefix=prefix, **parameters)
        core = core_of(server, rng, secret, directory)
        size = os.stat(core).st_size
        print(f"{make.__name__}: a core of {size >> 20} MiB, "
              f"{os.stat(core).st_blocks >> 11} MiB on disk")
        expect(size > 1 << 20, "that is no core")
        found = holds(core, secret)
        expect(found == wanted, f"{make.__name__}: the text is {'' if found else 'not '}in the core")
        os.unlink(core)


harness.main(test)
