"""servers: the real programs that system tests talk to, each a class that starts, waits, and cleans.

  Plugin   nbdkit with our plugin, on a Unix socket (or TCP), image files in the test's directory.
           Its image outlives it on purpose, so destroy() belongs to the clean-up and is done here.
  Stock    nbdkit's memory plugin: the control that shows a test can fail, and the peer of a bench.
  Donor    farswapd on a Unix socket.
  Redis    a real redis-server on a Unix socket, nothing persisted.
"""

import itertools
import os
import re
import signal

import nbd

import harness
from harness import at_exit, built, end, expect, need, run, spawn, wait_for, workdir

_serial = itertools.count(1)

# For work on the tests themselves: run them against nbdkit memory.
STOCK = "FARSWAP_TEST_STOCK" in os.environ

# What a start may take on a loaded machine.
START_SECONDS = 30


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
        pid_file = os.path.join(workdir(), f"{self.name}.pid")
        argv = self.prefix + ["nbdkit", "-f", "-P", pid_file] + self.where() + self.command()
        self.process = spawn(argv, log=f"{self.name}.log", env=self.environment())
        wait_for(lambda: os.path.exists(pid_file) or self.process.poll() is not None,
                 START_SECONDS, "nbdkit to listen")
        expect(self.process.poll() is None, f"nbdkit ended at its start: {self.log()}")
        return self

    def log(self):
        with open(os.path.join(workdir(), f"{self.name}.log"), errors="replace") as log:
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


class Plugin(Nbd):
    """nbdkit farswap. Parameters are the plugin's own: Plugin(size="1G", memory="256M")."""

    PATH = "nbdkit-plugin/nbdkit-farswap-plugin.so"

    def __init__(self, prefix=(), tcp=None, options=(), **parameters):
        super().__init__(prefix, tcp)
        self.options = list(options)
        self.parameters = {"name": self.name, "size": "64M", "memory": "96M", "codec": "lz4"}
        self.parameters.update(parameters)
        at_exit(self.destroy)

    def command(self):
        return self.options + [built(self.PATH)] + [f"{k.replace('_', '-')}={v}"
                                                    for k, v in self.parameters.items()]

    def environment(self):
        return image_environment()

    def cli(self, *arguments):
        return run([built("client/cli/farswap"), *arguments], env=image_environment())

    def destroy(self):
        """Stops the server and wipes the image; the kernel would keep it for ever."""
        if self.process is None:
            return
        self.stop()
        if os.path.exists(os.path.join(workdir(), "run", f"{self.parameters['name']}.image")):
            done = self.cli("destroy", self.parameters["name"])
            if done.returncode != 0:
                print(f"destroy {self.parameters['name']}: {done.stdout}{done.stderr}", flush=True)

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

    def image_row(self):
        """The image's line in /proc/sysvipc/shm, as numbers by column."""
        return max((row for row in shm_rows() if row["cpid"] == self.pid or row["lpid"] == self.pid),
                   key=lambda row: row["size"], default=None)


class Stock(Nbd):
    """nbdkit memory, no compression."""

    def __init__(self, size, allocator="malloc", threads=None, prefix=(), tcp=None):
        super().__init__(prefix, tcp)
        self.arguments = ([] if threads is None else ["-t", str(threads)])
        self.arguments += ["memory", f"size={size}", f"allocator={allocator}"]

    def command(self):
        return self.arguments


def device(size, memory, **more):
    """A started Plugin, or the stand-in."""
    if STOCK:
        return Stock(size, **{key: more[key] for key in ("prefix", "tcp") if key in more}).start()
    return Plugin(size=size, memory=memory, **more).start()


class Donor:
    """farswapd on a Unix socket; `uri` goes to overflow=."""

    def __init__(self, memory="1G", prefix=()):
        self.name = f"d{os.getpid()}-{next(_serial)}"
        self.socket = os.path.join(workdir(), f"{self.name}.sock")
        self.uri = f"resp+unix://{self.socket}"
        argv = list(prefix) + [built("server/farswapd"), "--unix", self.socket, "--memory", memory,
                               "--name", self.name]
        self.process = spawn(argv, log=f"{self.name}.log", env=image_environment())
        wait_for(lambda: os.path.exists(self.socket) or self.process.poll() is not None,
                 START_SECONDS, "farswapd to listen")
        expect(self.process.poll() is None, "farswapd ended at its start")


class Redis:
    """redis-server with its data in memory only. `options` are redis.conf's, value by name."""

    def __init__(self, **options):
        self.name = f"r{os.getpid()}-{next(_serial)}"
        self.socket = os.path.join(workdir(), f"{self.name}.sock")
        self.uri = f"resp+unix://{self.socket}"
        argv = [need("redis-server"), "--port", "0", "--unixsocket", self.socket, "--save", "",
                "--appendonly", "no", "--dir", workdir()]
        for key, value in options.items():
            argv += [f"--{key.replace('_', '-')}", str(value)]
        self.process = spawn(argv, log=f"{self.name}.log")
        wait_for(self.answers, START_SECONDS, "redis-server to answer")

    def answers(self):
        expect(self.process.poll() is None, "redis-server ended at its start")
        done = run([need("redis-cli"), "-s", self.socket, "ping"])
        return done.stdout.strip() == "PONG"


def shm_rows():
    """/proc/sysvipc/shm as a list of dicts."""
    with open("/proc/sysvipc/shm") as table:
        columns = table.readline().split()
        return [dict(zip(columns, map(int, line.split()))) for line in table]


def resident(pid):
    """Bytes of a process that are in RAM, shared memory (the image) not counted."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return (int(fields["RssAnon"].split()[0]) + int(fields["RssFile"].split()[0])) * 1024
