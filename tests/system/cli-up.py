#!/usr/bin/python3
"""cli-up: farswap up and down with real swap on the running kernel, through FUSE and a loop device:
the whole way under a program that lives on it, calls that are wrong, given twice, in the wrong order,
or killed half-way, and a donor that is away."""

import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, sys.path[0] + "/lib")

import fuse  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
import updown  # noqa: E402
import worlds  # noqa: E402
from harness import PAGE, at_exit, built, expect, wait_for, workdir  # noqa: E402

import runner  # noqa: E402  (tests/swap/lib: one test at a time swaps)

PREPARED_S = 2
TRIES = 5
HOARD = 160 << 20
SMALL_HOARD = 96 << 20
HOARDS = 3
RANDOM_ROUNDS = 5
SMALL = ("size=64M", "memory=80M")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
NO_MEMORY = 3  # exit code


def started(name):
    device = updown.Device(f"{name}{os.getpid()}")
    device.must("up", *SMALL)
    return device


# ---- the whole way ----

def comes_up():
    """Parameters of a file, and one that the command line has otherwise."""
    device = updown.Device(f"whole{os.getpid()}")
    with open(os.path.join(workdir(), f"{device.name}.conf"), "w") as file:
        file.write("# swap for the test\n\n size = 400M\nmemory=1M\n")
    before = max((swap[3] for swap in updown.swaps()), default=-1)
    for _ in range(TRIES):  # a busy machine may be late
        began = time.monotonic()
        said = device.must("up", "memory=300M", "codec=lz4")
        took = time.monotonic() - began
        if took < PREPARED_S:
            break
        device.must("down")
    expect(took < PREPARED_S, f"up took {took:.2f} s")
    runner.expect_in_order(said, "checks passed", "served by farswap-fuse", "is over it",
                           "mkswap done", "swap is on")
    device.expect_up()
    expect(device.swap()[3] == before + 1, f"priority {device.swap()[3]}, others have {before}")
    expect(device.swap()[1] == (400 << 20) - PAGE, f"{device.swap()[1]} bytes of swap")
    stats = dict(line.split() for line in updown.cli("stats", device.name).stdout.splitlines())
    expect(int(stats["discards"]) > 0, "swapon did not discard")
    expect(int(stats["mem_limit"]) == 300 << 20, f"memory={stats['mem_limit']}")
    expect(device.swap()[0] in updown.cli("status", device.name).stdout, "status shows no swap")
    print(f"up took {took:.2f} s")
    return device


