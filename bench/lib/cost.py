"""cost: what a set of pages costs in farswap's image and its server, part by part, and in zram.

    farswap = image resident, without the reserve + the server's growth of RssAnon since its start
    zram    = mem_used_total of mm_stat

The parts of farswap's cost add up to it:

    payload    compressed bytes, exactly (bench/pages sizes)
    header     object headers, and rounding up to units of 16 bytes
    slots      objects in slots of a larger class
    holes      slots without an object in frames that are attached, ends of zspages and frames
    leaves     page table
    map        what names the zspages' frames, and their classes
    base       superblock, counters, directory: there from the start
    private    the server's growth
    other      what is resident and not accounted for; should be 0
"""

import time

import harness
import servers

PAGE = 4096
PARTS = ["payload", "header", "slots", "holes", "leaves", "map", "base", "private", "other"]


def pages(*arguments, seconds=3600):
    """Runs bench/pages."""
    done = harness.run([harness.built("bench/pages"), *map(str, arguments)], seconds=seconds)
    harness.expect(done.returncode == 0, done.stderr.strip())
    return done.stdout


def sizes(codec, *paths):
    """Pages by exact compressed size; "zero" and "same" besides."""
    found = {}
    for line in pages("sizes", codec, *paths).splitlines():
        size, count = line.split()
        found[int(size) if size.isdigit() else size] = int(count)
    return found


def thresholds(codec, *paths):
    """The same by huge threshold, for pages that are not same-filled."""
    found = {}
    for line in pages("thresholds", codec, *paths).splitlines():
        threshold, size, count = map(int, line.split())
        found.setdefault(threshold, {})[size] = count
    return found


def payload_of(histogram):
    return sum(size * count for size, count in histogram.items() if isinstance(size, int))


def _private(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


class Farswap(servers.Plugin):
    """A server whose costs are counted."""

    def start(self):
        super().start()
        self.settle()
        self.private_at_start = _private(self.pid)
        self.used_at_start = self.counters()["mem_used_total"]
        return self

    def reading(self):
        """Resident bytes of the image, what of it is reserve, and the counters."""
        counters = self.counters()
        return self.image_row()["rss"], counters["mem_reserve"], counters

    def settle(self, seconds=20):
        """Until reserve and compaction have come to rest: the same for half a second."""
        last, since, deadline = None, time.monotonic(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = self.reading()[:2]
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > 0.5:
                return
            time.sleep(0.05)

    def compact(self):
        done = self.cli("compact", self.name)
        harness.expect(done.returncode == 0, f"farswap compact: {done.stderr}")
        self.settle()

    def classes(self):
        """`farswap stats --classes`: rows by column name."""
        done = self.cli("stats", "--classes", self.name)
        harness.expect(done.returncode == 0, f"farswap stats --classes: {done.stderr}")
        head, *lines = [line.split() for line in done.stdout.splitlines()]
        return [dict(zip(head, map(int, line))) for line in lines if line[0].isdigit()]

    def cost(self, histogram):
        """{"total": bytes, part: bytes...}; histogram: of what is on the device."""
        self.settle()
        resident, reserve, counters = self.reading()
        payload, objects = payload_of(histogram), counters["compr_data_size"]
        in_slots = sum(row["used_bytes"] for row in self.classes())
        frames, leaves = counters["pool_frames"] * PAGE, counters["table_leaves"] * PAGE
        used = counters["mem_used_total"]
        parts = {
            "payload": payload,
            "header": objects - payload,
            "slots": in_slots - objects,
            "holes": frames - in_slots,
            "leaves": leaves,
            "map": used - self.used_at_start - frames - leaves,
            "base": self.used_at_start,
            "private": _private(self.pid) - self.private_at_start,
            "other": resident - reserve - used,
        }
        return {"total": sum(parts.values()), **parts}


def zram_cost(disk):
    stat = disk.stat()
    return {"total": stat["mem_used_total"], "payload": stat["compr_data_size"],
            "waste": stat["mem_used_total"] - stat["compr_data_size"]}
