#!/usr/bin/python3
"""uml-attach-heal: swap on a supervised device, whose server is killed again and again.

A program with less RAM than it wants verifies what it reads, while the server is killed six times, the
last time with no spare to wait for. It passes when every page was right, no request failed, and the supervisor has
counted what happened. Then the device is taken away, and nothing is left of it but the image.
"""

import re

import attached
from attached import built, expect, healthy, main

HOARD = 120  # MiB
RAM = 40  # MiB of them

SCRIPT = f"""
attach 1 --timeout 20 $NAME size=512M memory=96M
wait_for 60 is_attached
cat /tmp/attach.1.out
[ "$(field device)" = /dev/nbd0 ] || fail device
[ "$(field backend)" = "$(cat /sys/block/nbd0/backend)" ] || fail backend
grep VmLck /proc/$ATTACH/status
for flag in discard_max_bytes fua; do # what the server can, the kernel may ask for
    [ "$(cat /sys/block/nbd0/queue/$flag)" != 0 ] || fail "no $flag"
done
mkswap /dev/nbd0
swapon -d /dev/nbd0
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/squeezed
echo {RAM}M > /sys/fs/cgroup/squeezed/memory.max
sh -c 'echo $$ > /sys/fs/cgroup/squeezed/cgroup.procs
       exec hoard --size {HOARD}M --rounds 2 --seed $0' $SEED > /tmp/hoard 2>&1 &
HOARD=$!
for i in 1 2 3 4 5; do
    kill_server
done
wait_for 60 is_attached
kill -9 $(server)
status=0
wait $HOARD || status=$?
tr '\\r' '\\n' < /tmp/hoard | grep -v 'came from swap' || true
[ $status = 0 ] || fail hoard $status
wait_for 60 at_rest
status
grep -E '^pswp' /proc/vmstat
if farswap-attach --detach $NAME; then fail "swap was detached"; fi
swapoff /dev/nbd0
farswap check $NAME | tail -n 1
farswap-attach --detach $NAME
wait_for 60 is_unattached
wait $ATTACH
about
"""


def test():
    seed = attached.harness.seeded().getrandbits(31)
    result = healthy(attached.run(f"SEED={seed}\n" + SCRIPT, memory="480M", cgroup2=True,
                                  programs=[built("tests/swap/hoard")]))
    expect("dev0 is attached as /dev/nbd0" in result.output, "it did not say that it is ready")
    found = dict(re.findall(r"^(restarts|reconnects|last_gap_ms|pswpin|pswpout) (\d+)$",
                            result.output, re.M))
    expect(found["restarts"] == "6", f"restarts: {found}")
    expect(int(found["reconnects"]) >= 6, f"reconnects: {found}")
    for name in ("pswpin", "pswpout"):
        expect(int(found[name]) * 4096 >= (HOARD - RAM) << 20, f"too little swap: {found}")
    locked = re.search(r"VmLck:\s+(\d+) kB", result.output)
    expect(locked and int(locked.group(1)) > 2000, "the supervisor is not locked in memory")
    expect("/dev/nbd0 stays: it is swap" in result.output, "the refusal does not say why")


main(test)
