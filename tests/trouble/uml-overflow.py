#!/usr/bin/python3
"""uml-overflow: swap in a guest whose donor is far away: 16 Mbit/s each way, and one packet in a
hundred is lost on the way out (netem; tbf on the way back).

A program larger than the guest's RAM swaps on a device of a small pool, so that its pages go over that
link and come back. The server is killed with -9 all the while. Every page of the program must be
right. No request may fail but a write that finds no room for a second, which the kernel's swap survives:
it keeps the page.
"""

import re
import sys

sys.path[:0] = [sys.path[0] + "/../attach", sys.path[0] + "/lib"]

import attached  # noqa: E402
from attached import built, expect, harness, healthy, main, uml  # noqa: E402
import donors  # noqa: E402

RAM = 160     # MiB: the servers take 60 of it
HOARD = 144   # MiB; a fifth of its pages take room, the others are same-filled
MEMORY = 5    # MiB: the device's, a third of what those need
KILLS = 5
FETCHES = 40  # between two kills
PORT = 6390

SCRIPT = f"""
count() {{ farswap stats $NAME | sed -n "s/^$1  *//p"; }}
has_counted() {{ [ $(count $1) -ge $2 ]; }}

attach 1 $NAME size=256M memory={MEMORY}M overflow=resp://{uml.Net.host()}:{PORT} \
    overflow-password=+/password
wait_for 60 at_rest
mkswap /dev/nbd0
swapon -d /dev/nbd0
/bin/tc qdisc add dev vec0 root netem loss 1% rate 16mbit
hoard --size {HOARD}M --same 80 --seed $SEED --until /tmp/over > /tmp/hoard 2>&1 &
HOARD=$!
wait_for 300 has_counted overflow_pages 500
for i in $(seq {KILLS}); do
    wait_for 300 has_counted fetch_pages $(($(count fetch_pages) + {FETCHES}))
    kill_server
done
wait_for 60 at_rest
: > /tmp/over
wait $HOARD || echo "hoard ended with $?"
cat /tmp/hoard
status
farswap stats $NAME | grep -E '^(fetch_|overflow_|pages_|failed_|corrupt|write_stalls|no_space|store_lost)'
/bin/tc -s qdisc show dev vec0
swapoff /dev/nbd0
farswap check $NAME | tail -n 1
farswap-attach --detach $NAME
"""


def slow_return(net):
    done = harness.run(net.prefix + [harness.need("tc"), "qdisc", "add", "dev", "tap0", "root", "tbf",
                                     "rate", "16mbit", "burst", "32kb", "latency", "300ms"])
    expect(done.returncode == 0, done.stderr)


def test():
    net = uml.Net()
    slow_return(net)
    donors.Donor(where=(net.host(), PORT), prefix=net.prefix)
    seed = harness.seeded().getrandbits(31)
    result = attached.run(f"SEED={seed}\n" + SCRIPT, memory=f"{RAM}M", net=net,
                          modules=("nbd", "sch_netem"), programs=[built("tests/swap/hoard"), "tc"],
                          files={"/password": donors.PASSWORD.encode()})
    healthy(result, but_refused=True)
    found = {name: int(value) for name, value in re.findall(r"^(\w+) +(\d+)$", result.output, re.M)}
    expect(found["wrong_pages"] == 0, f"wrong pages: {found['wrong_pages']}")
    expect(found["restarts"] >= KILLS, f"the server was started {found['restarts']} times")
    for name in ("failed_reads", "corrupt_pages", "store_lost_pages"):
        expect(found[name] == 0, f"{name} is {found[name]}")
    lost = re.search(r"dropped (\d+)", result.output)
    expect(lost and int(lost.group(1)) > 10, "no packet was lost")
    print(f"{found['overflow_pages']} pages left, {found['fetch_pages']} came back, {lost.group(1)} "
          f"packets were lost, {result.seconds:.0f} s")


main(test)
