#!/usr/bin/python3
"""cli-doctor: each finding of farswap doctor, in a world in which it is true and in one in which it is not.

A false world is this host with other files in the places that are looked at (bind mounts in a mount
namespace of the call's own), with fewer rights, or in another namespace; devices and their servers are
real. Each finding must say what is wrong and what to do, and the exit code is 1 for FAIL alone.
"""

import os
import signal
import shlex
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import fuse  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
import worlds  # noqa: E402
from harness import at_exit, built, expect, run, wait_for, workdir  # noqa: E402

ZSWAP = "/sys/module/zswap/parameters/enabled"


def doctor(*arguments, files=None, prefix=(), script=""):
    """files: text by path. script: what a shell does in the world before."""
    lines = [script]
    for number, (path, text) in enumerate((files or {}).items()):
        copy = os.path.join(workdir(), f"false-{number}")
        with open(copy, "w") as file:
            file.write(text)
        lines.append(f"mount --bind {copy} {shlex.quote(path)}")
    return run([*worlds.prefix("\n".join(lines)), *prefix, built("client/cli/farswap"), "doctor", *arguments],
               env=servers.image_environment())


def finding(done, *parts):
    """The line that has all parts; None if there is none."""
    return next((line for line in done.stdout.splitlines() if all(part in line for part in parts)),
                None)


def expect_finding(kind, what, do, done):
    """A line of that kind that says what, and what to do; and the exit code that goes with it."""
    line = finding(done, what)
    expect(line is not None and line.startswith(kind) and do in line,
           f"expected '{kind} ... {what} ... {do}', found {line!r} in:\n{done.stdout}{done.stderr}")
    expect(done.returncode == 1 if kind == "FAIL" else True, f"{kind}: status {done.returncode}")


def without(key, path):
    """A file of the kernel's with another value in one of its lines."""
    name, value = key
    with open(path) as file:
        return "".join(f"{name}{value}\n" if line.startswith(name) else line for line in file)


def host_is_well():
    done = doctor()
    expect(done.returncode == 0 and not finding(done, "FAIL"), f"this host: {done.stdout}{done.stderr}")
    expect("\033" not in done.stdout, "colours where there is no terminal")
    for what in ("shared memory outlives", "namespaces: user and network are the host's"):
        expect(finding(done, "ok ", what), f"no '{what}' in\n{done.stdout}")


def knobs():
    for path, value, what in (("/proc/sys/vm/swappiness", 10, "vm.swappiness is 10"),
                              ("/proc/sys/vm/page-cluster", 6, "vm.page-cluster is 6")):
        expect_finding("warn", what, "sysctl vm.", doctor(files={path: f"{value}\n"}))
    done = doctor(files={"/proc/sys/vm/swappiness": "100\n", "/proc/sys/vm/page-cluster": "0\n"})
    expect(finding(done, "ok ", "vm.swappiness is 100") and finding(done, "ok ", "vm.page-cluster is 0"),
           done.stdout)
    if os.path.exists(ZSWAP):
        expect_finding("warn", "zswap is on", "echo N >", doctor(files={ZSWAP: "Y\n"}))
        expect(finding(doctor(files={ZSWAP: "N\n"}), "ok ", "zswap is off"), "zswap that is off")


def rules_of_memory():
    expect_finding("FAIL", "shm_rmid_forced=1", "sysctl -w",
                   doctor(files={"/proc/sys/kernel/shm_rmid_forced": "1\n"}))
    expect_finding("FAIL", "private IPC namespace", "--ipc=host", doctor(prefix=["unshare", "--ipc"]))
    user = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    world = "mount -t tmpfs none /run && mkdir -p /run/systemd/seats " \
            "&& mount -t tmpfs none /etc && mkdir /etc/systemd && echo RemoveIPC={} >/etc/systemd/logind.conf"
    expect_finding("FAIL", "RemoveIPC destroys", "RemoveIPC=no",
                   doctor(script=world.format("yes"), prefix=user))
    expect(not finding(doctor(script=world.format("no"), prefix=user), "RemoveIPC"), "RemoveIPC=no")


def namespaces():
    expect_finding("FAIL", "this is a user namespace", "host's root",
                   doctor(prefix=["unshare", "--user", "--map-root-user"]))
    done = doctor(prefix=["unshare", "--net"])
    expect(finding(done, "this is a private network namespace"), done.stdout)


def rights():
    done = doctor(prefix=["setpriv", "--bounding-set=-ipc_lock", "prlimit", "--memlock=65536"])
    expect_finding("warn", "can't lock memory", "ulimit -l unlimited", done)
    done = doctor(prefix=["setpriv", "--bounding-set=-sys_resource"])
    expect_finding("warn", "can't lower oom_score_adj", "CAP_SYS_RESOURCE", done)
    expect(not finding(doctor(), "can't lock memory"), "root may lock memory")


def doors():
    if os.path.exists("/sys/module/nbd"):
        return
    modules = worlds.modules
    expect(finding(doctor(script=modules("zram", "nbd")), "ok ", "nbd: this kernel has it"), "nbd is there")
    nothing = modules("zram") + " && mount -t tmpfs none /dev && : >/dev/null"
    expect_finding("FAIL", "no nbd module, and /dev/fuse can't be used", "Install", doctor(script=nothing))
    old = doctor(script=modules(), prefix=["setarch", "--uname-2.6"])
    expect_finding("warn", "This kernel (before 6.9)", "for nbd", old)
    if os.path.exists("/dev/fuse"):
        expect(finding(doctor(script=modules()), "FUSE and a loop device do it"), "FUSE is there")
    expect_finding("FAIL", "private network namespace", "hostNetwork",
                   doctor(script=modules("nbd"), prefix=["unshare", "--net"]))


