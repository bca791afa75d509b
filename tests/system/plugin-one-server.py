#!/usr/bin/python3
"""plugin-one-server: an image has one server, and is never made or taken over by accident.

A second server on a served image is refused; so is one on an image whose server stopped or was
killed, with the line that destroys it; destroying a served image is refused as well. After
`farswap destroy` the name is free.
"""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import harness  # noqa: E402
import servers  # noqa: E402
from harness import expect  # noqa: E402


def refused(name, *words):
    """A start on this name fails with one line that has these words."""
    second = servers.Plugin(name=name)
    line = second.refusal()
    for word in words:
        expect(word in line, f"the refusal does not say {word!r}: {line}")


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
    refused(name, f"farswap destroy {name}")
    done = first.cli("destroy", name)
    expect(done.returncode == 0, f"farswap destroy: {done.stderr}")
    expect(first.shmid() is None, "the image's file is still there")
    again = servers.Plugin(name=name).start()
    expect(again.connect().pread(4, 4096) == bytes(4), "a new image holds old data")
    again.stop()
    refused(name, f"farswap destroy {name}")


harness.main(test)
