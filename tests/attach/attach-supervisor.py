#!/usr/bin/python3
"""attach-supervisor: the supervisor with real servers and a client in the kernel's place.

Here the whole of farswap-attach but for netlink runs where there is no nbd, and under sanitizers:
its servers are killed in every state, also while their store is away, replaced by an upgrade,
refused, and stopped, while the client in the kernel's place writes and verifies pages. No page may be wrong, and nobody may be left.
"""

import os
import re
import shutil
import signal
import socket
import sys

for folder in ("../system/lib", "../nbd/lib"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), folder))

import harness  # noqa: E402
import raw  # noqa: E402
import servers  # noqa: E402
from harness import at_exit, built, expect, run, spawn, wait_for, workdir  # noqa: E402

NAME = f"a{os.getpid()}"
ATTACH = "tests/attach/supervised"


def ask(*arguments):
    return run([built(ATTACH), *arguments], seconds=200, env=servers.image_environment())


def upgrade(program):
    """Asked again when the answer says so: any socket may time out while the machine stands still."""
    for _ in range(60):
        wait_for(at_rest, 60, "the device")
        done = ask("--upgrade", NAME, "--server", program)
        if "try again" not in done.stderr and "wait until it is attached" not in done.stderr:
            return done
    raise harness.Failed(f"no time for an upgrade: {done.stderr}")


def status():
    return dict(line.split(" ", 1) for line in ask("--status", NAME).stdout.splitlines())


def number(word, field=0):
    found = status().get(word, "-").split()
    return int(found[field]) if found[field].isdigit() else 0


def at_rest():
    now = status()
    return now.get("state") == "attached" and now.get("spare", "").endswith("waiting")


def kill(word, number_of=signal.SIGKILL):
    pid = number(word)
    expect(pid > 0, f"no {word}")
    os.kill(pid, number_of)
    return pid


def clean_up():
    for word in ("supervisor", "server", "spare"):
        pid = number(word) if "state" in status() else 0
        if pid:
            os.kill(pid, signal.SIGKILL)
    servers_left()
    run([built("client/cli/farswap"), "destroy", NAME], env=servers.image_environment())


def servers_left():
    """Processes that serve this device."""
    left = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as line:
                words = line.read().split(b"\0")
        except OSError:
            continue
        if NAME.encode() in words and b"--control" in words:
            left.append(int(entry))
    return left


def restarted(count):
    wait_for(lambda: number("restarts") >= count and at_rest(), 60, f"restart {count}")


class Manager:
    """The service manager: what it is told, and what status said then."""

    def __init__(self):
        self.path = os.path.join(workdir(), "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def told(self, seconds=60):
        self.socket.settimeout(seconds)
        return self.socket.recv(4096).decode().splitlines()

    def silent(self):
        self.socket.setblocking(False)
        try:
            return self.socket.recv(4096) is None
        except BlockingIOError:
            return True


def ready_when_usable(manager):
    """Not before the device answers: a hand-over of the socket alone is not enough."""
    expect(manager.told() == ["READY=1", "STATUS=/dev/nbd0"], "the manager is told something else")
    now = status()
    expect(now.get("state") == "attached" or now.get("reconnects", "0") != "0", f"ready, and not attached: {now}")


def another_layout():
    """An upgrade to a program that knows another layout of the image: the old server goes on."""
    def changed():
        before = status()
        done = upgrade(built("tests/nbd/farswap-nbd-other-layout"))
        expect(done.returncode == 1 and "nothing was changed" in done.stderr and
               "has layout" in done.stderr and "knows layout 77" in done.stderr, done.stdout + done.stderr)
        later = number("seconds") + 2  # of this connection: a server that was killed is noticed by then
        wait_for(lambda: number("seconds") >= later and at_rest(), 60, "the device")
        now = status()
        return [f"{word}: {before[word]}, then {now[word]}" for word in ("server", "upgrades", "restarts")
                if before[word] != now[word]]

    # A server that stands still with the machine is replaced, too. Not each time.
    found = changed() and changed() and changed()
    expect(not found, f"an upgrade that was refused has changed {found}")


def fails_at_the_switch():
    """A program that waits as it should, and fails when it has the image: the old one serves again."""
    late = os.path.join(workdir(), "late-standin")
    shutil.copy(built("tests/attach/standin"), late)
    before = status()
    done = upgrade(late)
    expect(done.returncode == 1 and "the old program serves again" in done.stderr,
           done.stdout + done.stderr)
    wait_for(at_rest, 60, "the old program's server")
    now = status()
    expect(now["upgrades"] == before["upgrades"] and number("server", 0) != int(before["server"].split()[0]),
           f"{before}, then {now}")


def test():
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")
    donor = servers.Donor()
    at_exit(clean_up)
    manager = Manager()
    process = spawn([built(ATTACH), "--timeout", "2", "--server", built("client/nbd/farswap-nbd"), NAME,
                     "size=16M", "memory=64M", f"overflow={donor.uri}"], log="attach.log",
                    env=servers.image_environment() | {"NOTIFY_SOCKET": manager.path})
    ready_when_usable(manager)
    wait_for(at_rest, 60, "the device")
    with raw.Away(donor):
        for count in range(1, 4):
            kill("server")
            restarted(count)
    kill("spare")
    wait_for(at_rest, 60, "another spare")
    kill("server", signal.SIGSTOP)
    restarted(4)
    refused = upgrade("/bin/false")
    expect(refused.returncode == 1 and "nothing was changed" in refused.stderr, refused.stderr)
    wait_for(at_rest, 60, "the device")
    another_layout()
    expect(manager.silent(), "the manager is told of what is none of its business")
    other = os.path.join(workdir(), "farswap-nbd-2")
    shutil.copy(built("client/nbd/farswap-nbd"), other)
    done = upgrade(other)
    expect(done.returncode == 0 and "serves now" in done.stdout, done.stdout + done.stderr)
    wait_for(at_rest, 60, "the device after the upgrade")
    expect(number("upgrades") == 1 and status()["server"].endswith(other), str(status()))
    wait_for(lambda: len(servers_left()) == 2, 60, "the old program's spare to end")
    fails_at_the_switch()
    expect(status()["server"].endswith(other), str(status()))
    wait_for(lambda: len(servers_left()) == 2, 60, "no server to be left over")
    done = ask("--detach", NAME)
    expect(done.returncode == 0, done.stderr)
    expect(process.wait(60) == 0, "the supervisor ended badly")
    expect(manager.told() == ["STOPPING=1"], "the manager is not told of the end")
    wait_for(lambda: not servers_left(), 60, "the servers to end")
    with open(os.path.join(workdir(), "attach.log")) as log:
        said = log.read()
    print(said)
    expect(not re.search(r"Sanitizer|runtime error", said), "a sanitizer complains")
    operations, sockets = re.search(r"(\d+) operations, (\d+) sockets", said).groups()
    expect(int(operations) > 1000 and int(sockets) >= 6, f"too little: {operations} {sockets}")


harness.main(test)
