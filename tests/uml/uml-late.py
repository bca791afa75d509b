#!/usr/bin/python3
"""uml-late: what a server does too late undoes nothing.

Writers overwrite the same pages again and again, directly on the device, while the server is halted by
SIGSTOP for three request timeouts, the supervisor is killed and started again, the server is killed,
and a write is held up for three request timeouts just before it is published: before it has locked its
page's entry, and after. What was on its way is sent again, newer versions follow, and then the old
write goes on. It passes when no page ever was older than what had been acknowledged, no request
failed, and the server has counted each write that it held up and dropped.
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../attach"))

import attached  # noqa: E402
from attached import built, expect, healthy, main  # noqa: E402

WRITERS = 8
TIMEOUT = 1  # s, a third of late.c's HOLD_S
HOLDS = 4

SCRIPT = f"""
start() {{ attach $1 --timeout {TIMEOUT} --server /bin/farswap-nbd-late $NAME size=64M memory=64M; }}
late() {{ farswap stats $NAME | sed -n 's/^late_writes  *//p'; }}
# is_dropped POINT COUNT: a write was held up there, and dropped. If the whole machine stood still meanwhile,
# its connection did not end in time, and it was none too late: then another is held up.
is_dropped() {{
    [ "$(late)" -ge $2 ] && return
    [ $(uptime_s) -lt $AGAIN ] || {{ : > /run/late.$1; AGAIN=$(($(uptime_s) + 15)); }}
    false
}}
freeze_server() {{ at_rest && freeze $(server) {3 * TIMEOUT * 1000}; }}

start 1
wait_for 60 at_rest
overwrite /dev/nbd0 0 {WRITERS} {TIMEOUT} /tmp/enough > /tmp/overwrite &
WRITER=$!

wait_for 60 freeze_server
wait_for 60 at_rest  # with the same server on another connection, or another server

kill_server
kill -9 $ATTACH
wait_for 60 is_gone $ATTACH
start 2
wait_for 60 at_rest

for point in written locked written locked; do
    before=$(late)
    AGAIN=0
    wait_for 120 is_dropped $point $((before + 1))
    wait_for 60 at_rest
done
: > /tmp/enough
wait $WRITER || echo "overwrite ended with $?"
cat /tmp/overwrite
echo "late_writes $(late)"
status
farswap check $NAME | tail -n 1
farswap-attach --detach $NAME
"""


def test():
    programs = [built(f"tests/uml/{name}") for name in ("overwrite", "freeze", "farswap-nbd-late")]
    result = healthy(attached.run(SCRIPT, memory="224M", programs=programs))
    found = dict(re.findall(r"^(\w+) (\d+)$", result.output, re.M))
    expect(found.get("overwrite_wrong") == "0", f"{found.get('overwrite_wrong')} pages were undone")
    expect(int(found["overwrite_writes"]) >= 1000, f"too few writes: {found}")
    expect(int(found["overwrite_resent"]) >= HOLDS, f"too few writes were sent again: {found}")
    expect("no problem found" in result.output, "the image is not sound")
    print(f"{found['overwrite_resent']} writes were sent again, {found['late_writes']} came too late")


main(test)
