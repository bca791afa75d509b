#!/usr/bin/python3
"""cli-top: farswap top in a real terminal, tmux's: what it shows is compared with what was done to a
device, at several sizes, in UTF-8 and without, and after q the terminal is as it was."""

import os
import re
import shlex
import sys
import time

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, at_exit, built, expect, need, run, wait_for, workdir  # noqa: E402

PAGES = 2000
BLOCKS = "▁▂▃▄▅▆▇█"


class Screen:
    """A terminal with farswap top in it. When that ends, its status and the terminal's settings are
    written to files, and the terminal stays."""

    def __init__(self, name, *arguments, locale="C.UTF-8", columns=100, lines=24):
        self.name = name
        self.tmux = [need("tmux"), "-S", os.path.join(workdir(), f"{name}.tmux"), "-f", "/dev/null"]
        top = shlex.join([built("client/cli/farswap"), "top", *arguments])
        script = (f"stty -a >{self.path('before')}; export LC_ALL={locale}; {top}; "
                  f"echo ended with $? | tee {self.path('status')}; stty -a >{self.path('after')}; cat")
        environment = dict(servers.image_environment(), LC_ALL="C.UTF-8")
        environment.pop("TMUX", None)
        at_exit(run, self.tmux + ["kill-server"])
        done = run(self.tmux + ["-u", "new-session", "-d", "-x", str(columns), "-y", str(lines),
                                "sh", "-c", script], env=environment)
        expect(done.returncode == 0, f"tmux: {done.stderr}")

    def path(self, what):
        return os.path.join(workdir(), f"{self.name}.{what}")

    def do(self, *command):
        done = run(self.tmux + list(command))
        expect(done.returncode == 0, f"tmux {command}: {done.stderr}")
        return done.stdout

    def text(self):
        return self.do("capture-pane", "-p")

    def wait(self, condition, what, seconds=60):
        try:
            return wait_for(lambda: condition(self.text()), seconds, what)
        except harness.Failed as failure:
            raise harness.Failed(f"{failure}; the screen:\n{self.text()}") from None

    def resize(self, columns, lines):
        self.do("resize-window", "-x", str(columns), "-y", str(lines))

    def quit(self):
        """Its status. The terminal is as before: settings, cursor, the text that was there."""
        self.do("send-keys", "q")
        self.wait(lambda text: "ended with" in text, "top to end")
        wait_for(lambda: os.path.exists(self.path("after")) and os.path.getsize(self.path("after")),
                 60, "the terminal's settings")
        expect(read(self.path("before")) == read(self.path("after")), "stty shows other settings")
        shown = self.do("display-message", "-p", "#{alternate_on} #{cursor_flag}")
        expect(shown == "0 1\n", f"alternate screen, cursor: {shown}")
        expect("farswap top" not in self.text(), "the screen was not given back")
        return int(read(self.path("status")).split()[-1])


def read(path):
    with open(path) as file:
        return file.read()


def row(text, name):
    return next((line for line in text.splitlines() if line.startswith(f"  {name} ")), "")


def work(server):
    """PAGES writes, half as many reads."""
    handle = server.connect()
    source = content.Source(content.Corpus(harness.seeded()))
    for page in range(PAGES):
        handle.pwrite(source.bytes(PAGE), page * PAGE)
    for page in range(0, PAGES, 2):
        handle.pread(PAGE, page * PAGE)
    handle.shutdown()


class Working:
    """A condition on the screen, with work for the device now and then until it holds: what happens is on
    the screen for a second, which we may miss."""

    EVERY_S = 5

    def __init__(self, server, condition):
        self.server, self.condition, self.next = server, condition, 0

    def __call__(self, text):
        if self.condition(text):
            return text
        if time.monotonic() > self.next:
            work(self.server)
            self.next = time.monotonic() + self.EVERY_S
        return None


def rate(text, name):
    found = re.match(r"\s+\w+ +(\d+)/s +([\d.]+) MB/s", row(text, name))
    return int(found.group(1)) if found else 0


