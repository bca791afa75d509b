"""squeeze: one command in a memory cgroup of its own (version 1 or 2), set as scripts/run sets it."""

import glob
import os
import subprocess

import harness


def _root():
    """(version, directory) of the memory controller."""
    second = None
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, where, kind, options = line.split()[:4]
            if kind == "cgroup" and "memory" in options.split(","):
                return 1, where
            controllers = f"{where}/cgroup.controllers"
            if kind == "cgroup2" and os.path.exists(controllers) and \
                    "memory" in open(controllers).read().split():
                second = 2, where
    if second is None:
        raise harness.Skip("no memory cgroup here")
    return second


def _write(path, text):
    with open(path, "w") as file:
        file.write(str(text))


def _try_remove(path):
    try:
        os.rmdir(path)
    except OSError:  # something still runs in it
        return False
    return True


class Squeeze:
    def __init__(self, limit):
        version, root = _root()
        for left in glob.glob(f"{root}/farswap-bench-*"):  # by a run that was killed
            if not os.path.exists(f"/proc/{left.rpartition('-')[2]}"):
                _try_remove(left)
        self.path = f"{root}/farswap-bench-{os.getpid()}"
        if version == 2 and "memory" not in open(f"{root}/cgroup.subtree_control").read().split():
            _write(f"{root}/cgroup.subtree_control", "+memory")
        os.mkdir(self.path)
        harness.at_exit(self.remove)
        if version == 2:
            _write(f"{self.path}/memory.max", limit)
            _write(f"{self.path}/memory.swap.max", "max")
        else:
            _write(f"{self.path}/memory.limit_in_bytes", limit)
            _write(f"{self.path}/memory.swappiness", 60)

    def run(self, argv):
        """Its exit status."""
        inside = ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.path, *argv]
        return subprocess.run(inside, stdin=subprocess.DEVNULL).returncode

    def remove(self):
        if os.path.isdir(self.path):
            harness.wait_for(lambda: _try_remove(self.path), 10, f"{self.path} to be empty")
