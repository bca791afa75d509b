#!/usr/bin/python3
"""uml-stock: the same with stock parts, as the reason why farswap-nbd and farswap-attach exist.

nbdkit serves a file (so that no page is lost with it), locked with --swap and out of the OOM killer's
sight, to nbd-client, told to stay (-persist) and to wait (-timeout). A program larger than what is
left swaps on it; the server is killed, and at once started again. The test passes when that fails:
the kernel reports I/O errors on the swap, and the program does not end well; nor does the guest,
mostly. Where the machine is busy that may come before the kill: nbdkit waits for the memory that only
it could free. Should stock parts ever survive all this, the test says so.
"""

import glob
import re

import guest as uml
import harness
from harness import Skip, built, expect

RAM = 352     # MiB, of which nbdkit locks 203
HOARD = 224   # MiB: twice what is left
SECONDS = 90  # by then it has failed, or the guest hangs

SCRIPT = f"""
serve() {{
    nbdkit -f -t 1 --swap -U /run/nbd.sock file /swap 2>/tmp/nbdkit &
    SERVER=$!
    echo -1000 > /proc/$SERVER/oom_score_adj
}}
is_swapping() {{ [ $(sed -n 's/^pswpout //p' /proc/vmstat) -gt 2000 ]; }}

truncate -s 512M /swap
serve
until [ -e /run/nbd.sock ]; do usleep 20000; done
nbd-client -unix /run/nbd.sock /dev/nbd0 -swap -persist -timeout 30
mkswap /dev/nbd0
swapon -d /dev/nbd0
hoard --size {HOARD}M --rounds 3 --seed $SEED > /tmp/hoard 2>&1 &
HOARD=$!
until is_swapping; do usleep 50000; done
if dmesg | grep 'I/O error'; then
    echo it has failed before the kill
    exit
fi
echo the server is killed
kill -9 $SERVER
rm -f /run/nbd.sock
serve
status=0
wait $HOARD || status=$?
echo hoard ended with $status
tr '\\r' '\\n' < /tmp/hoard | tail -n 3
dmesg | grep -E 'I/O error|Read-error|Write-error' | head -n 5 || true
"""


def plugin():
    found = glob.glob("/usr/lib/*/nbdkit/plugins/nbdkit-file-plugin.so")
    if not found:
        raise Skip("nbdkit has no file plugin")
    return found[0]


def test():
    guest = uml.Guest(memory=f"{RAM}M", modules=["nbd"],
                      programs=["nbd-client", "nbdkit", built("tests/swap/hoard")],
                      files={plugin(): plugin()}, kernel_options=["loglevel=7"])
    guest.add_libraries(plugin())
    seed = harness.seeded().getrandbits(31)
    result = guest.run(f"SEED={seed}\n" + SCRIPT, seconds=SECONDS)
    print(result.output[-4000:])
    errors = re.findall(r"^.*(?:I/O error|Read-error|Write-error).*$",
                        result.output + result.dmesg, re.M)
    expect(errors, "no I/O error: stock parts have survived the kill of their server")
    expect("hoard ended with 0" not in result.output, "the program has survived: is this test true?")
    when = "after" if "the server is killed" in result.output else "before"
    print(f"stock parts, {when} the kill: {len(errors)} lines of I/O errors, first: {errors[0].strip()}")


harness.main(test)
