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
SECONDS = 3


def overflow(door, disk, model, source):
    """All of it written; the first half is in the store then, the last pages are not."""
    for offset in range(0, SIZE, 4 << 20):
        model.write(disk, offset, source.bytes(4 << 20))
    wait_for(lambda: door.counters()["pages_store"] > SIZE // PAGE // 2, 30, "pages to overflow")


def local_traffic(disk, model, source, seconds):
    """Reads and writes at the end of the device; the longest answer's seconds."""
    longest, count, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        offset = SIZE - (1 + count % 64) * PAGE
        started = time.monotonic()
        model.write(disk, offset, source.bytes(PAGE))
        model.check(disk, offset, PAGE)
        longest = max(longest, time.monotonic() - started)
        count += 1
    return longest, count


def test():
    fuse.alone()
    source = content.Source(content.Corpus(harness.seeded()))
    donor = servers.Donor("1G")
    door = fuse.Fuse(size=str(SIZE), memory="64M", overflow=donor.uri).start()
    disk, model = door.connect(), content.Model(SIZE)
    overflow(door, disk, model, source)
    results = {}
    expect(disk.pread(PAGE, 0) == model.bytes[:PAGE], "page 0 is wrong")

    def read(number):
        results[number] = disk.pread(PAGE, number * 64 * PAGE)

    os.kill(donor.process.pid, signal.SIGSTOP)
    harness.at_exit(os.kill, donor.process.pid, signal.SIGCONT)
    threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    local = []
    worker = threading.Thread(target=lambda: local.extend(local_traffic(disk, model, source, SECONDS)))
    worker.start()
    worker.join(SECONDS + 10)
    stuck, answered = worker.is_alive(), len(results)
    os.kill(donor.process.pid, signal.SIGCONT)
    expect(not stuck, "local reads and writes wait for the store")
    longest, count = local
    for thread in threads:
        thread.join(60)
    print(f"{count} local writes and reads while {READERS - answered} reads waited, "
          f"longest {longest * 1000:.0f} ms")
    expect(answered < READERS // 4, f"{answered} of {READERS} reads did not wait: nothing is tested")
    expect(longest < 1, f"a local write and read took {longest:.1f} s")
    for number in range(READERS):
        model.compare(results[number], number * 64 * PAGE)
    disk.shutdown()


harness.main(test)