def hoard(until, size=HOARD):
    """A program that is bigger than its memory. It ends, every page verified, once there is `until`."""
    squeeze = updown.Squeeze(size * 2 // 5)
    process = subprocess.Popen([built("tests/swap/hoard"), "--size", str(size), "--until", until],
                               preexec_fn=squeeze.enter, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    at_exit(harness.end, process)
    return squeeze, process


def meminfo(path, available):
    """A file like the kernel's, but for what is available."""
    with open("/proc/meminfo") as real, open(path, "w") as file:
        for line in real:
            file.write(f"MemAvailable: {available} kB\n" if line.startswith("MemAvailable:") else line)
    return path


def world_with(path):
    return worlds.prefix(f"mount --bind {path} /proc/meminfo")


def without_memory(device, *options):
    """As `down` sees a host that has no RAM left: it must refuse before it begins."""
    path = meminfo(os.path.join(workdir(), "meminfo"), 0)
    done = updown.cli("down", *options, device.name, prefix=world_with(path))
    expect(done.returncode == NO_MEMORY and "0 B of RAM are available" in done.stderr and
           "more are needed" in done.stderr and "Everything stays up" in done.stderr,
           f"down {options} without memory: {done}")
    expect(device.swap()[2] > 0, "swapoff was begun")


def refuses_a_tight_cgroup(device, squeeze, process):
    """The host has RAM, and the program's cgroup has not: swapoff would not fail, but have it killed."""
    process.send_signal(signal.SIGSTOP)  # what it has swapped stays as it is
    done = device.down()
    if process.poll() == -signal.SIGKILL and done.returncode == 1:
        return False  # Linux 6.18 does so at times in a tight cgroup (scripts/lib/demo.sh)
    expect(done.returncode == NO_MEMORY and f"raise {squeeze.path}/{squeeze.limit_file} by " in done.stderr and
           "Everything stays up" in done.stderr, f"down with a tight cgroup: {done}")
    expect(process.poll() is None and device.swap()[2] > 0, "swapoff was begun")
    device.expect_up()
    process.send_signal(signal.SIGCONT)
    return True


def is_watched_again(device):
    """Its supervisor is killed, and `up` starts another, which keeps up what the first has made."""
    os.kill(device.supervisor(), signal.SIGKILL)
    expect("lost its supervisor" in updown.cli("status", device.name).stdout, "status does not miss it")
    expect("has a supervisor again" in device.must("up"), "up does not start another")
    expect("supervisor" not in device.must("up") + updown.cli("status", device.name).stdout, "it is there")
    for _ in range(2):
        server = device.server()
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: device.server() not in (0, server), 60, "another server")
    device.expect_up()


def lives(device):
    """Swap under a program. Twice is once; what can't end is not begun; pages come back right."""
    until = os.path.join(workdir(), "until")
    squeeze, process = hoard(until)
    wait_for(lambda: device.swap()[2] > HOARD // 4 or process.poll() is not None, 60, "swap in use")
    said = device.must("up")
    expect("swap is on already" in said and "as they were" not in said, "up on what is up does not say so")
    expect("options are as they were" in device.must("up", "--priority", "5"), "an option that changes nothing")
    device.expect_up()
    is_watched_again(device)
    without_memory(device)
    without_memory(device, "--force")
    if not refuses_a_tight_cgroup(device, squeeze, process):
        return False
    squeeze.limit(4 * HOARD)
    expect(process.poll() is None, f"the program ended with {process.returncode}")
    status, said = device.down_on_a_terminal()
    expect(status == 0 and " left" in said, f"down on a terminal: {status}, {said!r}")
    runner.expect_in_order(said, "swap is off", "are gone", "destroyed")
    with open(until, "w"):
        pass
    expect(process.wait(60) == 0, f"the program found wrong pages: {process.returncode}")
    return True


def whole():
    for _ in range(3):
        device = comes_up()
        lived = lives(device)
        device.must("down")
        device.expect_nothing()
        if lived:
            break
    else:
        raise harness.Failed("the program was killed three times")
    expect("is down already" in device.must("down"), "down on what is down does not say so")


# ---- wrong ways ----

def wrong_calls():
    device = updown.Device(f"wrong{os.getpid()}")
    for call in (["up"], ["up", "--priority"], ["up", "--priority", "x", device.name],
                 ["up", "--door", "back", device.name], ["up", "-x", device.name],
                 ["up", device.name, "size"], ["up", "../x"], ["down"], ["down", "--all"],
                 ["down", "../x"], ["down", "a", "b"]):
        done = updown.cli(*call)
        expect(done.returncode == 2 and done.stderr, f"{call}: {done}")
    device.refused("up", "size=")
    device.refused("up", "colour", "colour=red", *SMALL)
    device.refused("up", "so long a name", "size" * 30 + "=1G", *SMALL)
    device.refused("up", "codec=", "codec=gzip", *SMALL)
    with open(os.path.join(workdir(), f"{device.name}.conf"), "w") as file:
        file.write("size=64M\nmemory\n")
    expect("line 2" in device.up().stderr, "the line of a wrong file is not told")
    os.unlink(os.path.join(workdir(), f"{device.name}.conf"))
    expect("is down already" in device.must("down"), "down of a name that never was")
    device.expect_nothing()


def no_rights():
    device = updown.Device(f"rights{os.getpid()}")
    os.chmod(workdir(), 0o711)
    for call in (["up", device.name, *SMALL], ["down", device.name]):
        done = updown.cli(*call, prefix=NOBODY)
        expect(done.returncode == 1 and "needs root" in done.stderr, f"{call}: {done}")
    done = updown.cli("up", device.name, *SMALL, prefix=["setpriv", "--bounding-set=-sys_admin"])
    expect(done.returncode == 1 and "CAP_SYS_ADMIN" in done.stderr, f"without the right: {done}")
    device.expect_nothing()


def nobody_looks_in():
    """A folder that `up` makes is for its owner alone: another user reads no statistics there."""
    run_dir = os.path.join(workdir(), "private")
    here = ["env", f"FARSWAP_RUNDIR={run_dir}"]
    name = f"private{os.getpid()}"
    done = updown.cli("up", name, *SMALL, prefix=here)
    try:
        expect(done.returncode == 0, f"up: {done}")
        expect(os.stat(run_dir).st_mode & 0o7777 == 0o700, f"mode {os.stat(run_dir).st_mode:o}")
        mount = f"{run_dir}/{name}.mnt"
        for command in (f"head -c 1 {mount}/mm_stat", f"head -c 1 {mount}/disk", f"echo 1 >{mount}/compact"):
            expect(harness.run(["sh", "-c", command]).returncode == 0, f"its owner can't: {command}")
            done = harness.run([*NOBODY, "sh", "-c", command])
            expect(done.returncode != 0 and "ermission denied" in done.stderr, f"nobody could: {command}")
        for call in (["status", name], ["set", name, "memory=79M"], ["compact", name], ["stats", name]):
            done = updown.cli(*call, prefix=[*NOBODY, *here])
            expect(done.returncode == 1 and "Permission denied" in done.stderr and not done.stdout, f"{call}: {done}")
    finally:
        done = updown.cli("down", name, prefix=here)
    expect(done.returncode == 0 and not os.listdir(run_dir), f"down: {done}")


def no_module():
    """Of a kernel that has no nbd, and of one that has neither."""
    device = updown.Device(f"module{os.getpid()}")
    done = updown.cli("up", "--door", "nbd", device.name, *SMALL)
    expect(done.returncode == 1 and "modprobe nbd failed: install" in done.stderr, f"--door nbd: {done}")
    bare = worlds.modules() + " && mount -t tmpfs none /dev"
    done = updown.cli("up", device.name, *SMALL, prefix=worlds.prefix(bare))
    expect(done.returncode == 1 and "there is no way to give it a swap device" in done.stdout and
           "can't swap to it" in done.stderr, f"without a door: {done}")
    device.expect_nothing()


def wrong_order():
    device = started("order")
    done = updown.cli("destroy", device.name)
    expect(done.returncode == 1 and "swapoff" in done.stderr, f"destroy under swap: {done}")
    device.expect_up()
    said = device.must("down", "--keep")
    expect("image stays" in said and "\r" not in said, f"--keep says {said!r}")
    expect(not device.loops() and not device.mounts() and not device.processes(), "parts stay up")
    expect("image stays" in device.must("down", "--keep"), "a second --keep")
    device.must("up")  # the image knows its size
    expect(device.swap()[1] == (64 << 20) - PAGE, "another size")
    device.must("down")
    device.expect_nothing()


def not_ours():
    """Pages that are no swap are not overwritten; a server that is another's is not taken."""
    door = fuse.Fuse(size="64M", memory="80M").start()
    disk = door.connect()
    disk.pwrite(b"precious" * (PAGE // 8), 0)
    disk.shutdown()
    device = updown.Device(door.parameters["name"])
    device.refused("up", "not swap")
    disk = door.connect()
    expect(disk.pread(8, 0) == b"precious", "mkswap wrote over data")
    disk.shutdown()
    device.must("down", "--keep")
    expect(door.process.wait(60) == 0 and not fuse.is_mounted(door.mount), "farswap-fuse is there")
    device.must("down")
    server = servers.Plugin().start()
    device = updown.Device(server.parameters["name"])
    device.refused("up", "another program serves it")
    device.refused("down", "another program serves it")
    expect(server.alive(), "the other program was ended")


def kept_elsewhere():
    """A mount namespace with a copy of the mount, as of a container that starts, keeps nothing up."""
    device = updown.Device(f"elsewhere{os.getpid()}")
    device.must("up", *SMALL)
    other = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c",
                              "echo made; exec sleep 1000"], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        device.must("down")
        device.expect_nothing()
    finally:
        other.kill()
        other.communicate()


def at_once():
    """Of calls at the same time one works, and the others say that it does, or find it done."""
    device = updown.Device(f"once{os.getpid()}")
    calls = [device.popen("up", device.name, *SMALL) for _ in range(4)]
    said = [call.communicate(timeout=60)[0].decode() for call in calls]
    codes = [call.returncode for call in calls]
    expect(0 in codes, f"none came up: {said}")
    for code, text in zip(codes, said):
        expect("swap is on" in text if code == 0 else "is at work" in text, f"{code}: {text}")
    device.expect_up()
    device.must("down")
    device.expect_nothing()


# ---- killed ----

def kill_at_line(process, text):
    """With -9, at once when it says that; it may be a step further by then."""
    for line in process.stdout:
        if text in line.decode():
            break
    process.kill()
    process.communicate()


def kill_at_time(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()


def killed():
    """up and down end at any point; up, or down, given again gets to its end."""
    device = updown.Device(f"killed{os.getpid()}")
    points = [(kill_at_line, text) for text in
              ("checks passed", "served by", "is over it", "mkswap done")]
    points += [(kill_at_time, seconds) for seconds in (0.001, 0.003, 0.01, 0.02, 0.04, 0.08)]
    for number, (kill, point) in enumerate(points):
        kill(device.popen("up", device.name, *SMALL), point)
        if number % 2 == 0:
            device.must("down")
            device.expect_nothing()
            kill(device.popen("up", device.name, *SMALL), point)
        device.must("up", *SMALL)
        device.expect_up()
        kill_at_time(device.popen("down", device.name), 0.002 * 3 ** (number % 5))
        if number % 3 == 0:
            device.must("up", *SMALL)
            device.expect_up()
        device.must("down")
        device.expect_nothing()


def killed_at_random(rng):
    """The same at moments that nobody chose, several in a row."""
    device = updown.Device(f"random{os.getpid()}")
    began = time.monotonic()
    device.must("up", *SMALL)
    device.expect_up()
    whole_up = time.monotonic() - began
    for _ in range(RANDOM_ROUNDS):
        for _ in range(rng.randrange(1, 4)):
            verb = rng.choice(("up", "down"))
            call = (verb, device.name) + (SMALL if verb == "up" else ())
            kill_at_time(device.popen(*call), rng.uniform(0, whole_up))
            device.remember_image()
        if rng.random() < 0.5:
            device.must("up", *SMALL)
            device.expect_up()
        device.must("down")
        device.expect_nothing()


def children(process):
    """Of the command, which may be a shell yet: not that one's."""
    try:
        with open(f"/proc/{process.pid}/comm") as name, \
                open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            return list(map(int, file.read().split())) if name.read() == "farswap\n" else []
    except OSError:  # it has ended
        return []


def is_killed(pid):
    """SIGKILL is on its way, or has come: in the middle of swapoff the kernel does not always look."""
    try:
        with open(f"/proc/{pid}/status") as status:
            pending = [int(line.split()[1], 16) for line in status if line.startswith(("SigPnd", "ShdPnd"))]
    except OSError:
        return True
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)


def stopped_when_memory_runs_short(device):
    """Somebody takes the RAM while pages come back: swapoff is stopped, and swap is on as before. The
    server stands still until then, so that it can't be over too early."""
    path = meminfo(os.path.join(workdir(), "meminfo"), 100 << 20)
    servers_of_it = device.processes()
    for pid in servers_of_it:
        os.kill(pid, signal.SIGSTOP)
    try:
        down = device.popen("down", device.name, prefix=world_with(path))
        wait_for(lambda: down.poll() is not None or children(down), 60, "swapoff to begin")
        expect(down.poll() is None, "down ended")
        meminfo(path, 0)
        wait_for(lambda: all(map(is_killed, children(down))), 60, "swapoff to be stopped")
    finally:
        for pid in servers_of_it:
            os.kill(pid, signal.SIGCONT)
    said = down.communicate(timeout=60)[0].decode()
    expect(down.returncode == NO_MEMORY and "swapoff was stopped before RAM ran out" in said and
           "more are needed" in said, f"down as RAM runs short: {down.returncode}, {said}")
    device.expect_up()


def interrupted():
    """Pages are coming back when RAM runs short, and when `down` is killed. The programs that they belong
    to see none of it, and down given again ends what is left."""
    device = started("swapoff")
    until = os.path.join(workdir(), "until-swapoff")
    hoards = [hoard(until, SMALL_HOARD // HOARDS) for _ in range(HOARDS)]  # swapoff looks up between two
    wait_for(lambda: device.swap()[2] > SMALL_HOARD // 8 or
             any(process.poll() is not None for _, process in hoards), 60, "swap in use")
    device.expect_up()
    for squeeze, process in hoards:
        squeeze.limit(8 * SMALL_HOARD)
        if process.poll() == -signal.SIGKILL:
            return False
    stopped_when_memory_runs_short(device)
    first = device.popen("down", device.name)
    wait_for(lambda: first.poll() is not None or children(first), 60, "swapoff to begin")
    first.kill()
    first.wait()  # alone: who works for it has its output, too
    said = []

    def goes_down():
        done = device.down()
        said.append(done.stderr)
        expect(done.returncode == 0 or "at work" in done.stderr, f"down after a killed one: {done}")
        return done.returncode == 0
    wait_for(goes_down, 60, f"down to get to its end: {said}")
    device.expect_nothing()
    with open(until, "w"):
        pass
    for _, process in hoards:
        expect(process.wait(60) == 0, f"a program found wrong pages: {process.returncode}")
    return True


# ---- the store ----

def donor_away():
    device = updown.Device(f"away{os.getpid()}")
    nowhere = f"resp+unix://{workdir()}/nobody.sock"
    device.refused("up", "nobody.sock", *SMALL, f"overflow={nowhere}")
    device.must("down")
    device.expect_nothing()
    donor = servers.Donor()
    device.must("up", *SMALL, f"overflow={donor.uri}")
    donor.process.send_signal(signal.SIGKILL)
    donor.process.wait()
    expect(device.swap() is not None, "no swap")
    device.refused("down", "the image stays")
    expect(device.swap() is None and not device.mounts(), "what could be ended was not")
    device.refused("down", "the image stays")
    expect("--local" in device.down().stderr, "what to do is not said")
    expect(updown.cli("destroy", "--local", device.name).returncode == 0, "destroy --local")
    device.expect_nothing()


def test():
    if os.path.exists("/dev/nbd0"):
        raise harness.Skip("this kernel has nbd: `up` does not use FUSE here")
    fuse.alone()
    runner.alone()
    rng = harness.seeded()
    wrong_calls()
    no_rights()
    nobody_looks_in()
    no_module()
    whole()
    expect(any(interrupted() for _ in range(3)), "a program was killed three times")
    wrong_order()
    not_ours()
    kept_elsewhere()
    at_once()
    killed()
    killed_at_random(rng)
    donor_away()


harness.main(test)
