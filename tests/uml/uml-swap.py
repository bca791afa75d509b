#!/usr/bin/python3
"""uml-swap: a real kernel nbd client, real swapon, and a program several times the guest's RAM.

Server and overflow store run on the host's side of a TAP; a small guest attaches with the
stock nbd-client, makes swap with discard, and runs hoard, which verifies every byte that comes back.
It passes when every page was right, the device's own counters show that the swapping went through
it and that pages went to the store and came back, the guest's kernel complained of nothing, and
the image is sound. swapoff comes before the server's end.
"""

import os

import guest as uml
import harness
import servers
from harness import built, expect

HOARD = int(os.environ.get("FARSWAP_UML_HOARD", "288"))  # MiB
RAM = 96   # MiB of the guest: a third of that
POOL = 24  # MiB: about a quarter of what the device then holds, compressed

SCRIPT = f"""
nbd-client -N '' -b 4096 -timeout 120 {uml.Net.host()} 10809 /dev/nbd0
echo discard: $(cat /sys/block/nbd0/queue/discard_max_bytes)
mkswap /dev/nbd0
swapon -d /dev/nbd0
hoard --size {HOARD}M --rounds 1 --seed $SEED > /tmp/hoard 2>&1 || status=$?
tr '\\r' '\\n' < /tmp/hoard | grep -v 'came from swap' || true
[ -z "$status" ]
grep -E '^pswp' /proc/vmstat
swapoff /dev/nbd0
nbd-client -d /dev/nbd0
"""


def start_server(net):
    where = {"prefix": net.prefix, "tcp": (net.host(), 10809)}
    if os.environ.get("FARSWAP_TEST_STOCK"):
        return servers.Stock("1G", **where).start()
    donor = servers.Donor("1G")
    return servers.Plugin(size="1G", memory=f"{POOL}M", overflow=donor.uri, write_wait="60",
                          **where).start()


def expect_counters(server):
    counters = server.counters()
    limit = RAM << 20
    for name, least in (("write_bytes", 2 * limit), ("read_bytes", limit),
                        ("overflow_pages", 1000), ("fetch_pages", 1000)):
        expect(counters.get(name, 0) >= least,
               f"the device counted {name}={counters.get(name)}, expected {least} at least")
    server.check()


def test():
    net = uml.Net()
    server = start_server(net)
    seed = harness.seeded().getrandbits(31)
    guest = uml.Guest(net, memory=f"{RAM}M", modules=["nbd"],
                      programs=["nbd-client", built("tests/swap/hoard")])
    result = guest.run(f"SEED={seed}" + SCRIPT)
    print(result.output)
    result.expect_clean()
    expect("discard: 0" not in result.output, "the device offers no discard")
    swapped = dict(line.split() for line in result.output.splitlines() if line.startswith("pswp"))
    for name in ("pswpin", "pswpout"):
        expect(int(swapped[name]) * 4096 >= RAM << 20, f"{name} {swapped[name]} is too little swap")
    expect(server.alive(), "the server died")
    if isinstance(server, servers.Plugin):
        expect_counters(server)


harness.main(test)
