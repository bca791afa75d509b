"""updown: `farswap up` and `farswap down` as a test sees them: calls, the swap that came of them, and
what they left on the host, which is looked for in the kernel and not in the command's own files."""

import contextlib
import glob
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../swap/lib"))

import harness  # noqa: E402
import servers  # noqa: E402
from harness import at_exit, built, expect, run, workdir  # noqa: E402


def environment():
    return dict(servers.image_environment(), FARSWAP_CONFDIR=workdir())


def cli(*arguments, prefix=()):
    return run([*prefix, built("client/cli/farswap"), *arguments], env=environment())


_serial = itertools.count(1)


class Device:
    """A name, and what belongs to it. Taken down when the test ends, whatever it left."""

    def __init__(self, name):
        self.name = name
        self.mount = os.path.join(workdir(), "run", f"{name}.mnt")
        self.shmids = set()  # of its images so far
        at_exit(self._sweep)

    def up(self, *arguments):
        return cli("up", *arguments, self.name) if arguments and arguments[0].startswith("-") else \
            cli("up", self.name, *arguments)

    def down(self, *options):
        return cli("down", *options, self.name)

    def must(self, verb, *arguments):
        done = servers.again_if_late(lambda: getattr(self, verb)(*arguments))
        expect(done.returncode == 0, f"{verb} {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def refused(self, verb, text, *arguments):
        done = getattr(self, verb)(*arguments)
        expect(done.returncode == 1, f"{verb} {arguments} ended with {done.returncode}, not 1: "
               f"{done.stdout}{done.stderr}")
        lines = done.stderr.splitlines()
        expect(lines and text in lines[-1], f"{verb} {arguments} says {done.stderr!r}, not {text!r}")

    def down_on_a_terminal(self):
        """Its status, and all that it wrote. No server moves before it says what is left: it would say
        nothing if it was late and all came back meanwhile."""
        master, slave = os.openpty()
        still = self.processes()
        for pid in still:
            harness.stand_still(pid)
        process = subprocess.Popen([built("client/cli/farswap"), "down", self.name],
                                   env=environment(), stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        text, deadline = b"", time.monotonic() + 60
        try:
            while True:
                if b" left" in text or time.monotonic() > deadline:
                    still = self.go_on(still)
                if select.select([master], [], [], 1)[0]:
                    text += os.read(master, 4096)
        except OSError:  # nobody has the other end any more
            pass
        finally:
            self.go_on(still)
        os.close(master)
        return process.wait(60), text.decode()

    @staticmethod
    def go_on(pids):
        """Once: who stands still then is nobody."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return []

    def popen(self, *arguments, prefix=()):
        return subprocess.Popen([*prefix, built("client/cli/farswap"), *arguments], env=environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def loops(self):
        found = []
        for path in glob.glob("/sys/block/loop*/loop/backing_file"):
            try:
                with open(path) as file:
                    if file.read().startswith(self.mount + "/"):
                        found.append("/dev/" + path.split("/")[3])
            except OSError:
                continue
        return found

    def mounts(self):
        with open("/proc/self/mounts") as mounts:
            return [line for line in mounts if line.split()[1] == self.mount]

    def processes(self):
        """Pids of farswap-fuse with our name."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            pid = int(path.split("/")[2])
            words = words_of(pid)
            if b"farswap-fuse" in words[0] and self.name.encode() in words:
                found.append(pid)
        return found

    def supervisor(self):
        """The process that `up` has started, or started last. (A server that is about to be one still has
        its supervisor's command line.)"""
        pids = self.processes()
        for pid in pids:
            if b"--supervise" in words_of(pid) and parent_of(pid) not in pids:
                return pid
        raise harness.Failed(f"{self.name} has no supervisor")

    def server(self):
        """Its pid, as the image has it; 0: nobody serves."""
        return json.loads(cli("status", "--json", self.name).stdout)[0]["pid"]

    def swap(self):
        """(device, bytes, bytes used, priority), None without."""
        loops = self.loops()
        for fields in swaps():
            if fields[0] in loops:
                return fields
        return None

    def remember_image(self):
        """Its shared memory, which must be gone when it is down."""
        path = os.path.join(workdir(), "run", f"{self.name}.image")
        if os.path.exists(path):
            with open(path) as record:
                self.shmids |= {int(line[6:]) for line in record if line.startswith("shmid=")}

    def memory(self):
        return [f"shared memory {row['shmid']}" for row in servers.shm_rows()
                if row["shmid"] in self.shmids]

    def remains(self):
        left = self.memory() + [f"process {pid}" for pid in self.processes()] + self.loops() + self.mounts()
        left += glob.glob(os.path.join(workdir(), f"run/{self.name}.*"))
        left += glob.glob(os.path.join(workdir(), f"state/{self.name}"))
        return left

    def expect_nothing(self):
        expect(not self.remains(), f"{self.name} is down and left {self.remains()}")

    def expect_up(self):
        """Each thing once."""
        self.remember_image()
        expect(self.memory(), "no image is found in shared memory")
        expect(self.swap() is not None, "no swap")
        expect(len(self.loops()) == 1 and len(self.mounts()) == 1,
               f"not one of each: {self.loops()} {self.mounts()}")

    def _sweep(self):
        done = self.down()
        if done.returncode != 0:
            cli("destroy", "--local", self.name)
        for loop in self.loops():
            run(["swapoff", loop])
            run(["losetup", "--detach", loop])
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if self.mounts():
            run(["umount", "--lazy", self.mount])


def words_of(pid):
    """Its command line; one empty word: it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return [b""]


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def swaps():
    with open("/proc/swaps") as table:
        return [(f[0], int(f[2]) << 10, int(f[3]) << 10, int(f[4]))
                for f in map(str.split, table.readlines()[1:])]


class Squeeze:
    """A memory cgroup for one program, version 1 or 2."""

    def __init__(self, limit):
        v1 = "/sys/fs/cgroup/memory"
        self.old = os.path.isdir(v1)
        root = v1 if self.old else "/sys/fs/cgroup"
        if not os.access(root, os.W_OK):
            raise harness.Skip("no memory cgroup here")
        self.limit_file = "memory.limit_in_bytes" if self.old else "memory.max"
        self.path = os.path.join(root, f"fsw-up-{os.getpid()}-{next(_serial)}")
        os.mkdir(self.path)
        at_exit(self._remove)
        self.limit(limit)

    def limit(self, limit):
        with open(f"{self.path}/{self.limit_file}", "w") as file:
            file.write(str(limit))

    def enter(self):
        """In a child, before exec."""
        harness.die_with_parent()
        with open(f"{self.path}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

    def _remove(self):
        harness.wait_for(lambda: self._try(), 60, "the cgroup to be empty")

    def _try(self):
        try:
            os.rmdir(self.path)
            return True
        except OSError:
            return False
