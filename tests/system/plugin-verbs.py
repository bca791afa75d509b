#!/usr/bin/python3
"""plugin-verbs: what the server says of itself, and trim, zero, FUA, flush and cache by content."""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import nbd  # noqa: E402

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect  # noqa: E402

SIZE = (256 << 20) + 3 * PAGE
ROUNDS = 2500


def says(handle):
    expect(handle.get_size() == SIZE, f"size is {handle.get_size()}, asked for {SIZE}")
    if not isinstance(handle, nbd.NBD):
        return
    for name in ("can_multi_conn", "can_trim", "can_zero", "can_fast_zero", "can_flush", "can_fua",
                 "can_cache"):
        expect(getattr(handle, name)(), f"{name} is not offered")
    expect(not handle.is_read_only(), "the device is read-only")
    if harness.STOCK:
        return
    for kind, size in ((nbd.SIZE_MINIMUM, 1), (nbd.SIZE_PREFERRED, PAGE)):
        got = handle.get_block_size(kind)
        expect(got == size, f"block size {kind} is {got}, expected {size}")
    maximum = handle.get_block_size(nbd.SIZE_MAXIMUM)
    expect(maximum >= 32 << 20, f"the largest request is {maximum}")


def refuses(handle):
    """Past the end: an error, and the connection lives."""
    if isinstance(handle, nbd.NBD):
        handle.set_strict_mode(0)
    for call, arguments in ((handle.pread, (PAGE, SIZE - 1)), (handle.pwrite, (bytes(PAGE), SIZE)),
                            (handle.trim, (PAGE, SIZE - 1)), (handle.zero, (PAGE, SIZE - 1))):
        try:
            call(*arguments)
        except (nbd.Error, OSError):
            continue
        raise harness.Failed(f"{call.__name__} past the end succeeded")
    handle.pread(1, SIZE - 1)


def frees(handle, server):
    """A discard and a zero without the no-hole flag give memory back at once."""
    if harness.STOCK:
        return
    full = server.counters()["pages_stored"]
    expect(full >= SIZE // PAGE // 2, f"pages_stored is {full} after writing")
    handle.trim(128 << 20, 0)
    handle.zero(SIZE - (128 << 20), 128 << 20)
    counters = server.counters()
    expect(counters["pages_stored"] == 0, f"pages_stored is {counters['pages_stored']} after discard")
    expect(counters["compr_data_size"] == 0, "objects stay after discard")


def at_random(handle, model, source, rng):
    flags = (0, nbd.CMD_FLAG_FUA)
    for _ in range(ROUNDS):
        length = rng.choice((rng.randrange(1, 300) * PAGE, rng.randrange(1, 300 * PAGE)))
        offset = rng.randrange(SIZE - length + 1)
        if length % PAGE == 0:
            offset -= offset % PAGE
        verb = rng.choices(("write", "trim", "zero", "check", "flush", "cache"),
                           (60, 8, 8, 20, 2, 2))[0]
        if verb == "write":
            model.write(handle, offset, source.bytes(length), rng.choice(flags))
        elif verb == "trim":
            model.trim(handle, offset, length, rng.choice(flags))
        elif verb == "zero":
            model.zero(handle, offset, length, rng.choice(flags) | rng.choice(
                (0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO)))
        elif verb == "flush":
            handle.flush()
        elif verb == "cache":
            handle.cache(length, offset)
        else:
            model.check(handle, offset, length)
        model.check(handle, offset, length)


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    server = servers.device(str(SIZE), "320M", patient=True)
    handle = server.connect()
    says(handle)
    model = content.Model(SIZE)
    for offset in range(0, SIZE, 16 << 20):
        model.write(handle, offset, source.bytes(min(16 << 20, SIZE - offset)))
    model.check_all(handle)
    at_random(handle, model, source, rng)
    model.check_all(handle)
    content.enough(model.compared, 300_000)
    refuses(handle)
    frees(handle, server)
    handle.shutdown()
    expect(server.stop() == 0, "the server did not end with 0 on SIGTERM")


harness.main(test)
