"""load: a device several times its pool under random writes, discards and reads, whose every byte is
known, while whatever a test likes happens to its store, and while its server is killed.

    host = load.Host(size=…, memory=…, overflow=…).start()
    work = load.Load(host, rng)                 fills the device, then goes on until finish()
    killer = load.Killer(host, rng)             kill -9 and a next server, again and again
    …                                           trouble
    work.goes_on()                              every client has had answers to more requests
    killer.stop()
    work.finish()                               everything is read and compared once more

  - A client behaves as the kernel does: what was not answered when the server died is sent again to
    the next one. So its model is exact after any number of kills. Only a write that was refused
    (ENOSPC, and EIO where part of a page that is away was to change) leaves each of its pages old or
    new, and the client looks which.
  - Any other error is a failure, and so are wrong bytes.
  - A client rests between requests: these tests run beside one another, and what they look for is not
    found by speed.
"""

import json
import mmap
import os
import signal
import struct
import threading
import time

import nbd

import content
import harness
import servers
from harness import PAGE, Failed, at_exit, expect, spawn, wait_for

CLIENTS = 2
REST_S = 0.004
ENOUGH_REFUSED = 3  # of writes that fill a device: each takes a second
PATIENCE_S = 300  # a machine that runs eight such tests is slow


class Host(servers.Server):
    """farswap-nbd, to be killed and started again under its clients."""

    def start(self):
        before = self.log().count(" is served")
        self.process = spawn(self.prefix + self.command(), log=f"{self.name}.log",
                             env=self.environment())
        wait_for(lambda: self.log().count(" is served") > before or not self.alive(),
                 servers.START_SECONDS, "farswap-nbd to listen")
        expect(self.alive(), f"farswap-nbd ended at its start: {self.log()[-2000:]}")
        return self

    def again(self):
        self.kill()
        self.start()

    def cli(self, *arguments):
        """Where the server runs: only there are its stores."""
        return harness.run(self.prefix + [harness.built("client/cli/farswap"), *arguments],
                           env=servers.image_environment())

    def expect_nothing_lost(self, *but):
        """`but`: what this trouble may cost."""
        counters = self.counters()
        for name in ("corrupt_pages", "store_lost_pages", "failed_reads", "failed_writes", "no_space"):
            expect(name in but or counters[name] == 0, f"{name} is {counters[name]}")
        expect(counters["overflow_pages"] > 1000 and counters["fetch_pages"] > 1000,
               f"overflowed {counters['overflow_pages']} pages and fetched {counters['fetch_pages']}: "
               f"this tests too little")
        return counters

    def look(self):
        """What `farswap status` says."""
        done = self.cli("status", "--json", self.parameters["name"])
        expect(done.returncode == 0, f"farswap status: {done.stderr}")
        return json.loads(done.stdout)[0]

    def says_away(self):
        """Why the store is away, as status has it while a server serves; None if it does not say so."""
        device = self.look()
        if device["state"] != "served" or device["store"]["connected"]:
            return None
        return device["store"]["last_error"]

    def local_goes_on(self, requests=20):
        """What needs no store is answered, whatever happens to the server: the last page of the device
        is nobody's."""
        handle = Connection(self.uri)
        where = int(self.parameters["size"])
        for number in range(requests):
            page = bytes([number % 251 + 1]) * PAGE  # same-filled: takes no room
            handle.pwrite(page, where - PAGE)
            expect(handle.pread(PAGE, where - PAGE) == page, "a local page is wrong")

    def away(self, seconds):
        """The store is away by now. For that long, status says so and why, nothing is fetched, and
        local pages come."""
        until = time.monotonic() + seconds
        wait_for(self.says_away, PATIENCE_S, "status to say that the store is away, and why")
        fetched = self.counters()["fetch_pages"]
        while time.monotonic() < until:
            self.local_goes_on()
            time.sleep(0.2)
        expect(self.counters()["fetch_pages"] == fetched, "pages were fetched: the store is not away")

    def give_up(self):
        """Ends it as people would whose store has gone for good."""
        self.stop()
        done = self.cli("destroy", "--local", self.parameters["name"])
        expect(done.returncode == 0, f"farswap destroy --local: {done.stdout}{done.stderr}")


