#!/usr/bin/python3
"""nbd-handed: sockets that a supervisor hands over: served at once, fenced by the next, told when they
end; and what happens to server, spare and supervisor when one of them dies.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import threading

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import content  # noqa: E402
import harness  # noqa: E402
import raw  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

SIZE = 64 << 20


def verbs(server, source):
    kernel = server.hand()
    data = bytes(source.bytes(300 * PAGE))
    kernel.write(0, data)
    expect(kernel.read(0, len(data)) == data, "large requests: content")
    expect(kernel.read(5 * PAGE, PAGE) == data[5 * PAGE:6 * PAGE], "a small read: content")
    expect(kernel.do(raw.TRIM, 0, PAGE)[0] == 0, "TRIM failed")
    expect(kernel.read(0, PAGE) == bytes(PAGE), "a trimmed page is not zero")
    expect(kernel.do(raw.ZEROES, PAGE, 100 * PAGE)[0] == 0, "WRITE_ZEROES failed")
    expect(kernel.read(PAGE, 100 * PAGE) == bytes(100 * PAGE), "zeroed pages are not zero")
    expect(kernel.do(raw.FLUSH)[0] == 0, "FLUSH failed")
    expect(kernel.do(raw.READ, SIZE, PAGE)[0] == 22, "a read beyond the end is not EINVAL")
    expect(kernel.do(raw.WRITE, SIZE, payload=data[:PAGE])[0] == 28, "a write there is not ENOSPC")
    expect(kernel.do(raw.WRITE, SIZE, payload=data)[0] == 28, "a large write there is not ENOSPC")
    expect(kernel.do(raw.READ, 0, PAGE, flags=64)[0] == 22, "an unknown flag is not EINVAL")
    expect(kernel.do(99)[0] == 22, "an unknown request is not EINVAL")
    counters = server.counters()
    expect(counters["invalid_io"] == 5 and counters["failed_reads"] == counters["failed_writes"] == 0,
           f"five were refused, and none failed: {counters}")
    kernel.send(raw.WRITE, 7 * PAGE, payload=data[:PAGE])
    kernel.send(raw.DISC)
    expect(kernel.ended(60), "DISC does not end the connection")
    expect(len(kernel.answers) == 1, "what came before DISC was not answered")
    expect(server.hear() == "closed", "the end of the socket was not told")


def many_in_flight(server, source):
    """128 requests of all sizes at once, as the kernel's, answered in any order."""
    kernel = server.hand()
    written = {}
    for i in range(128):
        length = (1, 1, 8, 32)[i % 4] * PAGE
        data = bytes(source.bytes(length))
        written[kernel.send(raw.WRITE, i * 32 * PAGE, payload=data)] = (i * 32 * PAGE, data)
    for cookie in list(written):
        expect(kernel.wait(cookie)[0] == 0, "a write failed")
    reads = {kernel.send(raw.READ, offset, len(data)): data for offset, data in written.values()}
    for cookie, data in reads.items():
        expect(kernel.wait(cookie) == (0, data), "content of one of 128 reads")
    kernel.sock.close()
    expect(server.hear() == "closed", "the end of the socket was not told")


def large_in_a_row(server, source, rng):
    """Large writes without a pause, small requests between them, DISC behind them, in pieces of any
    size: all take effect and are answered."""
    kernel = server.hand()
    written, stream = {}, b""
    for i in range(60):
        length = rng.choice((1, 16, 17, 32, 33, 60)) * PAGE + rng.choice((0, 0, 0, 777))
        written[i] = bytes(source.bytes(length))
        kernel.wanted[i] = 0
        stream += raw.request(raw.WRITE, i, i * 64 * PAGE, written[i])
    stream += raw.request(raw.DISC, 60)
    while stream:
        length = rng.choice((27, 28, 100, 5000, 70000, 300000))
        kernel.sock.sendall(stream[:length])
        stream = stream[length:]
    expect(kernel.ended(60), "DISC does not end the connection")
    expect(all(kernel.answers.get(i) == (0, b"") for i in written), "a write was not answered")
    expect(server.hear() == "closed", "the end of the socket was not told")
    kernel = server.hand()
    for i, data in written.items():
        expect(kernel.read(i * 64 * PAGE, len(data)) == data, f"content of write {i}")
    kernel.sock.close()
    expect(server.hear() == "closed", "the end of the socket was not told")


def all_there(server, source):
    """Large writes that are there when the server looks, with nothing behind them."""
    kernel = server.hand()
    for turn in range(20):
        data = [bytes(source.bytes(17 * PAGE)) for _ in range(1 + turn % 2)]
        os.kill(server.pid, signal.SIGSTOP)
        cookies = [kernel.send(raw.WRITE, i * 32 * PAGE, payload=one) for i, one in enumerate(data)]
        os.kill(server.pid, signal.SIGCONT)
        expect(all(kernel.wait(cookie)[0] == 0 for cookie in cookies), "a write failed")
        for i, one in enumerate(data):
            expect(kernel.read(i * 32 * PAGE, len(one)) == one, f"turn {turn}: content")
    kernel.sock.close()
    expect(server.hear() == "closed", "the end of the socket was not told")


