#!/usr/bin/python3
"""uml-survives: everything in one guest, nothing outside helps, and what serves the swap is killed.

A program three times the guest's RAM fills it, with no cgroup: server, supervisor, kernel and shell
are squeezed with it. Its pages differ, and most of each is zeroes, so that they compress about twelvefold;
a fifth are same-filled. Meanwhile the server is killed ten times, and replaced by another build; then the
supervisor is killed and started again while the program goes on, and the server once more; all with the
defaults, the kernel's too. It passes when every page the program looked at was right, the guest's kernel
has seen no error, each kill came when less than 50 MB were free, and for none of them the program stood
still longer than 1.5 times the request timeout; for one, as the machine may be busy, two. The time in which
the machine did not let the guest run at all (beat) is no part of such a pause; it is printed. (Halts, and
writes that come late: uml-late.)
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../attach"))

import attached  # noqa: E402
from attached import built, expect, healthy, main  # noqa: E402

RAM = 200       # MiB: kernel and shell take 30 of it, supervisor and three servers, in an upgrade, 90
HOARD = 600     # MiB: three times that
SAME = 30       # percent of what it stores that the device may find same-filled
MEMORY = 64     # MiB: the device's
KILLS = 10      # half of them while it swaps out, half while it swaps in as well
TIMEOUT = 3     # s: farswap-attach's default
FREE = 50       # MB: a kill must find less

SCRIPT = f"""
DEVICE="$NAME size=704M memory={MEMORY}M"
available() {{ sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }}
swapped() {{ sed -n "s/^pswp$1 //p" /proc/vmstat; }}
has_swapped() {{ [ $(swapped $1) -gt $2 ]; }}
has_filled() {{ grep -q '^  fill' /tmp/hoard; }}
touched() {{ awk '{{ print $10 + $12 }}' /proc/$HOARD/stat; }}
has_touched() {{ [ $(touched) -gt $1 ]; }}
counters() {{ farswap stats $NAME | grep -E '^(pages_stored|same_pages|compr_data_size|no_space|reserve_misses) '; }}
kill_now() {{
    wait_for 60 at_rest
    local pid=$(server) free=$(available) up
    read up _ < /proc/uptime
    kill -9 $pid
    echo "kill at $up with $free kB available"
    wait_for 60 is_gone $pid
    wait_for 60 at_rest
    wait_for 300 has_touched $(($(touched) + 100))  # no pause is left for the next one
}}
kills() {{ # DIRECTION: each with swap traffic before it
    for i in $(seq {KILLS // 2}); do
        wait_for 300 has_swapped $1 $(($(swapped $1) + 1000))
        kill_now
    done
}}

attach 1 $DEVICE
wait_for 60 at_rest
mkswap /dev/nbd0
swapon -d /dev/nbd0
beat 10 30 > /tmp/beat &
BEAT=$!
hoard --size {HOARD}M --same 20 --sparse 87 --stall 500 --seed $SEED --until /tmp/over > /tmp/hoard 2>&1 &
HOARD=$!
wait_for 300 has_swapped out {(RAM << 20) // 2 // 4096}
kills out
wait_for 300 has_filled
kills in
counters

farswap-attach --upgrade $NAME --server /bin/farswap-nbd-rebuilt
wait_for 60 at_rest
field server | grep /bin/farswap-nbd-rebuilt || fail "still the old build"

kill -9 $ATTACH
wait_for 60 is_gone $ATTACH
attach 2 --server /bin/farswap-nbd-rebuilt $DEVICE
kill_now

: > /tmp/over
wait $HOARD || echo "hoard ended with $?"
kill $BEAT
wait $BEAT || true
cat /tmp/hoard /tmp/beat
status
grep -E '^pswp' /proc/vmstat
swapoff /dev/nbd0
farswap check $NAME | tail -n 1
farswap-attach --detach $NAME
"""


def times(output, what):
    """(begin, end) in seconds of what is told as "WHAT at 1.23 s for 45 ms"."""
    return [(float(at), float(at) + int(ms) / 1000)
            for at, ms in re.findall(rf"^{what} at ([0-9.]+) s for (\d+) ms", output, re.M)]


def common(a, b):
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))


def pauses(output, kills):
    """For each kill, of the touches that had not ended when it came and began before the next one, the
    longest of the guest's own: (its time since the kill, how long of that the guest did not run), ms."""
    stalls, lates = times(output, "stall"), times(output, "late")
    found = []
    for kill, following in zip(kills, kills[1:] + [float("inf")]):
        waits = [(max(begin, kill), end) for begin, end in stalls if begin < following and end > kill]
        taken = [(end - begin, sum(common((begin, end), late) for late in lates)) for begin, end in waits]
        longest = max(taken, key=lambda one: one[0] - one[1], default=(0, 0))
        found.append(tuple(round(1000 * seconds) for seconds in longest))
    return found


def test():
    seed = attached.harness.seeded().getrandbits(31)
    programs = [built(f"tests/{name}") for name in ("uml/farswap-nbd-rebuilt", "uml/beat", "swap/hoard")]
    result = healthy(attached.run(f"SEED={seed}\n" + SCRIPT, memory=f"{RAM}M",
                                  programs=programs))
    found = dict(re.findall(r"^(\w+) +(\d+)$", result.output, re.M))
    expect(found["wrong_pages"] == "0", f"wrong pages: {found['wrong_pages']}")
    expect(int(found["same_pages"]) * 100 <= SAME * int(found["pages_stored"]), f"too simple: {found}")
    kills = re.findall(r"^kill at ([0-9.]+) with (\d+) kB", result.output, re.M)
    free = [int(kb) for _, kb in kills]
    expect(len(free) == KILLS + 1 and max(free) * 1024 < FREE * 10**6, f"kB available at kills: {free}")
    paused = pauses(result.output, [float(at) for at, _ in kills])
    print(f"{len(kills)} kills: pauses of {[ms for ms, _ in paused]} ms; for {[ms for _, ms in paused]} ms "
          "of these the machine did not run the guest")
    *most, longest = sorted(ms - lost for ms, lost in paused)
    expect(most[-1] <= 1500 * TIMEOUT and longest < 2000 * TIMEOUT, "that is too long")
    expect(int(found["pswpin"]) * 4096 >= RAM << 20, f"too little came back: {found}")


main(test)