class Connection:
    """libnbd's verbs, each done again on a new connection until a server has answered it."""

    def __init__(self, uri):
        self.uri = uri
        self.handle = None

    def _connect(self):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            handle = nbd.NBD()
            try:
                handle.connect_uri(self.uri)
                return handle
            except nbd.Error as error:
                if time.monotonic() > deadline:
                    raise Failed(f"nobody serves {self.uri} any more: {error}") from None
                time.sleep(0.01)

    def _do(self, verb, *args):
        while True:
            if self.handle is None:
                self.handle = self._connect()
            try:
                return getattr(self.handle, verb)(*args)
            except nbd.Error:
                if not self.handle.aio_is_dead() and not self.handle.aio_is_closed():
                    raise  # the server's answer
                self.handle = None

    def pread(self, *args):
        return self._do("pread", *args)

    def pwrite(self, *args):
        return self._do("pwrite", *args)

    def trim(self, *args):
        return self._do("trim", *args)

    def zero(self, *args):
        return self._do("zero", *args)


class Board:
    """What a client tells the test, in memory that both have: a few numbers."""

    FIELDS = ("filled", "done", "refused", "stop", "only_reads")

    def __init__(self):
        self.memory = mmap.mmap(-1, PAGE)

    def get(self, field):
        return struct.unpack_from("=Q", self.memory, 8 * self.FIELDS.index(field))[0]

    def set(self, field, value):
        struct.pack_into("=Q", self.memory, 8 * self.FIELDS.index(field), value)

    def add(self, field):
        self.set(field, self.get(field) + 1)