def no_room(server, source):
    """A write that finds no room beside the one before it comes when that one is answered."""
    for turn in range(20):
        kernel = server.hand()
        kernel.sock.settimeout(60)
        first, second = bytes(source.bytes(17 * PAGE)), bytes(source.bytes(768 * PAGE))
        behind = raw.request(raw.WRITE, 2, 32 * PAGE, second)
        os.kill(server.pid, signal.SIGSTOP)
        kernel.wanted = {1: 0, 2: 0}
        kernel.sock.sendall(raw.request(raw.WRITE, 1, 0, first) + behind[:2000])
        os.kill(server.pid, signal.SIGCONT)
        kernel.sock.sendall(behind[2000:])
        expect(kernel.wait(1)[0] == 0 and kernel.wait(2)[0] == 0, f"turn {turn}: a write failed")
        expect(kernel.read(0, len(first)) == first, "content of the first")
        expect(kernel.read(32 * PAGE, len(second)) == second, "content of the second")
        kernel.sock.close()
        expect(server.hear() == "closed", "the end of the socket was not told")


def fenced(server, source):
    """What the old connection had on its way when the next was served never takes effect. The server
    is stopped while both come, so that it finds them at once."""
    for turn in range(100):
        old = server.hand()
        newer = bytes(source.bytes(PAGE))
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(40):
            old.send(raw.WRITE, 0, payload=bytes(source.bytes(PAGE)))
        new = server.hand(lambda: os.kill(server.pid, signal.SIGCONT))
        new.write(0, newer)
        expect(old.ended(60), "a fenced connection was not closed")
        expect(new.read(0, PAGE) == newer, f"turn {turn}: a late write undid a newer one")
        new.sock.close()
        expect(server.hear() == "closed", "the end of the socket was not told")


def flood(kernel, burst):
    """Writes without a pause, until the connection ends."""
    try:
        while True:
            kernel.sock.sendall(burst)
    except OSError:
        pass


def fenced_at_work(server, source):
    """The same while the server is in the middle of many: those it has read already don't either."""
    for turn in range(300):
        old = server.hand()
        burst = b"".join(raw.request(raw.WRITE, cookie, 0, bytes(source.bytes(PAGE)))
                         for cookie in range(60))
        flooder = threading.Thread(target=flood, args=(old, burst), daemon=True)
        flooder.start()
        expect(old.sock.recv(16), "the old connection is not served")
        newer = bytes(source.bytes(PAGE))
        new = server.hand()
        new.write(0, newer)
        for _ in range(20):
            expect(new.read(0, PAGE) == newer, f"turn {turn}: a late write undid a newer one")
        flooder.join(60)
        expect(not flooder.is_alive(), "a fenced connection was not closed")
        old.sock.close()
        new.sock.close()
        expect(server.hear() == "closed", "the end of the socket was not told")


def stopped_and_late(server, source):
    """The server is stopped with writes in its socket; the client gives up, and is served again."""
    late, newer = bytes(source.bytes(PAGE)), bytes(source.bytes(PAGE))
    for _ in range(20):
        old = server.hand()
        old.write(0, bytes(source.bytes(PAGE)))
        os.kill(server.pid, signal.SIGSTOP)
        old.send(raw.WRITE, 0, payload=late)
        old.sock.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        socket.send_fds(server.control, [b"serve"], [theirs.fileno()])
        theirs.close()
        os.kill(server.pid, signal.SIGCONT)
        said = server.hear()
        if said == "closed":  # it saw the end before the new one
            said = server.hear()
        expect(said == "serving", f"the server says {said!r}")
        new = raw.Kernel(ours)
        new.write(0, newer)
        expect(new.read(0, PAGE) == newer, "a late write undid a newer one")
        new.sock.close()
        expect(server.hear() == "closed", "the end of the socket was not told")
    print(f"late writes dropped: {server.counters()['late_writes']}")


def calm(server):
    """Where memory is not short, the server is no real-time process."""
    wait_for(lambda: memory_is_short() or policies(server.pid) == {os.SCHED_OTHER}, 60,
             "all threads to be ordinary ones")


