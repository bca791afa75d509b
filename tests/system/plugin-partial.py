#!/usr/bin/python3
"""plugin-partial: reads, writes, zeroes and trims at any offset and length, against a plain model.

First every combination of a few bytes around page borders, then random ranges of up to a few
hundred pages that begin and end anywhere.
"""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE  # noqa: E402

SIZE = 192 << 20
ROUNDS = 7000


def near(border):
    """Offsets at which an off-by-one would show."""
    return [border + d for d in (-17, -16, -9, -8, -2, -1, 0, 1, 2, 7, 8, 15, 16, PAGE // 2)]


def borders(handle, model, source):
    """Every start near one border with every end near that and the next two."""
    base = 40 * PAGE
    combinations = 0
    for start in near(base):
        for end in near(base) + near(base + PAGE) + near(base + 2 * PAGE):
            if end <= start:
                continue
            length = end - start
            for change in (lambda: model.write(handle, start, source.bytes(length)),
                           lambda: model.zero(handle, start, length),
                           lambda: model.write(handle, start, b"\xa5" * length),
                           lambda: model.trim(handle, start, length)):
                change()
                model.check(handle, base - PAGE, 5 * PAGE)
            model.write(handle, base - PAGE, source.bytes(5 * PAGE))
            model.check(handle, start, length)
            combinations += 1
    print(f"{combinations} combinations near page borders")


def anywhere(handle, model, source, rng):
    for _ in range(ROUNDS):
        length = rng.choice((rng.randrange(1, 64), rng.randrange(1, 3 * PAGE),
                             rng.randrange(1, 500 * PAGE)))
        offset = rng.randrange(SIZE - length + 1)
        verb = rng.choices(("write", "check", "zero", "trim"), (70, 20, 5, 5))[0]
        if verb == "write":
            model.write(handle, offset, source.bytes(length))
        else:
            getattr(model, verb)(handle, offset, length)
        model.check(handle, max(0, offset - PAGE), length)


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    handle = servers.device(str(SIZE), "256M", patient=True).connect()
    model = content.Model(SIZE)
    borders(handle, model, source)
    anywhere(handle, model, source, rng)
    model.check_all(handle)
    content.enough(model.compared, 200_000)


harness.main(test)
