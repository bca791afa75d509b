#!/usr/bin/python3
"""uml-store-away: the donor does not answer for 60 seconds, with everything at its defaults.

A program larger than the guest's RAM swaps on a device whose pool is small, so that most of its pages
are at the donor, outside of the guest, which is stopped for a minute. Pages that are there wait;
pages that are local must come. It passes when no request failed but writes that found no room (which
the kernel survives: it keeps the page), no server was started anew, the read of a local page every
20 ms stalled at most once a request timeout, and in the end every page of the program was right; and no
connection came later than the one before it, as if it were the device that fails: most came in less than
half the second that such a pause would grow to.
"""

import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../attach"))

import attached  # noqa: E402
from attached import built, expect, harness, healthy, main, uml  # noqa: E402
import servers  # noqa: E402

RAM = 208     # MiB
HOARD = 288   # MiB
MEMORY = 32   # MiB: the device's, less than half of what it gets, compressed
AWAY = 60     # s
TIMEOUT = 3   # s: the default
PORT = 6390

SCRIPT = f"""
has_filled() {{ grep -q '^  fill' /tmp/hoard; }}
has_left() {{ [ $(farswap stats $NAME | sed -n 's/^pages_store  *//p') -gt 5000 ]; }}

attach 1 $NAME size=1G memory={MEMORY}M overflow=resp://{uml.Net.host()}:{PORT} \
    overflow-password=+/password
wait_for 60 at_rest
mkswap /dev/nbd0 $((900 << 10))  # of 1 GiB: what is behind it is empty, and always local
swapon -d /dev/nbd0
hoard --size {HOARD}M --seed $SEED --until /tmp/over > /tmp/hoard 2>&1 &
HOARD=$!
wait_for 300 has_filled
wait_for 300 has_left
pace /dev/nbd0 $((1000 << 20)) 20 300 /tmp/back > /tmp/pace &
PACE=$!
sleep 1
errand stop
: > /tmp/back
wait $PACE
cat /tmp/pace
grep 'has a server again' /tmp/attach.1.err
wait_for 60 at_rest
: > /tmp/over
wait $HOARD || echo "hoard ended with $?"
cat /tmp/hoard
status
farswap stats $NAME | grep -E '^(fetch_pages|overflow_pages|failed_|reserve_misses|write_stalls|no_space|store_lost)'
swapoff /dev/nbd0
farswap check $NAME | tail -n 1
farswap-attach --detach $NAME
"""


def donor(net, password):
    path = os.path.join(harness.workdir(), "donor.password")
    with open(path, "w") as file:
        file.write(password)
    address = f"{net.host()}:{PORT}"
    process = harness.spawn(net.prefix + [built("server/farswapd"), "--listen", address, "--memory",
                                          "1G", "--requirepass-file", path], log="donor.log",
                            env=servers.image_environment())
    harness.wait_for(lambda: harness.run(net.prefix + ["sh", "-c", f"ss -ltn | grep -q {address}"])
                     .returncode == 0, 20, "farswapd to listen")
    return process


def test():
    net = uml.Net()
    password = "a donor's password"
    process = donor(net, password)

    def stop():
        process.send_signal(signal.SIGSTOP)
        time.sleep(AWAY)
        process.send_signal(signal.SIGCONT)

    seed = harness.seeded().getrandbits(31)
    result = attached.run(f"SEED={seed}\n" + SCRIPT, memory=f"{RAM}M", net=net,
                          programs=[built("tests/swap/hoard"), built("tests/uml/pace")],
                          files={"/password": password.encode()}, errands={"stop": stop})
    healthy(result, but_refused=True)
    found = dict(re.findall(r"^(\w+) (\d+)$", result.output, re.M))
    expect(found.get("wrong_pages") == "0", f"wrong pages: {found.get('wrong_pages')}")
    expect(found["restarts"] == "0", f"the server was started {found['restarts']} times")
    stalls, most = int(found["pace_stalls"]), AWAY // TIMEOUT + 1
    print(f"away for {AWAY} s: {stalls} stalls of local reads, {found['pace_longest_ms']} ms at most, "
          f"{found['pace_reads']} reads")
    expect(stalls <= most, f"{stalls} stalls of local reads, {most} are allowed")
    gaps = sorted(int(ms) for ms in re.findall(r"has a server again, after (\d+) ms", result.output))
    print(f"{len(gaps)} connections, after {gaps} ms")
    expect(len(gaps) >= 8 and gaps[len(gaps) // 2] < 500, "new connections are put off")
    expect(int(found["pace_reads"]) > AWAY * 10, f"too few local reads: {found['pace_reads']}")
    expect(int(found["fetch_pages"]) > 1000, f"nothing came from the donor: {found}")


main(test)
