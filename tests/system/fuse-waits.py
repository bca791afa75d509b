#!/usr/bin/python3
"""fuse-waits: while the store does not answer, reads of pages that are there wait, and everything
else goes on: more readers wait than there are CPUs, and local pages are read and written at once.
"""

import os
import signal
import sys
import threading
import time

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import fuse  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

SIZE = 256 << 20
READERS = 48  # of the 64 that may wait
GOOD_SECONDS = 3  # in which every local access was quick
TRIES = 60        # of a second, since on a busy machine anything may take longer


def overflow(door, disk, model, source):
    """All of it written; the first half is in the store then, the last pages are not."""
    for offset in range(0, SIZE, 4 << 20):
        model.write(disk, offset, source.bytes(4 << 20))
    wait_for(lambda: door.counters()["pages_store"] > SIZE // PAGE // 2, 60, "pages to overflow")


def local_traffic(disk, model, source):
    """Reads and writes at the end of the device for a second; the longest answer's seconds."""
    longest, count, until = 0, 0, time.monotonic() + 1
    while time.monotonic() < until or count == 0:
        offset = SIZE - (1 + count % 64) * PAGE
        started = time.monotonic()
        model.write(disk, offset, source.bytes(PAGE))
        model.check(disk, offset, PAGE)
        longest = max(longest, time.monotonic() - started)
        count += 1
    return longest, count


def good_traffic(disk, model, source, seconds_of):
    """Until enough of it was quick; all that was found in `seconds_of`."""
    while len(seconds_of) < TRIES and sum(longest < 1 for longest, _ in seconds_of) < GOOD_SECONDS:
        seconds_of.append(local_traffic(disk, model, source))


def test():
    fuse.alone()
    source = content.Source(content.Corpus(harness.seeded()))
    donor = servers.Donor("1G")
    door = fuse.Fuse(size=str(SIZE), memory="64M", overflow=donor.uri, write_wait="60").start()
    disk, model = door.connect(), content.Model(SIZE)
    overflow(door, disk, model, source)
    results = {}
    expect(disk.pread(PAGE, 0) == model.bytes[:PAGE], "page 0 is wrong")

    def read(number):
        results[number] = disk.pread(PAGE, number * 64 * PAGE)

    harness.at_exit(os.kill, donor.process.pid, signal.SIGCONT)
    harness.stand_still(donor.process.pid)
    harness.at_exit(door.abort)  # nobody waits any more
    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(READERS)]
    for thread in threads:
        thread.start()
    local = []
    worker = threading.Thread(target=good_traffic, args=(disk, model, source, local), daemon=True)
    worker.start()
    worker.join(120)
    stuck, answered = worker.is_alive(), len(results)
    os.kill(donor.process.pid, signal.SIGCONT)
    expect(not stuck, "local reads and writes wait for the store")
    for thread in threads:
        thread.join(120)
    good = [longest for longest, _ in local if longest < 1]
    print(f"{sum(count for _, count in local)} local writes and reads while {READERS - answered} reads waited, "
          f"longest of {len(local)} s: {', '.join(f'{longest * 1000:.0f} ms' for longest, _ in local)}")
    expect(answered < READERS // 4, f"{answered} of {READERS} reads did not wait: nothing is tested")
    expect(len(good) == GOOD_SECONDS, "a local write and read took longer than a second, again and again")
    for number in range(READERS):
        model.compare(results[number], number * 64 * PAGE)
    disk.shutdown()


harness.main(test)
