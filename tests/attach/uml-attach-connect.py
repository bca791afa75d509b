#!/usr/bin/python3
"""uml-attach-connect: a device that a server offers over TCP, as another host's.

The connection is killed by its server's death, and by a server that hangs; each time the device goes on,
with what was written. A second supervisor takes over from one that was killed. A server that comes
back with another device under the same name is not accepted.
"""

import re

import attached
from attached import expect, healthy, main

SCRIPT = """
# The server of "the other host", by hand: it isn't farswap-attach's here.
serve() {
    farswap-nbd --listen 127.0.0.1:10809 --wait $NAME size=$1 memory=64M >>/tmp/attach.server 2>&1 &
    SERVER=$!
}
start() { attach $1 --timeout 10 --connect 127.0.0.1:10809 $NAME; }
check() {
    echo 3 > /proc/sys/vm/drop_caches
    head -c 20000000 /dev/nbd0 | cmp - /tmp/x || fail "wrong content: $1"
}
is_reconnecting() { [ "$(field state)" = reconnecting ]; }
reconnected() { [ "$(field reconnects)" -ge $1 ] && is_attached; }

if farswap-attach --connect 127.0.0.1:10809 $NAME; then fail "connected to nobody"; fi
serve 64M
wait_for 60 grep -qs served /tmp/attach.server
start 1
wait_for 60 is_attached
grep -E 'VmLck|VmRSS' /proc/$ATTACH/status
head -c 20000000 /dev/urandom > /tmp/x
dd if=/tmp/x of=/dev/nbd0 bs=1M conv=fsync 2>/dev/null
check "at first"

kill -9 $SERVER
wait_for 60 is_gone $SERVER
serve 64M
wait_for 60 reconnected 1
check "after the server's death"

kill -STOP $SERVER
(head -c 1000000 /dev/nbd0 >/dev/null) &
READER=$!
echo 3 > /proc/sys/vm/drop_caches
(head -c 1000000 /dev/nbd0 >/dev/null) &
wait_for 60 is_reconnecting
kill -CONT $SERVER
wait_for 60 is_attached
check "after it hung"
wait $READER

kill -9 $ATTACH
wait_for 60 is_gone $ATTACH
check "without a supervisor"
start 2
wait_for 60 is_attached
check "taken over"
kill -9 $SERVER
wait_for 60 is_gone $SERVER
serve 64M
wait_for 60 reconnected 1
check "healed after a takeover"

kill -9 $SERVER
wait_for 60 is_gone $SERVER
farswap destroy $NAME
serve 64M
status_says() { status | grep -q "$1"; }
wait_for 60 status_says 'serves another device now'
status || true
is_reconnecting || fail "it took another device"
farswap-attach --detach $NAME --force || fail force
wait_for 60 is_unattached
"""


def test():
    result = attached.run(SCRIPT, memory="480M",
                          libraries=["/usr/lib/x86_64-linux-gnu/libnbd.so.0"])
    healthy(result)
    expect("Connection refused" in result.output, "the first error does not say why")
    expect(re.search(r"VmRSS:\s+\d+ kB", result.output), "no figures")


main(test)
