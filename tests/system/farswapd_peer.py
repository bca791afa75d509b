"""A donor of one's own, and peers that are ruder than any client library lets one be."""
import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

FARSWAPD = os.environ["FARSWAPD"]
DEADLINE = float(os.environ.get("FSW_TEST_DEADLINE", "60"))


with open(FARSWAPD, "rb") as program_file:
    SANITIZED = b"__asan_init" in program_file.read()

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
# meson ends a test that hangs with SIGTERM: clean up then, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def wait_for(condition, what):
    """The condition's value once it is true."""
    end = time.monotonic() + DEADLINE
    while True:
        late = time.monotonic() > end
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"not within {DEADLINE} s: {what}")
        time.sleep(0.01)


class Donor:
    """farswapd on a free port of loopback and on a Unix socket, in a folder of its own."""

    def __init__(self, *options, password=None, listen="127.0.0.1:0", preexec=None, keeps=False,
                 folder=None, program=None, proc=None):
        self.folder = folder or tempfile.TemporaryDirectory(prefix="farswapd-test-")
        self.unix = os.path.join(self.folder.name, "s")
        assert keeps or "--name" not in options, "who would remove what it keeps?"
        self.environment = dict(os.environ, FARSWAP_RUNDIR=self.folder.name)
        if proc is not None:
            self.environment["FARSWAPD_PROC"] = proc
        command = [program or FARSWAPD, "--listen", listen, "--unix", self.unix, *options]
        if password is not None:
            path = os.path.join(self.folder.name, "password")
            with open(path, "w", encoding="ascii") as file:
                file.write(password + "\n")
            command += ["--requirepass-file", path]

        def in_the_child():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if preexec is not None:
                preexec()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, preexec_fn=in_the_child, cwd=self.folder.name,
                                        env=self.environment)
        self.ready = self.process.stdout.readline()
        if " ready on " not in self.ready:
            raise AssertionError("not ready: " + self.process.stderr.read())
        self.port = int(self.ready.split(" ready on ")[1].split()[0].rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        """Every test ends with this: the donor is still alive, and ends clean."""
        try:
            alive = self.process.poll() is None
            self.process.send_signal(signal.SIGTERM)
            _, errors = self.process.communicate(timeout=DEADLINE)
            if unused[0] is None:
                assert alive, f"the donor died: {self.process.returncode}: {errors}"
                assert self.process.returncode == 0, (self.process.returncode, errors)
                assert "ERROR" not in errors and "runtime error" not in errors, errors
            elif errors:
                print(errors, file=sys.stderr)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.folder.cleanup()

    def connect(self, unix=False):
        return Peer(self, unix)

    def info(self, peer):
        return dict(line.split(":", 1) for line in peer.ask("INFO").decode().split("\r\n")
                    if ":" in line)

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Refused(Exception):
    """An error reply."""


def request(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class Peer:
    def __init__(self, donor, unix=False):
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        # Blocking: with a timeout, a full backlog of a Unix socket is an error and no wait.
        self.socket.connect(donor.unix if unix else ("127.0.0.1", donor.port))
        self.socket.settimeout(DEADLINE)
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read_more(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        self.got += data

    def read_line(self):
        while b"\r\n" not in self.got:
            self.read_more()
        line, self.got = self.got.split(b"\r\n", 1)
        return line

    def read(self):
        """One reply: bytes, int, None, or a list of those; raises Refused."""
        line = self.read_line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        if kind == b"+":
            return rest
        assert kind == b"$", line
        length = int(rest)
        if length < 0:
            return None
        parts, have = [self.got], len(self.got)
        while have < length + 2:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            parts.append(data)
            have += len(data)
        self.got = b"".join(parts)
        value, self.got = self.got[:length], self.got[length + 2:]
        return value

    def ask(self, *words):
        self.send(request(*words))
        return self.read()

    def error(self, *words):
        try:
            return f"no error, but {self.ask(*words)!r}"
        except Refused as refused:
            return str(refused)

    def read_to_end(self):
        """All until the donor closes."""
        try:
            while True:
                self.read_more()
        except (EOFError, ConnectionResetError):
            return self.got

    def reset(self):
        """Ends the connection with a RST, as a host that crashed and came back does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send_while_it_takes(self, data, quiet=0.5):
        """Sends the data again and again until nothing is taken for `quiet` seconds, or the donor has had
        enough of that. Bytes taken."""
        self.socket.setblocking(False)
        taken = at = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while select.select([], [self.socket], [], quiet)[1]:
                n = self.socket.send(data[at:])
                taken += n
                at = (at + n) % len(data)
        self.socket.settimeout(DEADLINE)
        return taken
