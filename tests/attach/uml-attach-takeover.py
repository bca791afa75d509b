#!/usr/bin/python3
"""uml-attach-takeover: a supervisor that dies is replaced by another, and the device lives on.

The supervisor is killed with -9 while the device is swap and has been written to: the server goes
on, and --status says that nobody watches. A second supervisor finds the device, takes it over, and
heals it as the first one did. Then both, supervisor and server, are killed at once; then the supervisor
is stopped by SIGTERM. After each the device must hold what was written.
"""

import re

import attached
from attached import expect, healthy, main

SCRIPT = """
attach 1 --timeout 20 $NAME size=128M memory=64M
wait_for 60 at_rest
head -c 40000000 /dev/urandom > /tmp/x
dd if=/tmp/x of=/dev/nbd0 bs=1M conv=fsync 2>/dev/null
check() {
    echo 3 > /proc/sys/vm/drop_caches
    head -c 40000000 /dev/nbd0 | cmp - /tmp/x || fail "wrong content: $1"
}

run_servers() { [ $(ps | grep -c '[f]arswap-nbd') = $1 ]; }

if farswap-attach $NAME; then fail "two supervisors"; fi
old=$(server)
kill -9 $ATTACH
wait_for 60 is_gone $ATTACH
status && fail "unattended and content"
[ "$(field state)" = unattended ] || fail "not unattended"
[ "$(server)" = $old ] || fail "another server"
check "without a supervisor"

attach 2 --timeout 20 $NAME size=128M memory=64M
wait_for 60 at_rest
wait_for 60 is_gone $old
[ "$(field device)" = /dev/nbd0 ] || fail "another device"
check "taken over"
kill_server
wait_for 60 at_rest
check "healed"

old=$(server)
kill -9 $ATTACH $old
wait_for 60 is_gone $ATTACH
wait_for 60 is_gone $old
attach 3 --timeout 20 $NAME
wait_for 60 at_rest
check "taken over without a server"

mkdir /tmp/held
exec 7< /dev/nbd0
kill -TERM $ATTACH
wait $ATTACH
grep -q 'nobody watches' /tmp/attach.3.err || fail "it did not say that it leaves the device"
check "after SIGTERM"
exec 7<&-
attach 4 --timeout 20 $NAME
wait_for 60 at_rest
check "the last"
wait_for 60 run_servers 2 # the one, and its spare
status
kill -TERM $ATTACH
wait $ATTACH
wait_for 60 is_unattached
wait_for 60 run_servers 0
"""


def test():
    result = healthy(attached.run(SCRIPT, memory="320M"))
    expect("a supervisor of dev0 runs already" in result.output, "a second one was not refused")
    expect(re.search(r"^state attached$", result.output, re.M), "the last is not attached")


main(test)