def memory_is_short():
    """Or may be soon: other tests take some, too."""
    with open("/proc/meminfo") as meminfo:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in meminfo}
    return kib["MemAvailable"] <= 2 * max(kib["MemTotal"] // 16, 256 << 10)


def policies(pid):
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found.add(os.sched_getscheduler(int(thread)))
    return found


def nonsense(server):
    """Messages that are none are passed over; a socket that comes with one is closed."""
    server.control.send(b"hello")
    ours, theirs = socket.socketpair()
    socket.send_fds(server.control, [b"servant"], [theirs.fileno()])
    theirs.close()
    ours.settimeout(60)
    expect(ours.recv(1) == b"", "the socket of an unknown message was kept")
    ours, theirs = socket.socketpair()
    socket.send_fds(server.control, [b"serve"], [theirs.fileno(), theirs.fileno()])
    theirs.close()
    expect(server.hear() == "serving", "two sockets: the first is to be served")
    ours.sendall(b"garbage that is no request at all")
    ours.settimeout(60)
    expect(ours.recv(1) == b"", "garbage did not end the connection")
    expect(server.hear() == "closed", "the end of the socket was not told")
    open_before = len(os.listdir(f"/proc/{server.pid}/fd"))
    server.hand().sock.close()
    expect(server.hear() == "closed", "the end of the socket was not told")
    wait_for(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= open_before, 60, "no fd to be lost")


def takes_over(server, source):
    """A spare waits with everything done, and goes on when the server is killed."""
    kernel = server.hand()
    data = bytes(source.bytes(100 * PAGE))
    kernel.write(0, data)
    spare = raw.Handed(options=["--wait"], **server.parameters).spawn()
    expect(spare.hear() == "waiting", "the spare does not wait")
    expect(spare.silent(0.3), "the spare does not wait for the image")
    server.kill()
    expect(kernel.ended(60), "a killed server's connection is open")
    said = spare.hear()
    expect(said.split()[:3] == server.ready.split()[:3] and said.endswith("recovered=1"),
           f"the spare says {said!r}, the server said {server.ready!r}")
    kernel = spare.hand()
    expect(kernel.read(0, len(data)) == data, "content after the spare took over")
    kernel.sock.close()
    expect(spare.hear() == "closed", "the end of the socket was not told")
    return spare


SUPERVISOR = """
import os, socket, subprocess, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server = subprocess.Popen([*sys.argv[1:], "--control", str(theirs.fileno())], pass_fds=[theirs.fileno()])
print(server.pid, ours.recv(512).decode(), flush=True)
ours.recv(512)
"""


def orphaned(server):
    """A spare whose supervisor is killed goes with it: it would take the image from whoever comes."""
    spare = raw.Handed(options=["--wait"], **server.parameters)
    supervisor = harness.spawn([sys.executable, "-c", SUPERVISOR, *spare.command()], log="orphaned.log",
                               env=spare.environment())
    log = os.path.join(harness.workdir(), "orphaned.log")

    def waiting():
        with open(log) as file:
            return re.search(r"^(\d+) waiting$", file.read(), re.M)
    pid = int(wait_for(waiting, 60, "the spare to wait").group(1))
    supervisor.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 60, "the spare to end with its supervisor")


def alone(server):
    """The supervisor goes: the server goes on with what it has. A stop is a kill."""
    kernel = server.hand()
    server.control.close()
    expect(len(kernel.read(0, PAGE)) == PAGE, "without a supervisor it does not serve")
    os.kill(server.pid, signal.SIGTERM)
    expect(kernel.ended(60) and not kernel.answers, "a stop sends answers")
    status = server.process.wait(60)
    expect(status == 0, f"SIGTERM ends it with {status}")


def refusals(server):
    """Why it can't start, in one message and one line."""
    other = raw.Handed(**server.parameters).spawn()
    said = other.hear()
    expect(said.startswith("failed ") and len(said) > 20, f"it says {said!r}")
    expect(other.process.wait(60) == 1, "it does not end with 1")
    expect(said[7:] in other.log(), "the line on stderr is another one")


class OtherLayout(raw.Handed):
    """A farswap-nbd that knows another layout of the image."""

    PATH = "tests/nbd/farswap-nbd-other-layout"


def another_layout(server):
    """It is told from the image at once, by a spare and by one that is not; nothing is changed."""
    for parameters in (server.parameters, {"name": server.parameters["name"], "size": None,
                                           "memory": None, "codec": None}):
        for options in (["--wait"], []):
            other = OtherLayout(options=options, **parameters).spawn()
            said = other.hear()
            expect(said.startswith("failed ") and "has layout" in said and "knows layout 77" in said,
                   f"it says {said!r}")
            expect(other.process.wait(60) == 1, "it does not end with 1")
    expect(len(server.hand().read(0, PAGE)) == PAGE, "the server does not serve any more")
    expect(server.hear() == "closed", "the end of the socket was not told")


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    server = raw.Handed(size=str(SIZE), memory="96M").start()
    verbs(server, source)
    many_in_flight(server, source)
    large_in_a_row(server, source, rng)
    all_there(server, source)
    no_room(server, source)
    fenced(server, source)
    fenced_at_work(server, source)
    stopped_and_late(server, source)
    calm(server)
    nonsense(server)
    refusals(server)
    another_layout(server)
    orphaned(server)
    spare = takes_over(server, source)
    spare.check()
    alone(spare)


harness.main(test)
