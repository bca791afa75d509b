"""servers: the real programs that system tests talk to, each a class that starts, waits, and cleans.

  Plugin   nbdkit with our plugin, on a Unix socket (or TCP), image files in the test's directory.
           Its image outlives it on purpose, so destroy() belongs to the clean-up and is done here.
  Server   farswap-nbd, with the same parameters and the same clean-up.
  Stock    nbdkit's memory plugin: the control that shows a test can fail, and the peer of a bench.
  Donor    farswapd on a Unix socket.
  Redis    a real redis-server on a Unix socket, nothing persisted.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess

import nbd

from harness import STOCK, Failed, at_exit, built, end, expect, need, run, spawn, wait_for, workdir

_serial = itertools.count(1)

# Servers that refused to start, whose images must not be there.
refused_pids = []

# What a start may take on a loaded machine.
START_SECONDS = 60

# What a program says that has waited its 3 s for a store, which a good one may be late for on a busy machine.
LATE = "no answer within"
LATE_TRIES = 5

# What a refused server with a sanitizer has for its end, once it has said why.
HANG_SECONDS = 5


def again_if_late(call, late=LATE):
    """The CompletedProcess of the first call whose store was in time, or of the last."""
    for _ in range(LATE_TRIES):
        done = call()
        if late not in done.stdout + done.stderr:
            break
    return done


class Nbd:
    """An NBD server in a process. Subclasses say what to run."""

    def __init__(self, prefix=(), tcp=None):
        self.name = f"t{os.getpid()}-{next(_serial)}"
        self.socket = os.path.join(workdir(), f"{self.name}.sock")
        self.tcp = tcp
        self.prefix = list(prefix)
        self.process = None

    def where(self):
        """nbdkit's options for the address: a Unix socket, or (address, port)."""
        if self.tcp is None:
            return ["-U", self.socket]
        return ["-i", self.tcp[0], "-p", str(self.tcp[1])]

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def start(self):
        """Again, where its store was late."""
        for _ in range(LATE_TRIES):
            before = len(self.log())
            try:
                return self.launch()
            except Failed:
                if LATE not in self.log()[before:]:
                    raise
        raise Failed(f"its store is always late: {self.log()}")

    def launch(self):
        pid_file = os.path.join(workdir(), f"{self.name}.pid")
        with contextlib.suppress(FileNotFoundError):  # of an earlier one
            os.unlink(pid_file)
        argv = self.prefix + ["nbdkit", "-f", "-P", pid_file] + self.where() + self.command()
        self.process = spawn(argv, log=f"{self.name}.log", env=self.environment())
        wait_for(lambda: os.path.exists(pid_file) or self.process.poll() is not None,
                 START_SECONDS, "nbdkit to listen")
        expect(self.process.poll() is None, f"nbdkit ended at its start: {self.log()}")
        return self

    def log(self):
        path = os.path.join(workdir(), f"{self.name}.log")
        if not os.path.exists(path):
            return ""  # refused: its output went to refusal()
        with open(path, errors="replace") as log:
            return log.read()

    @property
    def pid(self):
        return self.process.pid

    @property
    def uri(self):
        if self.tcp is None:
            return f"nbd+unix:///?socket={self.socket}"
        return f"nbd://{self.tcp[0]}:{self.tcp[1]}"

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def connect(self):
        handle = nbd.NBD()
        handle.connect_uri(self.uri)
        return handle

    def stop(self):
        """SIGTERM and its exit status."""
        status = end(self.process)
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        return status

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


def image_environment():
    """Images and records of this test only."""
    run_dir = os.path.join(workdir(), "run")
    state_dir = os.path.join(workdir(), "state")
    os.makedirs(run_dir, exist_ok=True)
    os.makedirs(state_dir, exist_ok=True)
    return dict(os.environ, FARSWAP_RUNDIR=run_dir, FARSWAP_STATEDIR=state_dir)


def spelled(parameters):
    """As KEY=VALUE. Of farswap's own keys, those of a store's password and key have a hyphen."""
    return [f"{key.replace('_', '-') if key in ('overflow_password', 'overflow_plaintext') else key}={value}"
            for key, value in parameters.items()]


