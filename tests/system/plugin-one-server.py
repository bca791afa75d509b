#!/usr/bin/python3
"""plugin-one-server: an image has one server at a time, and is never replaced by accident.

A second server on a served image is refused, and so is destroying it. A server that comes after one
that was stopped or killed goes on with the image, if what it is told agrees with it: another size,
another store, or a superblock that is damaged are refused with a line that says what to do, and the
pages stay. After `farswap destroy` the name is free.
"""

import subprocess
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import harness  # noqa: E402
import servers  # noqa: E402
from harness import built, expect, spawn, stand_still, wait_for  # noqa: E402


def refused(name, *words, **parameters):
    """A start on this name fails with one line that has these words."""
    second = servers.Plugin(name=name, **parameters)
    line = second.refusal()
    for word in words:
        expect(word in line, f"the refusal does not say {word!r}: {line}")


def kept(name, **parameters):
    """A server goes on with the image, and finds what the first one wrote."""
    server = servers.Plugin(name=name, **parameters).start()
    expect(server.connect().pread(4, 4096) == b"kept", "the pages are gone")
    server.check()
    return server


def test():
    first = servers.Plugin().start()
    name = first.parameters["name"]
    handle = first.connect()
    handle.pwrite(b"kept", 4096)
    refused(name, name, "serve")
    done = first.cli("destroy", name)
    expect(done.returncode != 0, "a served image was destroyed")
    expect(handle.pread(4, 4096) == b"kept", "the first server lost its data")
    del handle
    first.kill()

    refused(name, "size=", "64 MiB", "another name=", size="65M")
    donor = servers.Donor()
    refused(name, "overflow=", "without a store", overflow=donor.uri)
    refused(name, "memory=", "at least", memory="1M")
    second = kept(name, size=None, memory=None, codec=None)
    expect(second.counters()["mem_limit"] == 96 << 20, "memory= is not the image's")
    second.stop()
    second = kept(name, memory="64M", codec="zstd")
    expect(second.counters()["mem_limit"] == 64 << 20, "memory= did not change")
    second.kill()

    done = first.cli("destroy", name)
    expect(done.returncode == 0, f"farswap destroy: {done.stderr}")
    expect(first.shmid() is None, "the image's file is still there")
    again = servers.Plugin(name=name).start()
    expect(again.connect().pread(4, 4096) == bytes(4), "a new image holds old data")
    again.stop()


def test_store():
    """The image says where its pages are; a server need not be told, but must not be told wrong."""
    donor, other = servers.Donor(), servers.Donor()
    first = servers.Plugin(overflow=donor.uri).start()
    name = first.parameters["name"]
    first.connect().pwrite(b"kept", 4096)
    first.kill()
    refused(name, donor.uri, "overflow=", overflow=other.uri)
    kept(name, size=None).kill()
    kept(name, overflow=donor.uri).stop()


def test_nobody_to_ask():
    """farswap compact does not wait for a server that is gone."""
    server = servers.Plugin().start()
    stand_still(server.pid)
    asked = spawn([built("client/cli/farswap"), "compact", server.parameters["name"]],
                  env=servers.image_environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: compact_is_asked(asked), 60, "farswap compact to ask")
    server.kill()
    said = asked.communicate(timeout=60)[1]
    expect(asked.returncode != 0 and "is gone" in said, f"farswap compact said: {said}")


def compact_is_asked(process):
    """It sleeps between two looks at the answer."""
    with open(f"/proc/{process.pid}/syscall") as call:
        return call.read().split()[0] in ("35", "230")  # nanosleep, clock_nanosleep


def everything():
    test()
    test_store()
    test_nobody_to_ask()


harness.main(everything)
