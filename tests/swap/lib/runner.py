"""runner: scripts/run as a test sees it.

Each Run has a state directory and image records of its own, so that it meets neither another test's
nor the machine's. remains() lists what is left of all of them on the host: processes, mounts, loop
devices, cgroups, shared memory. It looks at the kernel, never at the script's own records.
"""

import fcntl
import glob
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../system/lib"))

import harness  # noqa: E402
from harness import at_exit, expect, wait_for, workdir  # noqa: E402

SCRIPT = os.path.join(harness.SOURCE, "scripts/run")
SMALL = ["--size", "256M", "--memory", "24M"]
SWAP_ON_S = 5

_images = set()  # shared memory ids of the images of all runs
_runs = set()  # pids of the scripts: cgroups carry them


def state(name=""):
    return os.path.join(workdir(), "state", name)


def environment():
    return dict(os.environ, FARSWAP_RUN_STATE=state(), FARSWAP_BUILD=harness.BUILD,
                FARSWAP_RUNDIR=os.path.join(workdir(), "images"),
                FARSWAP_STATEDIR=os.path.join(workdir(), "records"))


class Run:
    """One call of scripts/run. Its stderr is in .said(); it is a process group of its own."""

    _count = 0

    def __init__(self, *arguments, stdin=subprocess.DEVNULL):
        if Run._count == 0:
            alone()
            os.mkdir(os.path.join(workdir(), "images"))
            os.mkdir(os.path.join(workdir(), "records"))
            at_exit(stop_quietly)
        Run._count += 1
        self.log = os.path.join(workdir(), f"run{Run._count}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["bash", SCRIPT, *arguments], env=environment(),
                                            stdin=stdin, stdout=subprocess.PIPE, stderr=log,
                                            start_new_session=True)
        _runs.add(self.process.pid)

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def wait_said(self, text, seconds=120):
        wait_for(lambda: text in self.said() or self.process.poll() is not None, seconds,
                 f"'{text}' in what scripts/run says: {self.said()[-2000:]}")
        expect(text in self.said(), f"scripts/run ended without '{text}': {self.said()[-2000:]}")
        note_images()

    def signal(self, number):
        """As a terminal does it: to the whole group."""
        os.killpg(self.process.pid, number)

    def end(self, seconds=300):
        """Its status and what it printed to stdout."""
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise harness.Failed(f"scripts/run does not end: {self.said()[-2000:]}") from None
        return self.process.returncode, output.decode()

    def expect_status(self, wanted, seconds=300):
        status, output = self.end(seconds)
        expect(status == wanted,
               f"scripts/run ended with {status}, not {wanted}: {self.said()[-3000:]}{output}")
        return output


def alone():
    """Until the test ends, no other test of another build swaps: the kernel would put its pages on
    our device as well, and its cgroup would refuse to take them back at our swapoff."""
    lock = open("/run/lock/farswap-swap-tests", "w")  # open for as long as the test runs
    fcntl.flock(lock, fcntl.LOCK_EX)
    at_exit(lock.close)


def note_images():
    """Remembers which shared memory was ours, for when nothing else does."""
    for path in glob.glob(os.path.join(workdir(), "images/*.image")):
        _images.update(re.findall(r"^shmid=(\d+)$", _read(path), re.M))


def stop_quietly():
    """The clean-up of a test that failed half way."""
    subprocess.run(["bash", SCRIPT, "--stop"], env=environment(), stdin=subprocess.DEVNULL,
                   capture_output=True, timeout=200, check=False)


def _read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _processes():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        line = _read(path).replace("\0", " ").strip()
        if workdir() in line and int(path.split("/")[2]) != os.getpid():
            yield f"process {path.split('/')[2]}: {line}"


def loops():
    """Loop devices over a file of this test."""
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        if workdir() in _read(path):
            yield "/dev/" + path.split("/")[3]


def swaps():
    """Of these, the ones that are swapped on."""
    used = re.findall(r"^(/dev/\S+)", _read("/proc/swaps"), re.M)
    return [device for device in loops() if device in used]


def servers():
    """Pids of the supervised servers, oldest first: the one that serves, then the spare."""
    supervisor = (_read(state("server.pid")).split() or [0])[0]
    return list(map(int, _read(f"/proc/{supervisor}/task/{supervisor}/children").split()))


def remains():
    left = list(_processes())
    left += [f"mount {line.split()[1]}" for line in _read("/proc/mounts").splitlines()
             if workdir() in line]
    left += [f"loop device {device}" for device in loops()]
    left += [f"swap on {device}" for device in swaps()]
    left += [f"cgroup {path}" for pid in _runs
             for path in glob.glob(f"/sys/fs/cgroup/**/farswap-run-{pid}", recursive=True)]
    left += [f"shared memory {fields[1]}" for fields in
             map(str.split, _read("/proc/sysvipc/shm").splitlines()[1:])
             if fields[1] in _images and not int(fields[2], 8) & 0o1000]  # SHM_DEST: it is as good as gone
    return left


def expect_nothing_remains():
    """At once: scripts/run waits for what it ends."""
    left = remains()
    expect(not left, f"scripts/run left behind: {left}")


def expect_in_order(text, *parts):
    """Each part is in the text, after the one before."""
    at = 0
    for part in parts:
        found = text.find(part, at)
        expect(found >= 0, f"no '{part}' after {parts[:parts.index(part)]} in: {text}")
        at = found + len(part)


def expect_quick(run_once):
    """Swap is on soon after the build, at the latest the fifth time: a busy machine may be late. Each
    call returns what scripts/run said."""
    for _ in range(5):
        said = run_once()
        swap_on = re.search(r"([0-9.]+) s after the build", said)
        expect(swap_on, f"swap was not on: {said}")
        if float(swap_on.group(1)) < SWAP_ON_S:
            return
    raise harness.Failed(f"swap was slow to be on: {said}")


STOP_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