def shows_work(screen, server):
    """Rates, latencies and graphs while there is work; then the graphs move on, and what is stored is
    what status says."""
    screen.wait(lambda text: server.parameters["name"] in text and f"process {server.pid}" in text,
                "the device")
    screen.wait(lambda text: re.search("p99 +-", row(text, "write")),
                "a device at rest")
    text = screen.wait(Working(server, lambda text: 0 < rate(text, "write") <= PAGES * 2 and "█" in row(text, "write")
                               and re.search(r"p99 +[\d.]+ [um]?s", row(text, "write"))),
                       f"writes, {PAGES} in a second or two, their graph, and their p99")
    expect(not set(row(text, "fetch")) & set(BLOCKS), f"a graph of nothing: {row(text, 'fetch')}")
    text = screen.wait(lambda text: rate(text, "write") == 0 and text, "the writes to be over")
    expect("█" in row(text, "write"), "the graph forgot the writes")
    status = server.cli("status", server.parameters["name"]).stdout
    stored = re.search(r"stored +(.*)", status).group(1)
    expect(stored in text, f"status has '{stored}', top:\n{text}")


def resizes(screen, server):
    for columns, lines in ((140, 40), (60, 12), (30, 4), (10, 2), (100, 24)):
        screen.resize(columns, lines)
        text = screen.wait(lambda text: text.startswith("farswap to") and
                           len(text.splitlines()) <= lines and text, f"{columns}x{lines}")
        expect(all(len(line) <= columns for line in text.splitlines()), f"too wide:\n{text}")
        if lines > 8:
            screen.wait(lambda text: server.parameters["name"] in text and row(text, "overflow"),
                        f"the device at {columns}x{lines}")


def shows_several(screen, server):
    """A second device comes, with a screenful of its own, and goes."""
    other = servers.Plugin().start()
    name = other.parameters["name"]
    screen.wait(lambda text: f"process {other.pid}" in text and server.parameters["name"] in text and
                text.count("overflow ") == 2, "both devices")
    other.kill()
    screen.wait(lambda text: f"{name}  stopped" in text and f"process {server.pid}" in text, "its end")
    expect(other.cli("destroy", name).returncode == 0, "destroy under top")
    screen.wait(lambda text: name not in text and server.parameters["name"] in text, "it to go")


def without_utf8(server):
    screen = Screen("ascii", server.parameters["name"], locale="C")
    screen.wait(lambda text: row(text, "write"), "the device")
    screen.wait(Working(server, lambda text: rate(text, "write") > 0 and "@" in row(text, "write") and
                        text.isascii()), "writes, in letters")
    expect(screen.quit() == 0, "its status")


def refusals():
    done = run([built("client/cli/farswap"), "top"], env=servers.image_environment())
    expect(done.returncode == 1 and "needs a terminal" in done.stderr and not done.stdout, f"{done}")
    for arguments in (["--fast"], ["a", "b"]):
        done = run([built("client/cli/farswap"), "top", *arguments])
        expect(done.returncode == 2 and "usage: farswap top" in done.stderr, f"{arguments}: {done}")
    screen = Screen("unknown", "nobody")
    screen.wait(lambda text: "no device nobody" in text and "ended with 1" in text, "a refusal")
    screen = Screen("term", locale="C.UTF-8 TERM=nonsense")
    screen.wait(lambda text: "TERM=nonsense" in text and "ended with 1" in text, "a refusal")


def test():
    refusals()
    server = servers.Plugin().start()
    screen = Screen("top")
    shows_work(screen, server)
    resizes(screen, server)
    shows_several(screen, server)
    without_utf8(server)
    shmid = server.shmid()
    server.stop()
    done = server.cli("destroy", server.parameters["name"])
    expect(done.returncode == 0, f"destroy under top: {done.stderr}")
    screen.wait(lambda text: "there is no device" in text, "the device to be gone")
    wait_for(lambda: shmid not in [row["shmid"] for row in servers.shm_rows()], 60, "top to keep its memory no more")
    expect(screen.quit() == 0, "its status")


harness.main(test)