class Client:
    """In a process of its own: some pages of the device, and what must be in them."""

    def __init__(self, board, uri, corpus, rng, base, size, first_serial, rest):
        self.board, self.rng, self.size, self.rest = board, rng, size, rest
        self.handle = Connection(uri)
        self.model = content.Model(size, base)
        self.source = content.Source(corpus, first_serial)

    def run(self):
        for offset in range(0, self.size, 1 << 20):
            if self.board.get("refused") < ENOUGH_REFUSED:
                self.write(offset, min(1 << 20, self.size - offset))
        self.board.add("filled")
        while not self.board.get("stop"):
            self.one()
            self.board.add("done")
            time.sleep(self.rest)
        self.model.check_all(self.handle, 1 << 20)

    def one(self):
        length = self.rng.choice((PAGE, self.rng.randrange(1, 3 * PAGE), self.rng.randrange(1, 64 * PAGE)))
        offset = self.rng.randrange(self.size - length + 1)
        if self.rng.randrange(2):
            offset = offset // PAGE * PAGE
        verb = self.rng.choices(("write", "trim", "zero", "check"), (45, 6, 4, 45))[0]
        if verb == "check" or self.board.get("only_reads"):
            self.model.check(self.handle, offset, length)
        elif verb == "write":
            self.write(offset, length)
        else:
            self.attempt(verb, offset, bytes(length))

    def write(self, offset, length):
        self.attempt("write", offset, self.source.bytes(length))

    def attempt(self, verb, offset, data):
        try:
            if verb == "write":
                self.model.write(self.handle, offset, data)
            else:
                getattr(self.model, verb)(self.handle, offset, len(data))
        except nbd.Error as error:
            part = offset % PAGE or len(data) % PAGE
            if error.errno != "ENOSPC" and not (error.errno == "EIO" and part):
                raise
            self.board.add("refused")
            self.settle(offset, data)

    def settle(self, offset, data):
        """Each page of a change that was refused is old or new."""
        first = offset // PAGE * PAGE
        last = min(-(-(offset + len(data)) // PAGE) * PAGE, self.size)
        old = bytes(self.model.bytes[first:last])
        new = bytearray(old)
        new[offset - first:offset - first + len(data)] = data
        got = self.handle.pread(last - first, self.model.base + first)
        for at in range(0, last - first, PAGE):
            page = got[at:at + PAGE]
            if page != old[at:at + PAGE] and page != new[at:at + PAGE]:
                raise Failed(f"page {(self.model.base + first + at) // PAGE}: after a write that was "
                             f"refused it is neither old nor new")
        self.model.bytes[first:last] = got


class Writer(Client):
    """Once its pages are filled it only writes, a whole page at a time: it never waits for the store, so
    that something is always on its way there."""

    def one(self):
        self.write(self.rng.randrange(self.size // PAGE) * PAGE, PAGE)

    def settle(self, offset, data):
        """A page that was refused is the old one. (While they are filled: see there.)"""
        if len(data) > PAGE:
            super().settle(offset, data)


class Load:
    """All clients of a device, and if wanted a Writer. They begin at once."""

    def __init__(self, host, rng, clients=CLIENTS, rest=REST_S, writer=False):
        size = int(host.parameters["size"]) - (1 << 20)  # the rest is the test's
        corpus = content.Corpus(rng)
        kinds = [Client] * clients + [Writer] * writer
        self.boards = [Board() for _ in kinds]
        self.workers = []
        own = size // len(kinds) // PAGE * PAGE
        for number, (kind, board) in enumerate(zip(kinds, self.boards)):
            client = kind(board, host.uri, corpus, type(rng)(rng.getrandbits(64)), number * own, own,
                          (number + 1) << 40, rest)
            self.workers.append(harness.Worker(client.run))

    def count(self, field):
        return sum(board.get(field) for board in self.boards)

    def _wait(self, condition, what):
        wait_for(lambda: condition() or not all(w.running() for w in self.workers), PATIENCE_S, what)
        for worker in self.workers:
            if not worker.running():
                worker.join()
                raise Failed("a client ended before it was told to")

    def filled(self):
        self._wait(lambda: all(board.get("filled") for board in self.boards), "the device to be filled")

    def goes_on(self, requests=50):
        """Each client has that many more answers."""
        before = [board.get("done") for board in self.boards]
        self._wait(lambda: all(board.get("done") >= had + requests
                               for board, had in zip(self.boards, before)), "clients to go on")

    def only_reads(self, value):
        """From the return on with 1, no client changes anything; with 0, they do again."""
        for board in self.boards:
            board.set("only_reads", value)
        if value:
            self.goes_on(2)  # the one that was under way, and one that knows

    def finish(self):
        for board in self.boards:
            board.add("stop")
        for worker in self.workers:
            worker.join(2 * PATIENCE_S)
        print(f"{self.count('done')} requests, {self.count('refused')} refused", flush=True)


class Killer(threading.Thread):
    """kill -9 of the server at random times, and the next one. The thread stays until the test ends,
    since the kernel kills with it what it started (PR_SET_PDEATHSIG)."""

    def __init__(self, host, rng, least=0.2, most=1.5):
        super().__init__(daemon=True)
        self.host, self.rng, self.times = host, type(rng)(rng.getrandbits(64)), (least, most)
        self.halted, self.at_rest = threading.Event(), threading.Event()
        self.kills = 0
        self.failure = None
        at_exit(self.halt)
        self.start()

    def run(self):
        try:
            while not self.halted.wait(self.rng.uniform(*self.times)):
                self.host.again()
                self.kills += 1
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure
        self.at_rest.set()
        threading.Event().wait()

    def halt(self):
        self.halted.set()
        self.at_rest.wait()

    def stop(self, at_least=1):
        """Once it has killed that often."""
        wait_for(lambda: self.kills >= at_least or self.failure is not None, PATIENCE_S,
                 f"the server to be killed {at_least} times")
        self.halt()
        if self.failure is not None:
            raise self.failure
        print(f"the server was killed {self.kills} times", flush=True)


def freeze(process):
    """Stopped, and seen to be."""
    process.send_signal(signal.SIGSTOP)
    at_exit(thaw, process)

    def stopped():
        with open(f"/proc/{process.pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "T"
    wait_for(stopped, 60, "a process to stop")


def thaw(process):
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
