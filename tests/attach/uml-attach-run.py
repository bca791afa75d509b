#!/usr/bin/python3
"""uml-attach-run: scripts/run on a kernel that has nbd.

The guest sees the host's files, with a layer of its own over them, so it has everything that is
installed here and can change nothing. scripts/run squeezes a command; then --keep leaves swap on, whose
server is killed, whose supervisor is killed; and --stop takes away what is left, each time all of it.
"""

import os

import attached
from attached import expect, harness, healthy, main

INSIDE = """
set -e
export FARSWAP_BUILD=@BUILD@ FARSWAP_RUN_STATE=/run/farswap-run PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
RUN="bash @SOURCE@/scripts/run --size 128M --memory 64M --overflow none"
ATTACH=@BUILD@/client/attach/farswap-attach
status() { $ATTACH --status farswap-run 2>/dev/null | sed -n "s/^$1 //p" | cut -d ' ' -f 1; }
is_healed() { [ "$(status restarts)" -ge 1 ] && [ "$(status state)" = attached ]; }
nobody_runs() { ! ps ax | grep -E '[f]arswap-(attach|nbd)'; }
nothing_is_left() {
    [ "$(cat /sys/block/nbd0/size)" = 0 ] || { echo "FAILED: a device is left after $1"; exit 1; }
    for i in $(seq 600); do nobody_runs && break; sleep 0.1; done # killed, they end a moment later
    nobody_runs || { echo "FAILED: processes are left after $1"; exit 1; }
    ! grep -q nbd /proc/swaps || { echo "FAILED: swap is left after $1"; exit 1; }
    ! @BUILD@/client/cli/farswap list | grep -q farswap-run || { echo "FAILED: an image after $1"; exit 1; }
}
$RUN --limit 64M -- grep nbd0 /proc/swaps
nothing_is_left "a command"

$RUN --keep
grep nbd0 /proc/swaps
kill -9 $(status server)
for i in $(seq 600); do is_healed && break; sleep 0.1; done
is_healed || { echo "FAILED: not healed"; exit 1; }
bash @SOURCE@/scripts/run --stop
nothing_is_left --stop

$RUN --keep
kill -9 $(status supervisor)
bash @SOURCE@/scripts/run --stop
nothing_is_left "--stop without a supervisor"
echo all is well
"""

SCRIPT = """
ln -s /proc/self/fd /dev/fd
mkdir -p /host /layer /new
mount -t hostfs -o / none /host
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /new
for folder in proc sys dev run; do mount -o rbind /$folder /new/$folder; done
cp /inside /new/run/inside
chroot /new /bin/bash /run/inside
"""


def test():
    inside = INSIDE.replace("@BUILD@", harness.BUILD).replace("@SOURCE@", harness.SOURCE)
    result = attached.run(SCRIPT, memory="512M", modules=("nbd", "overlay"), cgroup2=True,
                          files={"/inside": inside.encode()})
    healthy(result)
    expect("all is well" in result.output, "it did not come to its end")
    expect(os.path.exists(harness.BUILD), "the build directory has been touched")


main(test)
