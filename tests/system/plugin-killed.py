#!/usr/bin/python3
"""plugin-killed: kill -9 of the server under load, again and again; the next one goes on.

Each round, connections write pages of their own, whole and in part, discard and read, until the
server is killed in the middle; half of them overflow to a donor all the while. The next server must
have every write that was answered, and of those that were not each page old or new, whole. memory=
and codec= change between the rounds. At the end `farswap check` proves the layout, with no leftover.
"""

import random
import sys
import threading
import time

sys.path.insert(0, sys.path[0] + "/lib")

import nbd  # noqa: E402

import harness  # noqa: E402
import servers  # noqa: E402
from content import Corpus, Source  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

ROUNDS = 4 if servers.sanitizer() else 10
CONNECTIONS = 3
PAGES = 6 << 10  # of each connection
SIZE = CONNECTIONS * PAGES * PAGE
LONGEST = 32


class Range:
    """A connection's pages, as they were acknowledged, and what is under way."""

    def __init__(self, number, corpus):
        self.number = number
        self.base = number * PAGES * PAGE
        self.bytes = bytearray(PAGES * PAGE)
        self.pending = None  # (first page, what it may be by now)
        self.random = random.Random(number)
        self.source = Source(corpus, 1 + (number << 40))
        self.done = 0

    def one(self, handle):
        """One request; what it changes is pending until it is answered."""
        count = self.random.randint(1, LONGEST)
        first = self.random.randrange(PAGES - count)
        verb = self.random.randrange(8)
        offset, length = first * PAGE, count * PAGE
        if verb == 0:
            expect(handle.pread(length, self.base + offset) == self.bytes[offset:offset + length],
                   f"pages of connection {self.number} are not what was written")
            return
        new = bytes(length) if verb == 1 else bytes(self.source.bytes(length))
        if verb == 2:  # part of a page
            offset, length = offset + 100, 500
            page = bytearray(self.bytes[first * PAGE:(first + 1) * PAGE])
            page[100:600] = new[:500]
            self.pending = (first, bytes(page))
            handle.pwrite(new[:500], self.base + offset)
            new = bytes(page)
        elif verb == 1:
            self.pending = (first, new)
            handle.trim(length, self.base + offset)
        else:
            self.pending = (first, new)
            handle.pwrite(new, self.base + offset)
        self.bytes[first * PAGE:first * PAGE + len(new)] = new
        self.pending = None
        self.done += 1

    def work(self, server):
        try:
            handle = server.connect()
            while True:
                self.one(handle)
        except nbd.Error:
            pass  # the server was killed

    def settle(self, handle):
        """After a kill: every page is what was acknowledged, or what was under way."""
        first, new = self.pending or (0, b"")
        self.pending = None
        for at in range(0, len(self.bytes), 1 << 20):
            got = handle.pread(min(1 << 20, len(self.bytes) - at), self.base + at)
            if got == self.bytes[at:at + len(got)]:
                continue
            for page in range(0, len(got), PAGE):
                have, where = got[page:page + PAGE], at + page
                if have == self.bytes[where:where + PAGE]:
                    continue
                begin = where - first * PAGE
                expect(0 <= begin < len(new) and have == new[begin:begin + PAGE],
                       f"connection {self.number}: page {where // PAGE} is neither what was "
                       f"acknowledged nor what was under way")
                self.bytes[where:where + PAGE] = have


def worked(ranges, server):
    return all(one.done > 50 for one in ranges) and server.counters()["overflow_segments"] > 0


def test():
    rng = random.Random(4)
    donor = servers.Donor()
    corpus = Corpus(rng)
    ranges = [Range(number, corpus) for number in range(CONNECTIONS)]
    server = servers.Plugin(size=str(SIZE), memory="16M", overflow=donor.uri, write_wait="60").start()
    name = server.parameters["name"]
    for turn in range(ROUNDS):
        threads = [threading.Thread(target=one.work, args=(server,)) for one in ranges]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.1, 1.5))
        if turn == ROUNDS - 1:
            wait_for(lambda: worked(ranges, server), 120, "every connection to write, and pages to overflow")
        server.kill()
        for thread in threads:
            thread.join(60)
            expect(not thread.is_alive(), "a client hangs after its server was killed")
        changed = {"memory": rng.choice(["12M", "16M", "24M"]), "codec": rng.choice(["lz4", "zstd"])}
        server = servers.Plugin(name=name, size=None, **changed).start()
        handle = server.connect()
        for one in ranges:
            one.settle(handle)
        handle.shutdown()
        server.check()
    counters = server.counters()
    expect(counters["corrupt_pages"] == 0 and counters["store_lost_pages"] == 0, "pages were lost")
    server.stop()
    done = server.cli("check", name)
    expect(done.returncode == 0 and "no problem found" in done.stdout, done.stdout)


harness.main(test)