class Plugin(Nbd):
    """nbdkit farswap. Parameters are the plugin's own: Plugin(size="1G", memory="256M")."""

    PATH = "nbdkit-plugin/nbdkit-farswap-plugin.so"

    def __init__(self, prefix=(), tcp=None, options=(), **parameters):
        super().__init__(prefix, tcp)
        self.options = list(options)
        self.parameters = {"name": self.name, "size": "64M", "memory": "96M", "codec": "lz4"}
        self.parameters.update(parameters)
        self.parameters = {k: v for k, v in self.parameters.items() if v is not None}
        at_exit(self.destroy)

    def command(self):
        return self.options + [built(self.PATH)] + spelled(self.parameters)

    def environment(self):
        """A plugin with a sanitizer needs its runtime in nbdkit from the start."""
        environment = image_environment()
        runtime = sanitizer()
        if runtime:
            environment["LD_PRELOAD"] = runtime
            environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")  # nbdkit's own are many
        return environment

    def cli(self, *arguments):
        return run([built("client/cli/farswap"), *arguments], env=image_environment())

    def refusal(self):
        """Starts a server that must refuse to; returns the one line that it says."""
        argv = self.prefix + ["nbdkit", "-f"] + self.where() + self.command()
        path = os.path.join(workdir(), f"{self.name}.refusal")
        with open(path, "w") as file:
            self.process = spawn(argv, stdout=subprocess.DEVNULL, stderr=file, env=self.environment())
        refused_pids.append(self.pid)
        wait_for(lambda: self.process.poll() is not None or sanitizer() and os.path.getsize(path) > 0,
                 START_SECONDS, f"a refusal of {self.parameters}")
        try:
            self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            # With ASan some exits hang in libp11-kit's destructor, which nbdkit brings along.
            expect(not os.path.exists(self.socket), f"{self.parameters} was accepted, or the refusal hangs")
            self.process.kill()
            self.process.wait()
        with open(path) as file:
            lines = file.read().splitlines()
        expect(self.process.returncode != 0, f"{self.parameters} was accepted")
        expect(len(lines) == 1, f"{self.parameters}: expected one line, got: {lines}")
        return lines[0]

    def image_file(self):
        return os.path.join(workdir(), "run", f"{self.parameters.get('name', '')}.image")

    def shmid(self):
        """The image's shared memory id, None without an image."""
        if not os.path.exists(self.image_file()):
            return None
        with open(self.image_file()) as record:
            found = re.search(r"^shmid=(\d+)$", record.read(), re.M)
        return int(found.group(1)) if found else None

    def image_row(self):
        """The image's line in /proc/sysvipc/shm, as numbers by column."""
        return next((row for row in shm_rows() if row["shmid"] == self.shmid()), None)

    def destroy(self):
        """Stops the server and wipes the image, which nothing else would ever do."""
        if self.process is None:
            return
        self.stop()
        row = self.image_row()
        try:
            self.expect_sane()
            if row is None:
                return
            done = again_if_late(lambda: self.cli("destroy", self.parameters["name"]))
            expect(done.returncode == 0, f"farswap destroy: {done.stdout}{done.stderr}")
            expect(row["shmid"] not in [other["shmid"] for other in shm_rows()],
                   "farswap destroy left the shared memory")
        finally:
            if row is not None:  # no test leaves an image, whatever happens
                run(["ipcrm", "-m", str(row["shmid"])])

    def expect_sane(self):
        """No sanitizer complained in the log."""
        found = re.search(r"^.*(?:ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:).*$",
                          self.log(), re.M)
        expect(not found, f"the server's log has: {found and found.group(0)}")

    def counters(self):
        """What `farswap stats NAME` says, as numbers by name."""
        done = self.cli("stats", self.parameters["name"])
        expect(done.returncode == 0, f"farswap stats: {done.stderr}")
        found = re.findall(r"^\s*([a-z_0-9]+)\s*[:= ]\s*(\d+)\b", done.stdout, re.M)
        return {name: int(value) for name, value in found}

    def check(self):
        """`farswap check`: the image's invariants hold."""
        done = self.cli("check", self.parameters["name"])
        expect(done.returncode == 0, f"farswap check: {done.stdout}{done.stderr}")


class Server(Plugin):
    """farswap-nbd, with the plugin's parameters. `options` are its own, as "--timeout"."""

    PATH = "client/nbd/farswap-nbd"

    def where(self):
        if self.tcp is None:
            return ["--unix", self.socket]
        return ["--listen", f"{self.tcp[0]}:{self.tcp[1]}"]

    def command(self):
        return [built(self.PATH)] + self.where() + self.options + spelled(self.parameters)

    def environment(self):
        return image_environment()

    def launch(self):
        before = self.log().count(" is served")
        self.process = spawn(self.prefix + self.command(), log=f"{self.name}.log",
                             env=self.environment())
        wait_for(lambda: self.log().count(" is served") > before or not self.alive(), START_SECONDS,
                 "farswap-nbd to listen")
        expect(self.alive(), f"farswap-nbd ended at its start: {self.log()}")
        return self

    def refusal(self):
        """Starts a server that must refuse to; returns the one line that it says."""
        done = run(self.prefix + self.command(), START_SECONDS, env=self.environment())
        lines = done.stderr.splitlines()
        expect(done.returncode == 1 and len(lines) == 1,
               f"{self.command()}: expected status 1 and one line, got {done.returncode}:\n"
               f"{done.stdout}{done.stderr}")
        return lines[0]


