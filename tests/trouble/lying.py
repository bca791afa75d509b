#!/usr/bin/python3
"""lying: somebody changes segments at a real redis-server: flips bytes, exchanges two, and puts old ones
in the place of new ones. Every read of such a page is an I/O error, and counted, and never wrong
bytes; with a second copy, that one answers. (An old segment in another's place only encryption finds.)
"""

import os
import sys
import time
import types

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/../system", sys.path[0] + "/lib"]

import nbd  # noqa: E402

import content  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, built, expect, wait_for  # noqa: E402

os.environ.setdefault("FARSWAPD", built("server/farswapd"))
import farswapd_peer  # noqa: E402

SIZE = 48 << 20
POOL = 8 << 20
LIES = 8           # segments of each kind
CHUNK = 16 * PAGE
EVERY = 512        # one byte flipped in so many, so that no object stays whole


class Forger:
    """Reads and replaces what a Redis holds of the one device that uses it."""

    def __init__(self, store):
        self.peer = farswapd_peer.Peer(types.SimpleNamespace(unix=store.socket), unix=True)

    def keys(self):
        """Of segments, the oldest first."""
        cursor, found = b"0", set()
        while True:
            cursor, some = self.peer.ask("SCAN", cursor, "COUNT", 1000)
            found.update(key for key in some if not key.endswith(b":sentinel"))
            if cursor == b"0":
                return sorted(found)

    def values(self, keys):
        return {key: self.peer.ask("GET", key) for key in keys}

    def put(self, values):
        for key, value in values.items():
            expect(self.peer.ask("SET", key, value) == b"OK", "the store does not take a lie")


class Device:
    def __init__(self, rng, overflow):
        self.host = load.Host(size=str(SIZE), memory=str(POOL), overflow=overflow, write_wait="60").start()
        self.source = content.Source(content.Corpus(rng))
        self.model = content.Model(SIZE)

    def rewrite(self):
        handle = self.host.connect()
        for offset in range(0, SIZE, 1 << 20):
            self.model.write(handle, offset, self.source.bytes(1 << 20))
        handle.shutdown()

    def settle(self, forger):
        """Nothing is on its way to the store, and the store has what the device thinks."""
        def rests():
            before = forger.keys()
            segments = self.host.counters()["segments"]
            time.sleep(0.5)  # nothing comes or goes meanwhile
            return len(before) == segments > 6 * LIES and forger.keys() == before

        wait_for(rests, 60, "the store to come to rest")

    def unreadable(self):
        """Pages whose read fails. All others are right. A fresh server has nothing of them at hand."""
        self.host.again()
        handle = self.host.connect()
        return sum(self._unreadable(handle, offset, CHUNK) for offset in range(0, SIZE, CHUNK))

    def _unreadable(self, handle, offset, length):
        try:
            self.model.check(handle, offset, length)
            return 0
        except nbd.Error as error:
            expect(error.errno == "EIO", f"a read failed with {error.errno}")
        if length == PAGE:
            return 1
        return sum(self._unreadable(handle, at, PAGE) for at in range(offset, offset + length, PAGE))


def flipped(values):
    lies = {}
    for key, value in values.items():
        lies[key] = bytearray(value)
        for at in range(EVERY // 2, len(value), EVERY):
            lies[key][at] ^= 0x10
    return {key: bytes(value) for key, value in lies.items()}


def exchanged(values):
    """By twos."""
    keys = list(values)
    return {key: values[keys[i ^ 1]] for i, key in enumerate(keys)}


def caught(device, forger, kind, lies):
    """The lies are found, and once they are taken back all is well."""
    truth = forger.values(lies)
    forger.put(lies)
    before = device.host.counters()
    bad = device.unreadable()
    after = device.host.counters()
    print(f"{kind}: {len(lies)} segments, {bad} pages unreadable", flush=True)
    expect(bad >= 5 * LIES, f"{kind}: only {bad} pages are unreadable")
    expect(after["corrupt_pages"] - before["corrupt_pages"] >= bad, f"{kind}: not counted as corrupt")
    expect(after["failed_reads"] - before["failed_reads"] >= bad, f"{kind}: not counted as failed")
    forger.put(truth)
    bad = device.unreadable()
    expect(bad == 0, f"{kind}: {bad} pages are unreadable although the truth is back")


def one_copy(rng, prefix):
    redis = servers.Redis()
    device, forger = Device(rng, prefix + redis.uri), Forger(redis)
    device.rewrite()
    device.settle(forger)
    keys = rng.sample(forger.keys(), 2 * LIES)
    caught(device, forger, f"{prefix}flipped", flipped(forger.values(keys[:LIES])))
    caught(device, forger, f"{prefix}exchanged", exchanged(forger.values(keys[LIES:])))
    if prefix:
        old = forger.values(forger.keys())
        device.rewrite()
        device.settle(forger)
        lies = dict(zip(sorted(forger.keys()), old.values()))
        caught(device, forger, f"{prefix}replayed", dict(list(lies.items())[-LIES:]))
    device.host.check()


def lies_found(host):
    """Without encryption the device finds them, else the store does, and status says so, too."""
    counters = host.counters()
    if counters["store_lies"]:
        expect("were not what was put" in host.look()["store"]["last_error"], "status says nothing of lies")
        expect("store_lies" in host.cli("status").stdout, "status has nothing of lies for people")
    return counters["store_lies"] or counters["corrupt_pages"]


def two_copies(rng, prefix):
    redis, other = servers.Redis(), servers.Donor()
    device, forger = Device(rng, f"{prefix}{redis.uri} {other.uri}"), Forger(redis)
    device.rewrite()
    wait_for(lambda: device.host.counters()["segments_lacking"] == 0, 60, "two copies of all")
    device.settle(forger)
    keys = rng.sample(forger.keys(), 4 * LIES)
    forger.put(flipped(forger.values(keys[:2 * LIES])))
    forger.put(exchanged(forger.values(keys[2 * LIES:])))
    bad = device.unreadable()
    expect(bad == 0, f"{bad} pages are unreadable although there is another copy")
    wait_for(lambda: lies_found(device.host) >= LIES, 60, "lies to be counted")
    print(f"{prefix}mirror: {lies_found(device.host)} lies, and the truth from the other copy", flush=True)
    if prefix:
        lies = [copy["lies"] for copy in device.host.look()["store"]["copies"]]
        expect(lies[0] >= LIES and lies[1] == 0, f"status does not say who lied: {lies}")
        expect(f"{lies[0]} answers were not" in device.host.cli("status").stdout, "nor does it tell people")
    device.host.check()


def test():
    rng = harness.seeded()
    one_copy(rng, "")
    one_copy(rng, "crypt+")
    two_copies(rng, "")
    two_copies(rng, "crypt+")


harness.main(test)
