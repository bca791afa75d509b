#!/usr/bin/python3
"""uml-attach-ending: a device that is in use stays, one that is not goes, and --force takes it.

Detaching is refused while the device is swap, mounted, or open, each time with the reason; without a
supervisor the same holds. SIGTERM ends a supervisor whose device nobody uses, with the device.
"""

import attached
from attached import expect, healthy, main

SCRIPT = """
refused() { # REASON
    if farswap-attach --detach $NAME 2>/tmp/refusal; then fail "detached although: $1"; fi
    cat /tmp/refusal
    grep -q "$1" /tmp/refusal || fail "no '$1' in the refusal"
}

attach 1 --device /dev/nbd3 --timeout 20 $NAME size=64M memory=64M
wait_for 60 at_rest
[ "$(field device)" = /dev/nbd3 ] || fail device

mkswap /dev/nbd3 >/dev/null
swapon /dev/nbd3
refused 'it is swap'
swapoff /dev/nbd3

mke2fs -q -b 4096 /dev/nbd3 >/dev/null 2>&1
mkdir -p /mnt; mount -t ext4 /dev/nbd3 /mnt
refused 'it is mounted on /mnt'
umount /mnt

exec 7< /dev/nbd3
refused 'has it open'
kill -9 $ATTACH
wait_for 60 is_gone $ATTACH
refused 'has it open'
exec 7<&-

attach 2 --timeout 20 $NAME
wait_for 60 at_rest
farswap-attach --detach $NAME
wait $ATTACH || fail "status $? after a detach"
[ "$(cat /sys/block/nbd3/size)" = 0 ] || fail "it is still there"
farswap list

attach 3 --device /dev/nbd3 --timeout 20 $NAME
wait_for 60 is_attached
kill -9 $ATTACH
wait_for 60 is_gone $ATTACH
farswap-attach --detach $NAME
[ "$(cat /sys/block/nbd3/size)" = 0 ] || fail "it is still there without a supervisor"

attach 4 --device /dev/nbd3 --timeout 20 $NAME
wait_for 60 is_attached
exec 7< /dev/nbd3
farswap-attach --detach $NAME --force
exec 7<&-
wait $ATTACH
[ "$(cat /sys/block/nbd3/size)" = 0 ] || fail "force"

attach 5 --timeout 20 $NAME
wait_for 60 is_attached
kill -INT $ATTACH
wait $ATTACH || fail "status $? after SIGINT"
[ "$(cat /sys/block/nbd0/size)" = 0 ] || fail "it is still there after SIGINT"
wait_for 60 nobody_runs
farswap list | grep -q stopped || fail "the image is gone"
"""


def test():
    result = healthy(attached.run(SCRIPT, memory="256M", programs=["mke2fs"]))
    expect("it is swap (swapoff /dev/nbd3 first)" in result.output, "no advice")


main(test)
