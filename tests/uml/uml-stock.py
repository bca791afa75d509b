#!/usr/bin/python3
"""uml-stock: the same with stock parts, as the reason why farswap-nbd and farswap-attach exist.

nbdkit serves a file (so that no page is lost with it), locked with --swap and out of the OOM killer's
sight, to nbd-client, told to stay (-persist) and to wait (-timeout). A program swaps on it, in a control
group that leaves enough memory to all others: squeezed with it, as farswap's parts are in
uml-survives, nbdkit fails unkilled, waiting for memory that only it could free. The server is killed,
and at once started again. The test passes when that fails: after the kill, and not before, the kernel
reports I/O errors on the swap, and the program does not end well. Should stock parts ever survive all
this, the test says so; where they fail before the kill, it asks again, and fails in the end.
"""

import glob
import re
import time

import guest as uml
import harness
from harness import Skip, built, expect

RAM = 448     # MiB, of which nbdkit locks 203
LIMIT = 48    # MiB: of the program's control group
HOARD = 160   # MiB
SECONDS = 300 # by then it has failed, or the guest hangs
TRIES = 3
LATER = 10    # s after the first error: time for the program to end well

KILL = "now the server is killed"  # said before: the kernel may complain before it is gone
KILLED = "the server ended with 137"
ERROR = re.compile(r"^.*(?:I/O error|Read-error|Write-error).*$", re.M)

SCRIPT = f"""
serve() {{
    nbdkit -f -t 1 --swap -P /run/nbd.pid -U /run/nbd.sock file /swap 2>/tmp/nbdkit &
    SERVER=$!
    echo -1000 > /proc/$SERVER/oom_score_adj
}}
is_swapping() {{ [ $(sed -n 's/^pswpout //p' /proc/vmstat) -gt 500 ]; }}

echo +memory > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/hoard
echo {LIMIT}M > /sys/fs/cgroup/hoard/memory.max
truncate -s 512M /swap
serve
until [ -e /run/nbd.pid ]; do usleep 20000; done
nbd-client -unix /run/nbd.sock /dev/nbd0 -swap -persist -timeout 30
mkswap /dev/nbd0
swapon -d /dev/nbd0
sh -c 'echo $$ > /sys/fs/cgroup/hoard/cgroup.procs
    exec hoard --size {HOARD}M --rounds 3 --seed '$SEED > /tmp/hoard 2>&1 &
HOARD=$!
until is_swapping; do usleep 20000; done
if dmesg | grep 'I/O error'; then exit; fi
echo "{KILL}"
kill -9 $SERVER
wait $SERVER || echo "the server ended with $?"
rm -f /run/nbd.sock
serve
status=0
wait $HOARD || status=$?
echo hoard ended with $status
"""


def plugin():
    found = glob.glob("/usr/lib/*/nbdkit/plugins/nbdkit-file-plugin.so")
    if not found:
        raise Skip("nbdkit has no file plugin")
    return found[0]


class Verdict:
    """Of one guest, by its console."""

    def __init__(self):
        self.before, self.errors, self.was_killed, self.seen_at = [], [], False, None

    def look(self, output):
        """1: there is nothing more to be learned."""
        before, _, after = output.partition(KILL)
        self.was_killed = KILLED in after
        self.before, self.errors = ERROR.findall(before), ERROR.findall(after)
        if self.errors and self.seen_at is None:
            self.seen_at = time.monotonic()
        return bool(self.before) or (self.seen_at is not None and
                                     time.monotonic() > self.seen_at + LATER)


def ask(guest, seed):
    verdict = Verdict()
    result = guest.run(f"SEED={seed}\n" + SCRIPT, seconds=SECONDS, enough=verdict.look)
    verdict.look(result.output)
    print(result.output[-4000:])
    expect("hoard ended with 0" not in result.output, "the program has survived: is this test true?")
    return verdict


def test():
    guest = uml.Guest(memory=f"{RAM}M", modules=["nbd"], cgroup2=True,
                      programs=["nbd-client", "nbdkit", built("tests/swap/hoard")],
                      files={plugin(): plugin()}, kernel_options=["loglevel=7"])
    guest.add_libraries(plugin())
    seed = harness.seeded().getrandbits(31)
    for _ in range(TRIES):
        verdict = ask(guest, seed)
        if verdict.was_killed and not verdict.before:
            break
        print(f"not killed; before that {len(verdict.before)} lines of I/O errors: once more")
    expect(verdict.was_killed and not verdict.before, "the server was never killed")
    expect(verdict.errors, "no I/O error: stock parts have survived the kill of their server")
    print(f"stock parts, after the kill: {len(verdict.errors)} lines of I/O errors, first: "
          f"{verdict.errors[0].strip()}")


harness.main(test)
