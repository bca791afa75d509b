#!/usr/bin/python3
"""plugin-large: requests of 32 and 64 MiB (nbdkit's largest), aligned and not, against a model."""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402

SIZE = 512 << 20
MIB = 1 << 20


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    server = servers.device("512M", "640M")
    handle = server.connect()
    model = content.Model(SIZE)
    for length, shift in ((32 * MIB, 0), (64 * MIB, 0), (32 * MIB, 1), (64 * MIB, 4095)):
        for offset in range(0, SIZE - length + 1, length):
            offset = min(offset + shift, SIZE - length)
            model.write(handle, offset, source.bytes(length))
        model.check_all(handle, length)
        model.check(handle, shift, length)
    for length in (32 * MIB, 64 * MIB):
        offset = rng.randrange(SIZE - length)
        model.zero(handle, offset, length)
        model.trim(handle, rng.randrange(SIZE - length), length)
        model.check_all(handle, 64 * MIB)
    content.enough(model.compared, 500_000)


harness.main(test)
