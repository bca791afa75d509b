#!/usr/bin/python3
"""Sorts records of 2 KiB by their key and prints the SHA-256 of the result.

A program that knows nothing of farswap: Python's own heap, its own sort, a digest that is the same
however little memory it ran with. usage: sort_records.py COUNT
"""

import hashlib
import os
import random
import sys

RECORD = 2048
KEY = 16


def corpus(rng, size):
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(300)]
    text = ""
    while len(text) < size:
        text += " ".join(rng.choices(words, k=500)) + "\n"
    return text.encode()


def main():
    rng = random.Random(20)
    text = corpus(rng, 1 << 19)
    records = []
    for _ in range(int(sys.argv[1])):
        start = rng.randrange(len(text) - RECORD)
        records.append(b"%016x" % rng.getrandbits(64) + text[start : start + RECORD - KEY])
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda record: record[:KEY]):
        digest.update(record)
    print(digest.hexdigest(), flush=True)
    # Freeing the records one by one, in sorted order, would swap all of them in once more, for
    # nothing; and there Linux 6.18 sometimes kills a squeezed program although swap is free (2 of 8
    # times, on stock nbdkit memory as well).
    os._exit(0)


main()
