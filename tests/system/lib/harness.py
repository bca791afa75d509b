"""harness: what every system test needs, so that a test file holds only its own idea.

A test is a script: it imports this, defines a function, and ends with `harness.main(function)`.

  - Everything that is started or made is undone when the test ends, in the reverse order, also when
    it fails or is told to stop (TERM, INT, HUP). Processes are ended by pid, and a process whose
    test was killed with -9 is killed by the kernel (PR_SET_PDEATHSIG).
  - Every wait is for a state and has a deadline (`wait_for`): a minute, since a machine that is busy, or
    whose CPUs are taken away, may take seconds for anything. What must come sooner is tried several times.
  - What even so was left (by a test killed with -9: its image) the next test sweeps away.
  - A skip says why and is an error where CI=true, since there the machine can do all of it.
  - FARSWAP_BUILD names the build directory. It leaves the servers to servers.py, page contents and
    models to content.py.
"""

import atexit
import contextlib
import ctypes
import fcntl
import glob
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

PAGE = 4096
SKIPPED = 77

SOURCE = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))
BUILD = os.environ.get("FARSWAP_BUILD", os.path.join(SOURCE, "build"))

# For work on the tests themselves: run them against nbdkit memory.
STOCK = "FARSWAP_TEST_STOCK" in os.environ

_undo = contextlib.ExitStack()
_workdir = None
_libc = ctypes.CDLL(None)


class Failed(Exception):
    """The code under test is wrong. The text is all a reader gets, so it says what was expected."""


class Skip(Exception):
    """This machine can't run the test; the text says what is missing."""


def at_exit(function, *args):
    """Runs when the test ends, however it ends; last registered, first run."""
    _undo.callback(function, *args)


def workdir():
    """The test's own directory, removed when it ends. Short, since socket paths end at 107 bytes."""
    global _workdir
    if _workdir is None:
        sweep()
        _workdir = tempfile.mkdtemp(prefix=f"fsw-{os.getpid()}-", dir="/tmp")
        at_exit(shutil.rmtree, _workdir, True)
    return _workdir


def sweep():
    """Removes what tests that were killed with -9 left: images, namespaces, directories. Their pid
    is in the name, and their processes died with them. One test at a time: what another has just
    detached, or removed, may be a third's by its number."""
    place = os.open("/tmp", os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sweep()
    except BlockingIOError:
        pass
    finally:
        os.close(place)


def _remove_images(path):
    """That of before the host was started have numbers that are others' by now."""
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for image in glob.glob(f"{path}/run/*.image") + glob.glob(f"{path}/run/*.donor"):
        with contextlib.suppress(OSError), open(image) as record:
            if os.fstat(record.fileno()).st_mtime > started:
                for shmid in re.findall(r"^shmid=(\d+)$", record.read(), re.M):
                    run(["ipcrm", "-m", shmid])


def _sweep():
    for path in glob.glob("/tmp/fsw-*-*") + glob.glob("/run/netns/fsw-*-*"):
        owner = os.path.basename(path).split("-")[1]
        if not owner.isdigit() or os.path.exists(f"/proc/{owner}"):
            continue
        for backing in glob.glob("/sys/block/loop*/loop/backing_file"):
            with contextlib.suppress(OSError), open(backing) as file:
                if file.read().startswith(path + "/"):
                    run(["swapoff", "/dev/" + backing.split("/")[3]])
                    run(["losetup", "--detach", "/dev/" + backing.split("/")[3]])
        for mount in glob.glob(f"{path}/*.mnt") + glob.glob(f"{path}/run/*.mnt"):
            run(["umount", "--lazy", mount])
        _remove_images(path)
        if path.startswith("/run/netns/"):
            run(["ip", "netns", "del", os.path.basename(path)])
        else:
            shutil.rmtree(path, True)


def expect(condition, text):
    if not condition:
        raise Failed(text)


def wait_for(condition, seconds, what):
    """Returns the first true value of condition(), or fails naming what was waited for: not before it was
    false after the deadline, too."""
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline
        value = condition()
        if value:
            return value
        if late:
            raise Failed(f"waited {seconds} s for {what}")
        time.sleep(0.005)


def stand_still(pid):
    """SIGSTOP, and every thread has taken notice of it."""
    os.kill(pid, signal.SIGSTOP)

    def stands():
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] not in "TZX":
                    return False
        return True
    wait_for(stands, 60, f"process {pid} to stand still")


