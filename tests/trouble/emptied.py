#!/usr/bin/python3
"""emptied: the only store of a device, a redis-server, comes back empty. What it had is waited for and
not given up, status says why, local pages come, also from the next server; and when the store comes
back with its data, every read that waited is answered, and right, and so is what was written meanwhile.
If it never will, somebody says so (overflow-lost=): then those reads fail at once, all others are right,
and the device is used again. One that had nothing is replaced without a word; and if the first comes back
for all that, what only the second has is waited for, too."""

import os
import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import nbd  # noqa: E402

import content  # noqa: E402
import donors  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for, workdir  # noqa: E402

SIZE = 96 << 20
POOL = 12 << 20
READS = 64
WRITES = 1600


class Reads:
    """Some reads all over the device, under way at once."""

    def __init__(self, host, model):
        self.handle, self.model = host.connect(), model
        self.waiting = {}
        self.failing, self.failed = False, 0
        for number in range(READS):
            offset = number * (len(model.bytes) // READS)
            buffer = nbd.Buffer(PAGE)
            self.waiting[self.handle.aio_pread(buffer, offset)] = (offset, buffer)

    def collect(self):
        """Takes the answers that are there; how many wait on."""
        while self.handle.poll(0) == 1:
            pass
        for cookie in list(self.waiting):
            if self._completed(cookie):
                offset, buffer = self.waiting.pop(cookie)
                self.model.compare(bytes(buffer.to_bytearray()), offset)
        return len(self.waiting)

    def _completed(self, cookie):
        try:
            return self.handle.aio_command_completed(cookie)
        except nbd.Error as error:
            expect(self.failing and error.errno == "EIO", f"a read failed: {error}")
            self.waiting.pop(cookie)
            self.failed += 1
            return False


class Writes:
    """Page after page, all over the device, more than the pool has room for: some have to wait until
    others leave. Between those that Reads reads."""

    def __init__(self, host, model, source):
        self.handle = host.connect()
        self.waiting = []
        step = len(model.bytes) // READS // PAGE * PAGE
        for number in range(WRITES):
            offset = number % READS * step + (READS + number // READS) * PAGE
            data = source.bytes(PAGE)
            self.waiting.append(self.handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset))
            model.bytes[offset:offset + PAGE] = data

    def collect(self):
        """How many wait on."""
        while self.handle.poll(0) == 1:
            pass
        self.waiting = [cookie for cookie in self.waiting if not self.handle.aio_command_completed(cookie)]
        return len(self.waiting)


def still_waits(host, model):
    """Most of it is at the store: those reads wait while others are answered."""
    reads = Reads(host, model)
    host.local_goes_on(200)
    waiting = reads.collect()
    expect(waiting > READS // 2, f"only {waiting} of {READS} reads wait")
    return reads


def filled(rng, overflow):
    """A device and what it must hold. (The last page is local_goes_on's.)"""
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=overflow, write_wait="60").start()
    model, source = content.Model(SIZE - PAGE), content.Source(content.Corpus(rng))
    write_all(host, model, source)
    return host, model, source


def write_all(host, model, source):
    handle = host.connect()
    for offset in range(0, SIZE - PAGE, 1 << 20):
        model.write(handle, offset, source.bytes(min(1 << 20, SIZE - PAGE - offset)))
    handle.shutdown()


def says_emptied(host):
    wait_for(lambda: "empt" in (host.look()["store"]["last_error"] or ""), 60,
             "status to say that the store was emptied")


def declared_lost(rng):
    donor = donors.Donor()
    host, model, source = filled(rng, donor.uri)
    donor.again(empty=True)
    says_emptied(host)
    wait_for(lambda: "overflow-lost=1" in host.cli("doctor", host.parameters["name"]).stdout, 60,
             "doctor to say what to do")
    reads = still_waits(host, model)
    reads.failing = True
    done = host.cli("set", host.parameters["name"], "overflow-lost=1")
    expect(done.returncode == 0, f"farswap set: {done.stdout}{done.stderr}")
    wait_for(lambda: reads.collect() == 0, load.PATIENCE_S, "the reads that waited to be answered")
    expect(reads.failed > READS // 2, f"only {reads.failed} of {READS} reads failed")
    write_all(host, model, source)
    model.check_all(host.connect(), 1 << 20)
    host.check()


def comes_back(rng):
    redis = servers.Redis()
    host, model, source = filled(rng, redis.uri)
    redis.shut_down()
    data = os.path.join(workdir(), f"{redis.name}.rdb")
    os.rename(data, data + ".kept")
    redis.start()
    still_waits(host, model)
    says_emptied(host)
    host.kill()
    host.start()
    reads = still_waits(host, model)
    says_emptied(host)
    failed = host.counters()["overflow_failed"]
    writes = Writes(host, model, source)
    wait_for(lambda: writes.collect() and host.counters()["overflow_failed"] > failed + 10, 60,
             "writes to wait, since nothing is put at an emptied store")

    redis.process.kill()
    redis.process.wait()
    os.rename(data + ".kept", data)
    redis.start()
    wait_for(lambda: reads.collect() == 0, load.PATIENCE_S, "the reads that waited to be answered")
    wait_for(lambda: writes.collect() == 0, load.PATIENCE_S, "the writes that waited to be answered")
    model.check_all(host.connect(), 1 << 20)
    host.expect_nothing_lost()
    host.check()


def replace_data(redis, kept, instead):
    """Another server with the same address: with the data that was kept, or none."""
    data = os.path.join(workdir(), f"{redis.name}.rdb")
    redis.shut_down()
    os.rename(data, f"{data}.{kept}")
    if instead is not None:
        os.rename(f"{data}.{instead}", data)
    redis.start()


def replaced_with_nothing_there(rng):
    redis = servers.Redis()
    host, model, source = filled(rng, redis.uri)
    host.connect().trim(SIZE - PAGE, 0)
    model.bytes[:] = bytes(len(model.bytes))
    wait_for(lambda: host.counters()["segments"] == 0, 60, "all segments to be dropped")
    replace_data(redis, "first", None)
    write_all(host, model, source)
    replace_data(redis, "second", "first")
    reads = still_waits(host, model)
    says_emptied(host)
    host.kill()
    host.start()
    reads = still_waits(host, model)
    replace_data(redis, "first", "second")
    wait_for(lambda: reads.collect() == 0, load.PATIENCE_S, "the reads that waited to be answered")
    model.check_all(host.connect(), 1 << 20)
    host.expect_nothing_lost()
    host.check()


def test():
    rng = harness.seeded()
    comes_back(rng)
    replaced_with_nothing_there(rng)
    declared_lost(rng)


harness.main(test)
