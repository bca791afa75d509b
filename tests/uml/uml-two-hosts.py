#!/usr/bin/python3
"""uml-two-hosts: the server on another host, and a router between that drops what it gets.

First, writers that overwrite the same pages again and again, on the device itself, while the link is
cut, the server is halted, and the link is cut again, each time for longer than the request timeout: a
write whose answer is lost is sent again on a new connection, newer ones follow, and then the network
goes on with what it still tries to deliver, or the server with what it had not read yet. No older write
may undo a newer one. Then swap: a program larger than the guest's RAM, across two more cuts, and over a
link that is slow and loses packets (netem). It passes when every page was right and no request failed.
"""

import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../attach"))

import attached  # noqa: E402
from attached import built, expect, harness, healthy, main, uml  # noqa: E402
import servers  # noqa: E402

RAM = 176    # MiB, of which the supervisor, which speaks to the server by libnbd, takes 20
HOARD = 224  # MiB
WRITERS = 16
TIMEOUT = 2  # s
CUT = 4      # s: longer than that
HALT = 3 * TIMEOUT
PORT = 10809
LOST = 10   # packets

SCRIPT = f"""
ip route add 10.98.0.0/24 via {uml.Net.host()}
reconnected() {{ [ "$(field reconnects)" -ge $1 ] && is_attached; }}
has_swapped() {{ [ $(sed -n 's/^pswpout //p' /proc/vmstat) -gt 5000 ]; }}
# after WHAT: it happens to link or server, and then there is a new connection. If the guest stood still
# all the while, it has missed it: then once more.
after() {{
    local before=$(field reconnects) again
    for again in 1 2 3 4; do
        errand $1
        soon 30 reconnected $((before + 1)) && return
    done
    fail "no new connection after: $1"
}}
lost() {{ /bin/tc -s qdisc show dev vec0 | grep -o 'dropped [0-9]*'; }}
has_lost() {{ [ $(lost | cut -d ' ' -f 2) -gt {LOST} ]; }}
# A first connection has no more time than a request.
start() {{ attach 1 --timeout {TIMEOUT} --connect {uml.Far.ADDRESS}:{PORT} $NAME; }}
is_up() {{ is_attached || {{ is_gone $ATTACH && start; false; }}; }}
echo 8192 > /proc/sys/vm/min_free_kbytes  # as farswap-attach(1) says
start
wait_for 60 is_up
overwrite /dev/nbd0 1048576 {WRITERS} {TIMEOUT} /tmp/enough > /tmp/overwrite &
WRITER=$!
for what in cut halt cut; do
    sleep 1
    after $what
    sleep {2 * TIMEOUT}  # for as long as overwrite watches its pages
done
: > /tmp/enough
wait $WRITER || echo "overwrite ended with $?"
cat /tmp/overwrite

mkswap /dev/nbd0
swapon -d /dev/nbd0
hoard --size {HOARD}M --seed $SEED --until /tmp/over > /tmp/hoard 2>&1 &
HOARD=$!
wait_for 300 has_swapped
after cut
/bin/tc qdisc add dev vec0 root netem delay 5ms 3ms loss 1%
wait_for 300 has_lost
after cut
lost
/bin/tc qdisc del dev vec0 root
: > /tmp/over
wait $HOARD || echo "hoard ended with $?"
cat /tmp/hoard
status
grep -E '^pswp' /proc/vmstat
swapoff /dev/nbd0
farswap-attach --detach $NAME
"""


def test():
    net = uml.Net()
    far = uml.Far(net)
    server = servers.Server(prefix=far.prefix, tcp=(far.ADDRESS, PORT), name="dev0", size="512M",
                            memory="200M").start()

    def cut():  # nothing of the guest is needed to end it: its shell may be on the other side
        far.cut()
        time.sleep(CUT)
        far.heal()

    def halt():
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(HALT)
        os.kill(server.pid, signal.SIGCONT)

    seed = harness.seeded().getrandbits(31)
    programs = [built("tests/swap/hoard"), built("tests/uml/overwrite"), harness.need("tc")]
    result = attached.run(f"SEED={seed}\n" + SCRIPT, memory=f"{RAM}M", net=net,
                          modules=("nbd", "sch_netem"), programs=programs,
                          libraries=["/usr/lib/x86_64-linux-gnu/libnbd.so.0"],
                          errands={"cut": cut, "halt": halt})
    healthy(result)
    found = dict(re.findall(r"^(\w+) (\d+)$", result.output, re.M))
    for name in ("overwrite_wrong", "wrong_pages"):
        expect(found.get(name) == "0", f"{name} {found.get(name)}\n{result.output[-3000:]}")
    expect(int(found["overwrite_writes"]) >= 1000, f"too few writes: {found}")
    expect(int(found["overwrite_resent"]) >= 3, f"too few writes were sent again: {found}")
    expect(int(found["reconnects"]) >= 5, f"too few connections: {found}")
    expect(int(found["dropped"]) > LOST, "the link did not lose packets")
    expect(int(found["pswpin"]) * 4096 >= RAM << 19, f"too little came back: {found}")
    late = server.counters().get("late_writes")
    print(f"{found['reconnects']} new connections, {late} late writes dropped, a write took "
          f"{found['overwrite_longest_ms']} ms at most")
    expect(server.alive(), "the server died")
    server.check()


main(test)
