#!/usr/bin/python3
"""late-put: a server is killed while segments are on their way to a real donor, and they arrive when the
next one has recovered, told the donor to drop them, and put others from the same rows. Nothing is taken
for anything else, and at the next connection the donor is rid of them. (tests/unit/test_late_put.c has
the same at a store in memory, with every moment of landing.)"""

import os
import re
import select
import socket
import sys
import types

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/../system", sys.path[0] + "/lib"]

import content  # noqa: E402
import harness  # noqa: E402
import load  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, built, expect, spawn, wait_for  # noqa: E402

os.environ.setdefault("FARSWAPD", built("server/farswapd"))
import farswapd_peer  # noqa: E402

SIZE = 32 << 20
POOL = 8 << 20
LATE = 3  # segments at least
STEP = 16 * PAGE
PUT = re.compile(rb"\$3\r\nSET\r\n\$\d+\r\n(farswap:\w+:\w+)\r\n\$(\d+)\r\n")


class Wire:
    """From a socket of its own to the donor's. A process, told what to do by files."""

    def __init__(self, donor):
        self.folder = os.path.join(harness.workdir(), "wire")
        os.mkdir(self.folder)
        self.there = donor.socket
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path("s"))
        self.listener.listen()
        self.uri = f"resp+unix://{self.path('s')}"
        self.ways = {}      # each open socket's other end
        self.clients = set()
        self.late = {}      # of clients whose requests stay here: the donor's end, and what they sent
        self.worker = harness.Worker(self.carry)

    def path(self, name):
        return os.path.join(self.folder, name)

    # ---- told by the test ----

    def holds(self, does):
        """What clients send from now on, and all that these connections send later, stays on the wire."""
        if does:
            open(self.path("holds"), "w").close()
        else:
            os.unlink(self.path("holds"))

    def puts(self):
        """Keys of segments that stay on the wire whole."""
        if not os.path.exists(self.path("late")):
            return []
        with open(self.path("late"), "rb") as file:
            text = file.read()
        return [put[1] for put in PUT.finditer(text) if len(text) > put.end() + int(put[2])]

    def do(self, what):
        """`lands`: what stayed arrives. `cut`: every connection ends."""
        open(self.path(what), "w").close()
        wait_for(lambda: not os.path.exists(self.path(what)), 60, f"the wire: {what}")

    # ---- what it does ----

    def carry(self):
        while True:
            for one in select.select([self.listener, *self.ways], [], [], 0.02)[0]:
                if one is self.listener:
                    self.join(one.accept()[0])
                elif one in self.ways:
                    self.move(one)
            for what in (self.lands, self.cut):
                if os.path.exists(self.path(what.__name__)):
                    what()
                    os.unlink(self.path(what.__name__))

    def join(self, client):
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.there)
        self.clients.add(client)
        self.ways.update({client: server, server: client})

    def move(self, one):
        try:
            data = one.recv(1 << 20)
            if one in self.clients and (one in self.late or os.path.exists(self.path("holds"))):
                self.keep(one, data)
            elif data:
                self.ways[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            self.part(one)

    def keep(self, client, data):
        self.late.setdefault(client, (self.ways[client], bytearray()))[1].extend(data)
        with open(self.path("late"), "ab") as file:
            file.write(data)

    def part(self, one):
        for end in (one, self.ways[one]):
            del self.ways[end]
            if not any(end is server for server, _ in self.late.values()):
                end.close()

    def lands(self):
        for server, sent in self.late.values():
            server.sendall(sent)

    def cut(self):
        for one in list(self.clients & set(self.ways)):
            self.part(one)


def fill(handle, model, source, size=SIZE):
    for offset in range(0, size, 1 << 20):
        model.write(handle, offset, source.bytes(1 << 20))


def until_puts_are_late(host, wire):
    """All is asked to leave; who asked waits, and the next server answers."""
    asked = spawn([built("client/cli/farswap"), "overflow", "--all", host.parameters["name"]], log="overflow.log",
                  env=servers.image_environment())
    wait_for(lambda: len(wire.puts()) >= LATE, 60, "segments to be on their way")
    return asked


def test():
    donor = servers.Donor()
    wire = Wire(donor)
    peer = farswapd_peer.Peer(types.SimpleNamespace(unix=donor.socket), unix=True)
    host = load.Host(size=str(SIZE), memory=str(POOL), overflow=wire.uri, write_wait="60",
                     options=["--timeout", "120"]).start()
    model, source = content.Model(SIZE), content.Source(content.Corpus(harness.seeded()))

    def has_what_it_should():  # and its sentinel
        return peer.ask("DBSIZE") == host.counters()["segments"] + 1

    handle = host.connect()
    fill(handle, model, source)
    wait_for(has_what_it_should, 60, "the donor to come to rest")
    wire.holds(True)
    asked = until_puts_are_late(host, wire)
    for offset in (0, SIZE // 2):
        model.write(handle, offset, source.bytes(STEP))  # perhaps what is on its way
    host.kill()
    wire.holds(False)
    host.start()
    handle = host.connect()
    model.check_all(handle)
    wait_for(lambda: asked.poll() is not None, 60, "what was asked to be answered")
    fill(handle, model, source, SIZE // 2)  # and of the first to leave now, others stay at the donor
    late = wire.puts()
    expect(peer.ask("EXISTS", *late) == 0, "what is late is there already")
    wire.do("lands")
    wait_for(lambda: peer.ask("EXISTS", *late) == len(late), 60, "what was late to land")
    model.check_all(handle)
    wire.do("cut")
    wait_for(lambda: peer.ask("EXISTS", *late) == 0 and has_what_it_should(), 60, "the late to be swept")
    model.check_all(handle)
    host.expect_nothing_lost()
    host.check()
    handle.shutdown()


harness.main(test)
