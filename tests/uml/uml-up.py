#!/usr/bin/python3
"""uml-up: from nothing to swap and back by `farswap up` and `farswap down`, through the kernel's nbd.

A program that is larger than the guest's RAM swaps on what `up` has made. A second `up` changes nothing;
one after the supervisor was killed starts another, and one after a `down` half-way (swapoff by hand)
goes on from there. While RAM is short `down`, also with --force, says how much is missing and leaves all
as it is, and so it does for a memory cgroup that is too small. `down --keep` keeps the image, and `down` leaves nothing: no swap, no device, no
process, no memory.
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../attach"))

import attached  # noqa: E402
from attached import built, expect, healthy, main  # noqa: E402

RAM = 272    # MiB: enough, this is not about pressure
SMALL = 24   # MiB of a program in a cgroup of its own
HOARD = 320  # MiB, four fifths of it same-filled

SCRIPT = f"""
NAME=swap0
swapping() {{ grep -q '^/dev/nbd0 ' /proc/swaps; }}
has_swapped() {{ [ $(sed -n 's/^pswpout //p' /proc/vmstat) -gt 5000 ]; }}
nothing_runs() {{ ! ps | grep -q '[f]arswap-'; }}
is_squeezed() {{ [ $(cat /sys/fs/cgroup/small/memory.swap.current) -gt {SMALL << 18} ]; }}
supervisor() {{ field supervisor; }}
# is_refused WHY: what `down` said; all stays up.
is_refused() {{
    cat /tmp/refused
    grep -q "$1.* are swapped out, .* of RAM are available, .* more are needed. Everything stays up" /tmp/refused ||
        fail "not refused so"
    swapping || fail "it has taken swap away"
    is_attached || fail "it has taken the server away"
}}

if farswap up $NAME; then fail "up without a size"; fi
farswap up $NAME size=256M memory=80M
swapping || fail "no swap"
is_attached || fail "not attached"
[ "$(cat /sys/block/nbd0/queue/scheduler)" = "[none] mq-deadline kyber" ] ||
    cat /sys/block/nbd0/queue/scheduler
before=$(server)
farswap up $NAME
[ "$(server)" = $before ] || fail "a second up was not nothing"
if farswap up $NAME --priority 70000; then fail "a priority of 70000"; fi

hoard --size {HOARD}M --same 80 --seed $SEED --until /tmp/over > /tmp/hoard 2>&1 &
HOARD=$!
wait_for 300 has_swapped
if farswap down $NAME 2>/tmp/refused; then fail "down while there is no room for what is swapped"; fi
is_refused "swapoff can't end"
if farswap down --force $NAME 2>/tmp/refused; then fail "swapoff without any RAM"; fi
is_refused "swapoff can't end"
kill -STOP $HOARD
pid=$(supervisor)
kill -9 $pid
wait_for 60 is_gone $pid
farswap up $NAME
wait_for 60 at_rest
[ "$(supervisor)" != $pid ] || fail "no new supervisor"
swapping || fail "up has ended swap"
kill -CONT $HOARD
kill_server
wait_for 60 at_rest
: > /tmp/over
wait $HOARD || echo "hoard ended with $?"
cat /tmp/hoard

# A memory cgroup (version 2) that is too small for its swapped pages, with RAM free besides.
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/small
echo {SMALL // 2}M > /sys/fs/cgroup/small/memory.max
rm /tmp/over
sh -c 'echo $$ > /sys/fs/cgroup/small/cgroup.procs; exec "$@"' sh \
    hoard --size {SMALL}M --seed $SEED --until /tmp/over > /tmp/small 2>&1 &
HOARD=$!
wait_for 300 is_squeezed
kill -STOP $HOARD
if farswap down $NAME 2>/tmp/refused; then fail "down with a cgroup that is too small"; fi
cat /tmp/refused
grep -q "Everything stays up: raise /sys/fs/cgroup/small/memory.max by " /tmp/refused || fail "not refused so"
swapping || fail "it has taken swap away"
is_gone $HOARD && fail "its program was killed"
echo max > /sys/fs/cgroup/small/memory.max
kill -CONT $HOARD

farswap down --keep $NAME
: > /tmp/over
wait $HOARD || fail "its program ended with $?: $(cat /tmp/small)"
! swapping || fail "still swap"
wait_for 60 nothing_runs
wait_for 60 is_unattached
farswap list
farswap list | grep -q $NAME || fail "the image is gone"
farswap up $NAME
swapping || fail "no swap after down --keep"
swapoff /dev/nbd0
farswap up $NAME
swapping || fail "no swap after swapoff"
farswap down $NAME
farswap down $NAME
! swapping || fail "still swap"
wait_for 60 nothing_runs
wait_for 60 is_unattached
! farswap list | grep $NAME || fail "the image is there"
tail -n +2 /proc/sysvipc/shm | grep . && fail "memory is left"
echo all done
"""


def test():
    seed = attached.harness.seeded().getrandbits(31)
    result = healthy(attached.run(f"SEED={seed}\n" + SCRIPT, memory=f"{RAM}M", cgroup2=True,
                                  programs=[built("tests/swap/hoard")]))
    expect("all done" in result.output, "it did not come to its end")
    expect(re.search(r"^wrong_pages 0$", result.output, re.M), "a page was wrong")


main(test)
