#!/usr/bin/python3
"""plugin-large: requests of the largest size (64 MiB with nbdkit) and half of it, aligned and not,
against a model."""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import nbd  # noqa: E402

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402

SIZE = 512 << 20


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    server = servers.device("512M", "640M", patient=True)
    handle = server.connect()
    model = content.Model(SIZE)
    most = handle.get_block_size(nbd.SIZE_MAXIMUM)
    for length, shift in ((most // 2, 0), (most, 0), (most // 2, 1), (most, 4095)):
        for offset in range(0, SIZE - length + 1, length):
            offset = min(offset + shift, SIZE - length)
            model.write(handle, offset, source.bytes(length))
        model.check_all(handle, length)
        model.check(handle, shift, length)
    for length in (most // 2, most):
        offset = rng.randrange(SIZE - length)
        model.zero(handle, offset, length)
        model.trim(handle, rng.randrange(SIZE - length), length)
        model.check_all(handle, most)
    content.enough(model.compared, 500_000)


harness.main(test)
