#!/usr/bin/python3
"""wire: everything that passes between a device and its donor is written down by a proxy that stands in
between, and searched for what the pages had. Encrypted, there is nothing of it in either direction;
not encrypted there is, in both, or the search is blind. (plugin-stores searches the donor's memory.)
"""

import socket
import sys
import threading

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import content  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

SIZE = 32 << 20
POOL = 8 << 20
NEEDLE = 24
SECRET = b"a planted secret: 'correct horse battery staple' "


class Recorder:
    """Listens on loopback, passes everything on to a Unix socket and back, and keeps all of it."""

    def __init__(self, target):
        self.target = target
        self.sent, self.received = [], []  # a bytearray for each connection
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"resp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self.listener.accept()
            store = socket.socket(socket.AF_UNIX)
            store.connect(self.target)
            for source, sink, records in ((client, store, self.sent), (store, client, self.received)):
                record = bytearray()
                records.append(record)
                threading.Thread(target=self._pass, args=(source, sink, record), daemon=True).start()

    @staticmethod
    def _pass(source, sink, record):
        try:
            while piece := source.recv(1 << 18):
                record += piece
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def needles(corpus):
    """Pieces of every kind of page that a codec keeps as they are: they are noise. And a secret that
    stands once in a page."""
    return [corpus.text[at:at + NEEDLE] for at in range(1000, 64 * PAGE, PAGE)] + [SECRET[2:-2]]


def hits(records, wanted):
    return [needle for needle in wanted if any(needle in record for record in records)]


def pages(source):
    """With a secret in every 16th of them."""
    data = source.bytes(1 << 20)
    for at in range(0, len(data), 16 * PAGE):
        data[at + 100:at + 100 + len(SECRET)] = SECRET
    return data


def total(records):
    return sum(map(len, records))


def counted(host, counter, records, counted_before=0, passed_before=0):
    """The device counts what is on the wire, but for what a server says that looks around (a probe, a
    sweep) on connections of its own."""
    def fits():
        passed, own = total(records) - passed_before, host.counters()[counter] - counted_before
        return 0.97 * passed < own < 1.03 * passed
    wait_for(fits, 60, f"{counter} to be what has passed")


def one(rng, corpus, prefix):
    """What was found of it on the way there, and back."""
    donor = servers.Donor()
    recorder = Recorder(donor.socket)
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=prefix + recorder.uri, write_wait="60").start()
    handle, model = host.connect(), content.Model(SIZE)
    source = content.Source(corpus)
    for offset in range(0, SIZE, 1 << 20):
        model.write(handle, offset, pages(source))
    wait_for(lambda: host.counters()["pages_store"] > SIZE // PAGE // 3, 60, "pages to leave")
    counted(host, "store_sent_bytes", recorder.sent)
    before = host.counters()["store_received_bytes"], total(recorder.received)
    host.again()
    model.check_all(host.connect(), 1 << 20)
    counted(host, "store_received_bytes", recorder.received, *before)
    host.expect_nothing_lost()
    host.destroy()  # which speaks to the donor, too
    passed = [total(records) for records in (recorder.sent, recorder.received)]
    found = [hits(records, needles(corpus)) for records in (recorder.sent, recorder.received)]
    print(f"{prefix or 'plain'}: {passed} bytes there and back, {[len(f) for f in found]} of "
          f"{len(needles(corpus))} pieces found", flush=True)
    expect(min(passed) > 5 << 20, f"only {passed} bytes passed: this tests too little")
    return found


def test():
    rng = harness.seeded()
    corpus = content.Corpus(rng)
    for which, found in zip(("to", "from"), one(rng, corpus, "crypt+")):
        expect(not found, f"on the way {which} the donor one reads {found}")
    for which, found in zip(("to", "from"), one(rng, corpus, "")):
        expect(len(found) > 40 and SECRET[2:-2] in found,
               f"not encrypted, only {len(found)} pieces show on the way {which} the donor: the search is blind")


harness.main(test)