def room(server):
    name = server.parameters["name"]
    poor = without(("MemAvailable:", " 16 kB"), "/proc/meminfo")
    expect_finding("warn", "is more than this host has free", f"farswap set {name} memory=",
                   doctor(name, files={"/proc/meminfo": poor}))
    rich = without(("MemAvailable:", " 16000000 kB"), "/proc/meminfo")
    expect(finding(doctor(name, files={"/proc/meminfo": rich}), "ok ", "there is memory for"), "room")


def swapped(server, discard):
    """A world in which the device is swap, on /dev/nbd7."""
    with open(server.image_file()) as record:
        device = next(line.split("=")[1].strip() for line in record if line.startswith("device="))
    return ("mount -t tmpfs none /sys/block && mkdir -p /sys/block/nbd7/queue && "
            f"echo {device} >/sys/block/nbd7/backend && "
            f"echo {discard} >/sys/block/nbd7/queue/discard_max_bytes")


def swap(server):
    name = server.parameters["name"]
    row = "Filename Type Size Used Priority\n/dev/nbd7 partition 65532 0 {}\n/dev/sdb2 partition 9 0 5\n"
    low, high = ({"/proc/swaps": row.format(priority)} for priority in (5, 6))
    can = swapped(server, 1 << 30)
    expect_finding("warn", "/dev/sdb2 has priority 5 and is used before /dev/nbd7", "swapon -p",
                   doctor(name, files=low, script=can))
    expect(finding(doctor(name, files=high, script=can), "ok ", "before any other"), "the first swap")
    expect_finding("warn", "is without discard", "swapon --discard", doctor(name, files=high, script=can))
    expect_finding("warn", "/dev/nbd7 can't discard", "farswap up",
                   doctor(name, files=high, script=swapped(server, 0)))
    handle = server.connect()
    handle.trim(harness.PAGE, 0)
    handle.shutdown()
    expect(finding(doctor(name, files=high, script=can), "ok ", "/dev/nbd7 discards"), "discard")


def stores():
    donor = servers.Donor()
    server = servers.Plugin(overflow=donor.uri).start()
    name = server.parameters["name"]
    done = servers.again_if_late(lambda: doctor(name))
    expect(finding(done, "ok ", f"{donor.uri} answers"), f"a donor that answers: {done.stdout}")
    donor.process.kill()
    donor.process.wait()
    expect_finding("FAIL", f"{name}: store:", "", doctor(name))
    server.kill()
    expect_finding("warn", f"{name}: no server", "Start it again", doctor(name))
    server.cli("destroy", "--local", name)


def locks(server):
    name = server.parameters["name"]
    expect(not finding(doctor(name), "no memory locked"), "a server that is locked")
    bare = servers.Server(prefix=["setpriv", "--bounding-set=-ipc_lock", "prlimit", "--memlock=65536:65536"])
    bare.start()
    expect_finding("warn", f"process {bare.pid} has no memory locked", "CAP_IPC_LOCK",
                   doctor(bare.parameters["name"]))
    score = f"/proc/{server.pid}/oom_score_adj"
    expect_finding("warn", "can be killed by the OOM killer", "OOMScoreAdjust",
                   doctor(name, files={score: "0\n"}))
    expect(finding(doctor(name, files={score: "-1000\n"}), "ok ", "safe from the OOM killer"), "its score")


def crashes():
    """farswap-fuse with its supervisor, on an old kernel, and after its supervisor died."""
    if not os.path.exists("/dev/fuse"):
        return
    door = fuse.Fuse(supervise=True).start()
    name = door.parameters["name"]
    wait_for(lambda: len(door.servers()) == 2, 60, "a server and a spare")
    expect(finding(doctor(name), "ok ", "has a supervisor, and survives"), doctor(name).stdout)
    expect("crash" not in door.cli("status", name).stdout, "status warns of what survives")
    expect_finding("warn", f"{name}: this kernel (before 6.9)", "--door nbd",
                   doctor(name, prefix=["setarch", "--uname-2.6"]))
    server, spare = door.servers()
    for pid in (server, spare):
        at_exit(end, pid)
    os.kill(door.pid, signal.SIGKILL)
    door.process.wait()
    expect_finding("warn", f"{name}: farswap-fuse has lost its supervisor", "farswap up", doctor(name))
    os.kill(spare, signal.SIGKILL)
    wait_for(lambda: "runs without a supervisor" in doctor(name).stdout, 60, "a lonely server to be found")
    expect("runs without a supervisor" in door.cli("status", name).stdout, "status does not say it")
    expect('"crash_loses_swap":true' in door.cli("status", "--json", name).stdout.replace(" ", ""), "JSON")
    fuse.unmount(door.mount)
    wait_for(lambda: not os.path.exists(f"/proc/{server}/fd/0"), 60, "the server to end with its mount")


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test():
    if run(["unshare", "--mount", "true"]).returncode != 0:
        raise harness.Skip("no mount namespace here")
    host_is_well()
    knobs()
    rules_of_memory()
    namespaces()
    rights()
    doors()
    server = servers.Server().start()
    room(server)
    swap(server)
    if not servers.sanitizer():  # which locks nothing
        locks(server)
    stores()
    crashes()


harness.main(test)
