#!/usr/bin/python3
"""uml-survives: everything in one guest, nothing outside helps, and what serves the swap is killed.

A program several times the guest's RAM fills it, with no cgroup: server, supervisor, kernel and shell
are squeezed with it. Meanwhile the server is killed ten times, and replaced by another build; then the
supervisor is killed and started again, and the server once more; all with the defaults. It passes when
every page the program looked at was right, the guest's kernel has seen no error, each kill came when
less than 50 MB were free, and for a kill the program stood still no longer than 1.5 times the request
timeout. (Halts, and writes that come late: uml-late.)
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../attach"))

import attached  # noqa: E402
from attached import built, expect, healthy, main  # noqa: E402

RAM = 256       # MiB: kernel and shell take 30 of it, supervisor and three servers, in an upgrade, 90
HOARD = 576     # MiB, of which a fifth takes room in the device: same-filled pages are four fifths
MEMORY = 64     # MiB: the device's
KILLS = 10      # half of them while it swaps out, half while it swaps in as well
TIMEOUT = 3     # s: farswap-attach's default
BUSY = 2        # kills whose pause may be longer, since the machine has other things to do
FREE = 50       # MB: a kill must find less

SCRIPT = f"""
DEVICE="$NAME size=1G memory={MEMORY}M"
available() {{ sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }}
swapped() {{ sed -n "s/^pswp$1 //p" /proc/vmstat; }}
has_swapped() {{ [ $(swapped $1) -gt $2 ]; }}
has_filled() {{ grep -q '^  fill' /tmp/hoard; }}
kills() {{ # DIRECTION: each with swap traffic before it
    for i in $(seq {KILLS // 2}); do
        wait_for 60 at_rest
        wait_for 60 has_swapped $1 $(($(swapped $1) + 1000))
        echo "kill at $(cut -d ' ' -f 1 /proc/uptime) with $(available) kB available"
        kill_server
    done
    wait_for 60 at_rest
}}

attach 1 $DEVICE
wait_for 30 at_rest
echo 0 > /proc/sys/vm/watermark_boost_factor  # as farswap-attach(1) says
mkswap /dev/nbd0
swapon -d /dev/nbd0
hoard --size {HOARD}M --same 80 --stall 500 --seed $SEED --until /tmp/over > /tmp/hoard 2>&1 &
HOARD=$!
wait_for 60 has_swapped out {(RAM << 20) // 2 // 4096}
kills out
wait_for 90 has_filled
kills in

farswap-attach --upgrade $NAME --server /bin/farswap-nbd-rebuilt
wait_for 60 at_rest
field server | grep /bin/farswap-nbd-rebuilt || fail "still the old build"

# A supervisor comes up in a guest without memory, but nobody is after what it has just got.
kill -STOP $HOARD
kill -9 $ATTACH
wait_for 10 is_gone $ATTACH
attach 2 --server /bin/farswap-nbd-rebuilt $DEVICE
wait_for 60 at_rest
kill -CONT $HOARD
kill_server
wait_for 60 at_rest

: > /tmp/over
wait $HOARD || echo "hoard ended with $?"
cat /tmp/hoard
status
grep -E '^pswp' /proc/vmstat
swapoff /dev/nbd0
farswap check $NAME | tail -n 1
farswap-attach --detach $NAME
"""


def pauses(output, kills):
    """After each kill: the longest touch that ended after it, and began before the next."""
    stalls = [(float(at), int(ms)) for at, ms in
              re.findall(r"^stall at ([0-9.]+) s for (\d+) ms", output, re.M)]
    return [max([0] + [ms for at, ms in stalls if at < end and at + ms / 1000 > begin])
            for begin, end in zip(kills, kills[1:] + [float("inf")])]


def test():
    seed = attached.harness.seeded().getrandbits(31)
    programs = [built(f"tests/uml/{name}") for name in ("farswap-nbd-rebuilt",)]
    result = healthy(attached.run(f"SEED={seed}\n" + SCRIPT, memory=f"{RAM}M", seconds=280,
                                  programs=programs + [built("tests/swap/hoard")]))
    found = dict(re.findall(r"^(\w+) (\d+)$", result.output, re.M))
    expect(found["wrong_pages"] == "0", f"wrong pages: {found['wrong_pages']}")
    kills = re.findall(r"^kill at ([0-9.]+) with (\d+) kB", result.output, re.M)
    free = [int(kb) for _, kb in kills]
    expect(len(free) == KILLS and max(free) * 1024 < FREE * 10**6, f"kB available at kills: {free}")
    paused = pauses(result.output, [float(at) for at, _ in kills])
    print(f"{KILLS} kills: pauses of {paused} ms")
    expect(sorted(paused)[-1 - BUSY] <= 1500 * TIMEOUT, "that is too long")
    expect(int(found["pswpin"]) * 4096 >= RAM << 20, f"too little came back: {found}")


main(test)