def need(program):
    """The path of a program of the system, or a skip."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        raise Skip(f"{program} is not installed")
    return path


def built(path):
    """The path of something this project builds. Its absence is a failure, not a skip."""
    full = os.path.join(BUILD, path)
    expect(os.path.exists(full), f"{full} is not built")
    return full


def die_with_parent():
    """In a child, before exec: the kernel kills it when the test dies in a way nobody can catch."""
    _libc.prctl(1, signal.SIGKILL)


def spawn(argv, log=None, undo=True, **options):
    """A process that ends with the test. Its output goes to the file `log` of the work directory.
    undo=False: the caller sees to its end, at a better time than the kernel would."""
    if log is not None:
        options["stdout"] = open(os.path.join(workdir(), log), "ab")
        options.setdefault("stderr", subprocess.STDOUT)
    process = subprocess.Popen(argv, preexec_fn=die_with_parent,
                               stdin=options.pop("stdin", subprocess.DEVNULL), **options)
    if undo:
        at_exit(end, process)
    return process


def end(process, seconds=30):
    """TERM, then KILL after a deadline. Harmless on a process that has ended. Returns its status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def run(argv, seconds=120, **options):
    """Runs to its end; returns the CompletedProcess with text output."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                          timeout=seconds, **options)


class Worker:
    """A forked copy of the test that runs one function (libnbd in Python holds the interpreter's
    lock, so parallel clients are processes). join() re-raises its failure as text."""

    def __init__(self, function, *args):
        sys.stdout.flush()
        self.report, write_end = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            die_with_parent()
            os.close(self.report)
            if os.getppid() == parent:
                self._child(write_end, function, args)
            os._exit(1)
        os.close(write_end)
        at_exit(self.kill)

    @staticmethod
    def _child(write_end, function, args):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        status = 1
        try:
            function(*args)
            status = 0
        except Failed as failure:
            os.write(write_end, str(failure).encode()[:60000])
        except BaseException:
            os.write(write_end, traceback.format_exc().encode()[:60000])
        finally:
            sys.stdout.flush()
            os._exit(status)  # never the parent's clean-up

    def kill(self):
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._forget()

    def _forget(self):
        self.pid = None
        os.close(self.report)

    def running(self):
        if self.pid is None:
            return False
        info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return info is None

    def join(self, seconds=300):
        wait_for(lambda: not self.running(), seconds, f"worker {self.pid}")
        _, status = os.waitpid(self.pid, 0)
        text = os.read(self.report, 65536).decode(errors="replace")
        self._forget()
        expect(status == 0, text or f"a worker ended with status {status}")


def seeded():
    """A random source; FARSWAP_SEED repeats a run."""
    seed = int(os.environ.get("FARSWAP_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"seed {seed} (FARSWAP_SEED={seed} repeats this run)", flush=True)
    return random.Random(seed)


def _stop(number, _frame):
    raise SystemExit(128 + number)


def main(function):
    """Runs the test, undoes what it did, and ends with meson's status: 0, 1, or 77 for a skip."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    atexit.register(_undo.close)
    started = time.monotonic()
    status = 0
    try:
        function()
    except Skip as reason:
        status = 1 if os.environ.get("CI") == "true" else SKIPPED
        print(f"SKIP: {reason}", flush=True)
    except Failed as failure:
        status = 1
        show_logs()
        print(f"FAILED: {failure}\n  at {where(failure)}", flush=True)
    except BaseException:
        show_logs()
        raise
    try:
        _undo.close()
    except Failed as failure:
        status = 1
        print(f"FAILED in the clean-up: {failure}", flush=True)
    print(f"{'ok' if status == 0 else 'not ok'} after {time.monotonic() - started:.1f} s")
    sys.exit(status)


def where(failure):
    """The calls in the test's own file that led to a failure."""
    return ", ".join(f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"
                     for frame in traceback.extract_tb(failure.__traceback__)
                     if not frame.filename.startswith(os.path.dirname(os.path.abspath(__file__))))


def show_logs():
    """The last lines of what the started programs said."""
    if _workdir is None:
        return
    for name in sorted(os.listdir(_workdir)):
        if name.endswith(".log"):
            with open(os.path.join(_workdir, name), errors="replace") as log:
                lines = log.read().splitlines()[-60:]
            if lines:
                print(f"--- {name}", *lines, sep="\n", flush=True)
