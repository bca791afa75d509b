#!/usr/bin/python3
"""uml-attach-faults: servers that misbehave, and starts that can't succeed.

A server that never answers for its socket is killed, and one that takes its socket and dies is
started again for as long as it does so; --status tells. An image that was made anew under the device is
never given to it. Before a device can be used, an error ends farswap-attach with a line that says
why; after that, somebody else's disconnect does.
"""

import attached
from attached import expect, healthy, main

SCRIPT = """
refused() { # REASON ARGUMENTS...
    local reason=$1
    shift
    if farswap-attach "$@" >/tmp/refusal 2>&1; then fail "accepted: $*"; fi
    grep -q "$reason" /tmp/refusal || fail "no '$reason': $(cat /tmp/refusal)"
    tail -n 1 /tmp/refusal
}
status_says() { status | grep -q "$1"; }
restarted() { [ "$(field restarts)" -ge $1 ]; }

# Starts that fail, and leave nothing.
refused 'it ended with status 4' --server /bin/standin $NAME bad=exit
refused 'size=' $NAME size=77 memory=64M
refused 'see farswap-attach --help' --nonsense $NAME
refused 'say /dev/nbdN' --device /dev/sda $NAME size=64M
is_unattached || fail "a failed start left a device"
wait_for 60 nobody_runs

# A device that is taken.
NAME=first attach 1 --timeout 2 --server /bin/standin --device /dev/nbd0 first size=16
NAME=first wait_for 60 is_attached
refused '/dev/nbd0 is in use' --server /bin/standin --device /dev/nbd0 second size=16
is_free() { ! ps | grep -q '[s]tandin.*second'; }
wait_for 60 is_free

# Somebody else takes it away: there is nothing to supervise any more.
kill -STOP $ATTACH
nbd-client -d /dev/nbd0 >/dev/null
kill -CONT $ATTACH
if wait $ATTACH; then fail "it ended as if all were well"; fi
grep 'somebody else has detached' /tmp/attach.1.err
is_free() { ! ps | grep -q '[s]tandin'; }
wait_for 60 is_free

# A server that does nothing any more is killed, and another one serves.
attach 2 --timeout 2 --server /bin/standin $NAME size=16
wait_for 60 at_rest
kill -STOP $(server)
head -c 1000000 /dev/nbd0 >/dev/null
wait_for 60 restarted 1
wait_for 60 at_rest
grep 'does not take its socket: it is killed' /tmp/attach.2.err

# One that takes its socket and dies, again and again.
echo unstable > /run/farswap/$NAME.bad
kill_server
kill_server 2>/dev/null || true
wait_for 60 restarted 7
rm /run/farswap/$NAME.bad
wait_for 60 at_rest

# Another image: the device waits for its own.
echo stranger > /run/farswap/$NAME.bad
kill_server
kill_server
wait_for 60 status_says 'problem the image of dev0 is another one'
[ "$(field state)" = reconnecting ] || fail state
rm /run/farswap/$NAME.bad
wait_for 60 at_rest
head -c 1000000 /dev/nbd0 >/dev/null
status
[ "$(field restarts)" -lt 40 ] || fail "it was restarted without a pause"
farswap-attach --detach $NAME
"""


def test():
    result = healthy(attached.run(SCRIPT, memory="192M",
                                  programs=["nbd-client", attached.standin()]))
    expect("somebody else has detached" in result.output, "it did not say why it ended")


main(test)
