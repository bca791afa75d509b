"""attached: a guest in which farswap-attach, its servers and everything that uses the device run.

    result = run(SCRIPT, memory="256M")
    healthy(result)

The script is busybox sh with the functions of PRELUDE. Nothing outside the guest helps: it has no
network, and what it needs is copied into its root.
"""

import os
import re
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../uml", "../system/lib"):
    sys.path.insert(0, os.path.join(_HERE, folder))

import guest as uml  # noqa: E402
import harness  # noqa: E402
from harness import built, expect, main  # noqa: E402,F401

# What no run may have. Lost connections are in the nature of these tests.
_TROUBLE = re.compile(r"I/O error|Buffer I/O|Write-error|Read-error|Other side returned error|Out of "
                      r"memory|BUG:|WARNING:|Oops|Kernel panic|hung_task|blocked for more than", re.I)

# What a kernel says of a swap write that the device refused since it had no room. It costs nothing: the
# kernel keeps the page. With a store it may always be: where the donor stands still for a second.
_REFUSED = re.compile(r"^.*(?:Other side returned error \(28\)|I/O error, dev nbd0, .*\(WRITE\)|"
                      r"Write-error on swap-device).*\n", re.M)

PRELUDE = r"""
NAME=dev0
mkdir -p /var/lib

# soon SECONDS COMMAND...: polls; 1 when it takes longer.
soon() {
    local deadline=$(($(uptime_s) + $1))
    shift
    until "$@"; do
        [ $(uptime_s) -le $deadline ] || return 1
        usleep 50000
    done
}

# wait_for SECONDS COMMAND...: ends the script when it takes longer.
wait_for() { soon "$@" || { shift; fail "waited for: $*"; } }

uptime_s() { cut -d . -f 1 /proc/uptime; }

fail() { echo "FAILED: $*"; about; exit 1; }

# attach NUMBER ARGUMENTS...: starts supervisor NUMBER; its pid is in $ATTACH.
attach() {
    local log=/tmp/attach.$1
    shift
    farswap-attach "$@" 2>$log.err >$log.out &
    ATTACH=$!
}

status() { farswap-attach --status $NAME 2>/dev/null; }
field() { status | sed -n "s/^$1 //p"; }
is_attached() { [ "$(field state)" = attached ]; }
spare_waits() { field spare | grep -q waiting; }
at_rest() { is_attached && spare_waits; }
server() { field server | cut -d ' ' -f 1; }
is_gone() { [ ! -e /proc/$1 ] || grep -q '^State:.Z' /proc/$1/status; }
is_unattached() { [ "$(cat /sys/block/nbd0/size)" = 0 ]; }
nobody_runs() { ! ps | grep -qE '[f]arswap-|[s]tandin'; } # who is killed ends a moment later

is_killed() { at_rest && VICTIM=$(server) && kill -9 $VICTIM 2>/dev/null; }
kill_server() {
    wait_for 60 is_killed
    wait_for 60 is_gone $VICTIM
}

about() {
    status || true
    for file in /tmp/attach.*; do echo "--- $file"; cat $file; done
    ps | grep -E 'farswap|standin' | grep -v grep || true
}
"""


def server():
    return built("client/nbd/farswap-nbd")


def standin():
    return built("tests/attach/standin")


def run(script, memory="256M", programs=(), modules=("nbd",), libraries=(), errands=None,
        **more):
    """Boots a guest with farswap-attach and the servers, and runs PRELUDE and the script. libraries:
    what is loaded at run time, so that nobody can tell from the programs."""
    programs = [built("client/attach/farswap-attach"), built("client/cli/farswap"),
                server()] + list(programs)
    guest = uml.Guest(memory=memory, modules=list(modules), programs=programs, **more)
    for path in libraries:
        guest.add_file(path, path)
        guest.add_libraries(path)
    result = guest.run(PRELUDE + script, errands=errands)
    print(result.output)
    return result


def healthy(result, but_refused=False):
    """The script ended well, and no request failed; but_refused: but writes for which there was no room."""
    expect(result.status == 0, f"the guest's script ended with {result.status}\n"
           f"{result.output[-6000:]}\n--- kernel\n{result.dmesg[-3000:]}")
    dmesg = _REFUSED.sub("", result.dmesg) if but_refused else result.dmesg
    trouble = [line for line in dmesg.splitlines() if _TROUBLE.search(line)]
    expect(not trouble, "the guest's kernel log has:\n" + "\n".join(trouble))
    return result
