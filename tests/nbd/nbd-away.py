#!/usr/bin/python3
"""nbd-away: the store is away. Reads of pages that are there are answered at once, on every connection;
reads of pages that went away wait, give a handed connection up in time, and are answered when they are
sent again, without a pile of fetches; writes wait half the timeout at most.
"""

import sys
import time

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import nbd  # noqa: E402

import content  # noqa: E402
import harness  # noqa: E402
import raw  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

SIZE = 256 << 20
POOL = 24 << 20
FAR = 64 << 20      # written first: leaves for the store
TIMEOUT = 3
IN_FLIGHT = 100
TRIES = 10  # of what has a time limit: a busy machine may be late


def fill(kernel, source):
    """The model's bytes of the first FAR; the second half of it is local, in part."""
    data = bytearray()
    for offset in range(0, FAR, 1 << 20):
        piece = bytes(source.bytes(1 << 20))
        kernel.write(offset, piece)
        data += piece
    return data


def far_pages(data, count):
    """Pages written first, that are in the store, none beside the other."""
    return [(i * 7 * PAGE, bytes(data[i * 7 * PAGE:(i * 7 + 1) * PAGE])) for i in range(count)]


def local_stays_quick(kernel, local, rounds):
    """Reads and rewrites of a local page, each answered well within the timeout."""
    worst = 0
    for _ in range(rounds):
        begin = time.monotonic()
        expect(kernel.read(SIZE - PAGE, PAGE) == local, "content of a local page")
        kernel.write(SIZE - PAGE, local)
        worst = max(worst, time.monotonic() - begin)
    return worst


def waiting_holds_nothing_up(server, data, local):
    """100 waiting reads on the connection, and local ones between them. Then it is given up: before the
    timeout, with everything else answered. The longest of a local one, and all of it, in seconds."""
    kernel = server.hand()
    begin, worst, asked = time.monotonic(), float("inf"), []
    waiting = {kernel.send(raw.READ, offset, PAGE): page
               for offset, page in far_pages(data, IN_FLIGHT)}
    kernel.send(raw.READ, 0, 64 * PAGE)
    try:
        worst = local_stays_quick(kernel, local, 200)
        while time.monotonic() - begin < 20 * TIMEOUT:
            asked.append(kernel.send(raw.READ, SIZE - PAGE, PAGE))
            expect(kernel.wait(asked[-1]) == (0, local), "content of a local page")
            time.sleep(0.01)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        pass
    took = time.monotonic() - begin
    expect(not set(kernel.answers) & set(waiting), "the store is away and a read was answered")
    expect(server.hear() == "closed", "the end of the socket was not told")
    print(f"given up after {took:.2f} s, {len(asked)} local reads were answered meanwhile, the longest of "
          f"200 before took {worst:.3f} s")
    return worst, took


def in_time(server, data, local):
    """That, until both are."""
    found = []
    while len(found) < TRIES and not any(worst < 0.5 and took < TIMEOUT for worst, took in found):
        found.append(waiting_holds_nothing_up(server, data, local))
    expect(min(worst for worst, _ in found) < 0.5, f"a local request took long: {found}")
    expect(any(worst < 0.5 and took < TIMEOUT for worst, took in found),
           f"the connection was given up after {found} s of {TIMEOUT}")


def sent_again(server, data):
    """As the kernel does: the same reads again, several times over."""
    for _ in range(2):
        kernel = server.hand()
        cookies = {kernel.send(raw.READ, offset, PAGE): page
                   for offset, page in far_pages(data, IN_FLIGHT)}
        if _ == 0:
            expect(kernel.ended(20 * TIMEOUT), "the connection was not given up")
            expect(server.hear() == "closed", "the end of the socket was not told")
    return kernel, cookies


def answered_once_back(server, kernel, cookies, fetched):
    for cookie, page in cookies.items():
        expect(kernel.wait(cookie) == (0, page), "content of a page that was away")
    count = server.counters()["fetch_pages"] - fetched
    print(f"{count} pages were fetched for {IN_FLIGHT} that were asked for three times or more")
    # Some whose asker had gone were under way already, more of them on a busy machine.
    expect(count < 2 * IN_FLIGHT, f"{count} fetches: they pile up")


def writes_wait_half_the_timeout(server, source):
    """The pool is full and can't overflow: refused in time, and local reads go on."""
    kernel = server.hand()
    offset, late = FAR, []
    while True:
        refused, longest = hundred_writes(kernel, source, offset)
        offset += 100 * PAGE
        if refused == 0:
            continue
        if longest < TIMEOUT / 2 + 0.5:
            break
        late.append(longest)
        expect(len(late) < TRIES, f"writes took {late} s")
    print(f"{refused} of 100 writes refused, the longest took {longest:.2f} s")
    return kernel


def hundred_writes(kernel, source, offset):
    """How many were refused, and what the longest took."""
    begin, refused, longest = {}, 0, 0
    for page in range(100):
        cookie = kernel.send(raw.WRITE, offset + page * PAGE, payload=bytes(source.bytes(PAGE)))
        begin[cookie] = time.monotonic()
    for cookie, began in begin.items():
        error, _ = kernel.wait(cookie)
        expect(error in (0, 28), f"a write failed with {error}")
        longest = max(longest, time.monotonic() - began)
        refused += error == 28
    return refused, longest


def any_client_waits(server, data, local, away):
    """A client with a handshake and no --timeout: waits as long as it takes."""
    handles = [server.connect() for _ in range(2)]
    buffer = nbd.Buffer(PAGE)
    cookie = handles[0].aio_pread(buffer, 7 * PAGE)
    with away:
        begin = time.monotonic()
        while time.monotonic() - begin < TIMEOUT + 1:
            expect(handles[1].pread(PAGE, SIZE - PAGE) == local, "content of a local page")
            expect(handles[0].pread(PAGE, SIZE - PAGE) == local, "content of a local page")
            if handles[0].aio_command_completed(cookie):
                cookie = handles[0].aio_pread(buffer, 14 * PAGE)  # it was quicker than the stop
    while not handles[0].aio_command_completed(cookie):
        handles[0].poll(1000)
    expect(bytes(buffer.to_bytearray()) in (data[7 * PAGE:8 * PAGE], data[14 * PAGE:15 * PAGE]),
           "content of a page that was away")


def test():
    rng = harness.seeded()
    source = content.Source(content.Corpus(rng))
    donor = servers.Donor("1G")
    away = raw.Away(donor)
    server = raw.Handed(options=["--timeout", "120"], size=str(SIZE), memory=str(POOL), overflow=donor.uri,
                        write_wait="60").start()
    kernel = server.hand()
    data = fill(kernel, source)
    local = bytes(source.bytes(PAGE))
    kernel.write(SIZE - PAGE, local)
    wait_for(lambda: server.counters()["overflow_pages"] > FAR // PAGE // 2, 60, "pages to leave")
    server.kill()
    server = raw.Handed(options=["--timeout", str(TIMEOUT)], **server.parameters).start()
    fetched = server.counters()["fetch_pages"]
    with away:
        in_time(server, data, local)
        kernel, cookies = sent_again(server, data)
    answered_once_back(server, kernel, cookies, fetched)
    with away:
        kernel = writes_wait_half_the_timeout(server, source)
    kernel.sock.close()
    wait_for(lambda: server.hear() == "closed", 60, "the end of the socket to be told")
    server.check()
    server.kill()
    again = servers.Server(**server.parameters)
    again.start()
    handle = again.connect()
    handle.pwrite(local, SIZE - PAGE)
    any_client_waits(again, data, local, away)
    again.check()


harness.main(test)