class Stock(Nbd):
    """nbdkit memory, no compression."""

    def __init__(self, size, allocator="malloc", threads=None, prefix=(), tcp=None):
        super().__init__(prefix, tcp)
        self.arguments = ([] if threads is None else ["-t", str(threads)])
        self.arguments += ["memory", f"size={size}", f"allocator={allocator}"]

    def command(self):
        return self.arguments


def sanitizer():
    """The path of the sanitizer runtime that the plugin is linked with, None without."""
    found = re.search(r"/\S+/lib[at]san\.so\S*", run(["ldd", built(Plugin.PATH)]).stdout)
    return found.group(0) if found else None


def device(size, memory, patient=False, **more):
    """A started Plugin, or what FARSWAP_DOOR names (nbd: a Server, fuse: farswap-fuse), or the stand-in.
    patient: a write waits a minute for room, since on a busy machine who makes it may be late."""
    if STOCK:
        return Stock(size, **{key: more[key] for key in ("prefix", "tcp") if key in more}).start()
    if patient:
        more["write_wait"] = "60"
    if os.environ.get("FARSWAP_DOOR") == "fuse":
        import fuse  # which needs this module
        return fuse.device(size, memory, **more)
    door = Server if os.environ.get("FARSWAP_DOOR") == "nbd" else Plugin
    if patient and door is Server:  # which waits for half its timeout at most
        more["options"] = ["--timeout", "120"]
    return door(size=size, memory=memory, **more).start()


class Donor:
    """farswapd on a Unix socket; `uri` goes to overflow=."""

    def __init__(self, memory="1G", prefix=()):
        self.name = f"d{os.getpid()}-{next(_serial)}"
        self.socket = os.path.join(workdir(), f"{self.name}.sock")
        self.uri = f"resp+unix://{self.socket}"
        argv = list(prefix) + [built("server/farswapd"), "--unix", self.socket, "--memory", memory]
        self.process = spawn(argv, log=f"{self.name}.log", env=image_environment())
        wait_for(lambda: self.is_ready() or self.process.poll() is not None,
                 START_SECONDS, "farswapd to listen")
        expect(self.process.poll() is None, "farswapd ended at its start")

    def is_ready(self):
        with open(os.path.join(workdir(), f"{self.name}.log"), errors="replace") as log:
            return " ready on " in log.read()


class Redis:
    """redis-server with its data in memory only. `options` are redis.conf's, value by name."""

    def __init__(self, **options):
        self.name = f"r{os.getpid()}-{next(_serial)}"
        self.socket = os.path.join(workdir(), f"{self.name}.sock")
        self.uri = f"resp+unix://{self.socket}"
        self.argv = [need("redis-server"), "--port", "0", "--unixsocket", self.socket, "--save", "",
                     "--appendonly", "no", "--dir", workdir(), "--dbfilename", f"{self.name}.rdb"]
        for key, value in options.items():
            self.argv += [f"--{key.replace('_', '-')}", str(value)]
        at_exit(lambda: end(self.process))  # whichever it is then, after what was made later
        self.start()

    def start(self):
        self.process = spawn(self.argv, log=f"{self.name}.log", undo=False)
        wait_for(self.answers, START_SECONDS, "redis-server to answer")

    def answers(self):
        expect(self.process.poll() is None, "redis-server ended at its start")
        done = run([need("redis-cli"), "-s", self.socket, "ping"])
        return done.stdout.strip() == "PONG"

    def shut_down(self):
        """With its data saved: the next start() has them."""
        run([need("redis-cli"), "-s", self.socket, "shutdown", "save"])
        self.process.wait(START_SECONDS)


SHM_DEST = 0o1000


def shm_rows():
    """/proc/sysvipc/shm as a list of dicts, without what goes when its last process does: whoever lists
    images, in another test, too, maps each for a moment."""
    with open("/proc/sysvipc/shm") as table:
        columns = table.readline().split()
        rows = [dict(zip(columns, map(int, line.split()))) for line in table]
    return [row for row in rows if not int(str(row["perms"]), 8) & SHM_DEST]


def resident(pid):
    """Bytes of a process that are in RAM, shared memory (the image) not counted."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return (int(fields["RssAnon"].split()[0]) + int(fields["RssFile"].split()[0])) * 1024


def locked(pid):
    """Bytes of a process that are locked in RAM, the image included."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmLck:")) * 1024
