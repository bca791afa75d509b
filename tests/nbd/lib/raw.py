"""raw: farswap-nbd with a supervisor in the test, and NBD spoken by hand over a socket that it was handed.

    server = Handed(size="64M", memory="96M").start()
    kernel = server.hand()                    a Kernel: the other end of a socket pair
    kernel.write(0, page); kernel.read(0, 4096)
"""

import os
import re
import select
import socket
import struct
import subprocess

import servers
from harness import Failed, expect, spawn, stand_still

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES = range(7)
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698


def request(kind, cookie, offset=0, payload=b"", length=0, flags=0):
    """A request's bytes."""
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, kind, cookie, offset,
                       len(payload) or length) + payload


class Kernel:
    """One end of a connection in the transmission phase, as the kernel's client is."""

    def __init__(self, sock):
        self.sock = sock
        self.cookie = 0
        self.wanted = {}   # cookie: bytes that its answer carries
        self.answers = {}  # cookie: (error, bytes)

    def send(self, kind, offset=0, length=0, payload=b"", flags=0):
        """Sends a request and returns its cookie."""
        self.cookie += 1
        self.wanted[self.cookie] = length if kind == READ else 0
        self.sock.sendall(request(kind, self.cookie, offset, payload, length, flags))
        return self.cookie

    def _receive(self, length):
        got = b""
        while len(got) < length:
            piece = self.sock.recv(length - len(got))
            if not piece:
                raise EOFError
            got += piece
        return got

    def answered(self, seconds):
        """Takes one answer if one comes in time; returns its cookie or None."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return None
        magic, error, cookie = struct.unpack(">IIQ", self._receive(16))
        expect(magic == REPLY_MAGIC and cookie in self.wanted, "a reply that belongs to nothing")
        length = self.wanted.pop(cookie)
        self.answers[cookie] = (error, self._receive(length) if error == 0 else b"")
        return cookie

    def wait(self, cookie, seconds=60):
        """The answer to a request: (error, bytes)."""
        while cookie not in self.answers:
            if self.answered(seconds) is None:
                raise Failed(f"no answer to request {cookie} in {seconds} s")
        return self.answers.pop(cookie)

    def do(self, *request, **more):
        return self.wait(self.send(*request, **more))

    def write(self, offset, data):
        error, _ = self.do(WRITE, offset, payload=data)
        expect(error == 0, f"a write failed with {error}")

    def read(self, offset, length):
        error, data = self.do(READ, offset, length)
        expect(error == 0, f"a read failed with {error}")
        return data

    def ended(self, seconds):
        """Waits for the server to close; answers that come before are kept."""
        try:
            while self.answered(seconds) is not None:
                pass
        except (EOFError, ConnectionResetError):
            return True
        return False


class Handed(servers.Server):
    """farswap-nbd --control: the test is its supervisor."""

    def __init__(self, options=(), **parameters):
        super().__init__(options=options, **parameters)
        self.control = None

    def where(self):
        return []

    def spawn(self):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = self.prefix + self.command() + ["--control", str(theirs.fileno())]
        self.process = spawn(argv, log=f"{self.name}.log", env=self.environment(),
                             pass_fds=[theirs.fileno()])
        theirs.close()
        return self

    def start(self):
        self.spawn()
        self.ready = self.hear()
        expect(re.fullmatch(r"ready size=\d+ device=[0-9a-f]{32} recovered=[01]", self.ready),
               f"the server says {self.ready!r}: {self.log()}")
        return self

    def hear(self, seconds=servers.START_SECONDS):
        """The next message; "" when it has gone."""
        if not select.select([self.control], [], [], seconds)[0]:
            raise Failed(f"no message in {seconds} s: {self.log()}")
        return self.control.recv(512).decode()

    def silent(self, seconds):
        return not select.select([self.control], [], [], seconds)[0]

    def hand(self, then=lambda: None):
        """Hands over a socket; returns the kernel's end, once it is served."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        socket.send_fds(self.control, [b"serve"], [theirs.fileno()])
        theirs.close()
        then()
        said = self.hear()
        expect(said == "serving", f"the server says {said!r}")
        return Kernel(ours)


class Away:
    """A donor that can be stopped, so that the store is away, and goes on when the test ends."""

    def __init__(self, donor):
        self.process = donor.process

    def __enter__(self):
        stand_still(self.process.pid)

    def __exit__(self, *_):
        self.process.send_signal(18)  # SIGCONT


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def nbdinfo(uri, *options):
    return subprocess.run(["nbdinfo", *options, uri], capture_output=True, text=True)
