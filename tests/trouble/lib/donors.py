"""donors: farswapd with a name, which ends and comes back, with what it held or without.

    donor = Donor(memory="1G")
    donor.again()    donor.again(empty=True)    donor.gone()
"""

import itertools
import os
import re

import servers
from harness import at_exit, built, expect, run, spawn, wait_for, workdir

PASSWORD = "a donor's password"


def password_file():
    path = os.path.join(workdir(), "password")
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write(PASSWORD)
        os.chmod(path, 0o644)  # a server says so (link-slow)
    return path


class Donor:
    """farswapd --name on a Unix socket, or with where=(ADDRESS, PORT) and a password on TCP. prefix: in
    a namespace."""

    _count = itertools.count(1)
    process = None

    def __init__(self, memory="1G", where=None, prefix=()):
        self.name = f"k{os.getpid()}-{next(Donor._count)}"
        self.where, self.prefix, self.memory = where, list(prefix), memory
        self.socket = os.path.join(workdir(), f"{self.name}.sock")
        if where is None:
            self.uri = f"resp+unix://{self.socket}"
        else:
            self.uri = f"resp://{where[0]}:{where[1]}"
        at_exit(self.gone)
        self.start()

    def start(self):
        argv = self.prefix + [built("server/farswapd"), "--name", self.name, "--unix", self.socket,
                              "--memory", self.memory, "--keep-available", "0"]
        if self.where is not None:
            argv += ["--listen", f"{self.where[0]}:{self.where[1]}", "--requirepass-file",
                     password_file()]
        before = self.log().count(" ready on ")
        self.process = spawn(argv, log=f"{self.name}.log", env=servers.image_environment(),
                             undo=False)
        wait_for(lambda: self.log().count(" ready on ") > before or self.process.poll() is not None,
                 servers.START_SECONDS, "farswapd to listen")
        expect(self.process.poll() is None, f"farswapd ended at its start: {self.log()[-2000:]}")

    def log(self):
        path = os.path.join(workdir(), f"{self.name}.log")
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as log:
            return log.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def again(self, empty=False, memory=None):
        """kill -9, and a start with what it kept, or without."""
        self.memory = memory or self.memory
        if empty:
            self.gone()
        else:
            self.kill()
        self.start()

    def gone(self):
        """Killed, and all that it kept with it."""
        if self.process is None:
            return
        self.kill()
        found = re.search(r"^.*(?:ERROR: \w+Sanitizer|runtime error:).*$", self.log(), re.M)
        expect(not found, f"the donor's log has: {found and found.group(0)}")
        done = run([built("server/farswapd"), "--destroy", self.name], env=servers.image_environment())
        expect(done.returncode == 0 or "there is no donor" in done.stderr, done.stderr)
