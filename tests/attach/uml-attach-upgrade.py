#!/usr/bin/python3
"""uml-attach-upgrade: another program, same image, under load; and programs that can't do it.

While the device is written and read, the server is replaced by a copy of itself under another name.
Programs that end, that never say that they wait, or that know nothing of the image are refused, and
the old server goes on untouched. One that fails only when it has got the image costs a pause: the
old program takes over again.
"""

import re

import attached
from attached import expect, healthy, main

SCRIPT = """
cp /bin/farswap-nbd /tmp/farswap-nbd-2
attach 1 --timeout 20 $NAME size=128M memory=64M
wait_for 60 at_rest

head -c 30000000 /dev/urandom > /tmp/x
load() {
    while [ ! -e /tmp/enough ]; do
        dd if=/tmp/x of=/dev/nbd0 bs=1M conv=fsync 2>/dev/null || exit 1
        echo 3 > /proc/sys/vm/drop_caches
        head -c 30000000 /dev/nbd0 | cmp - /tmp/x || exit 1
    done
}
load &
LOAD=$!

before=$(server)
refused() { # PROGRAM REASON
    wait_for 60 at_rest
    if farswap-attach --upgrade $NAME --server $1 2>/tmp/refusal; then fail "$1 was accepted"; fi
    cat /tmp/refusal
    grep -q "$2" /tmp/refusal || fail "no '$2' in the refusal of $1"
}
refused /bin/busybox 'nothing was changed.*it ended with status'
cp /bin/standin /tmp/exit-standin
refused /tmp/exit-standin 'nothing was changed.*it ended with status 4'
[ "$(server)" = $before ] || fail "a refusal cost the server"

wait_for 60 at_rest
farswap-attach --upgrade $NAME --server /tmp/farswap-nbd-2
wait_for 60 at_rest
field server | grep -q /tmp/farswap-nbd-2 || fail "the old program serves"
wait_for 60 is_gone $before
[ "$(field upgrades)" = 1 ] || fail upgrades
kill_server
wait_for 60 at_rest
field server | grep -q /tmp/farswap-nbd-2 || fail "healed with the old program"

before=$(server)
cp /bin/standin /tmp/late-standin
refused /tmp/late-standin 'I changed my mind'
wait_for 60 at_rest
[ "$(server)" != $before ] || fail "the server was not killed for it"
field server | grep -q /tmp/farswap-nbd-2 || fail "not the program before it"
[ "$(field upgrades)" = 1 ] || fail upgrades
[ "$(field problem)" = - ] || fail problem

farswap-attach --upgrade $NAME
wait_for 60 at_rest
[ "$(field upgrades)" = 2 ] || fail upgrades
touch /tmp/enough
wait $LOAD || fail "wrong content"
status
farswap-attach --detach $NAME
wait_for 60 nobody_runs
farswap check $NAME | tail -n 1
"""


def test():
    result = healthy(attached.run(SCRIPT, memory="560M",
                                  programs=[attached.standin()]))
    expect("serves now; the device was without a server for" in result.output, "no answer")
    found = dict(re.findall(r"^(restarts|reconnects|upgrades|last_gap_ms) (\d+)$", result.output, re.M))
    expect(found["upgrades"] == "2", f"upgrades: {found}")
    print(f"without a server for {found['last_gap_ms']} ms")


main(test)
