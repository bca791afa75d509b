"""peers: the devices that bench/run compares, each started once and fully written.

    devices = start(size, names)      {"lz4 -t 1": device, "malloc -t 1": device, "zram": device, ...}
    variants("lz4")                   ["lz4 -t 1", "lz4 -t 16"]
"""

import glob
import os
import subprocess

import fio
import harness
import servers
import zram

FARSWAP = ["lz4", "zstd:1", "raw"]
ALLOCATORS = {"malloc": "malloc", "sparse": "sparse", "nbdkit zstd": "zstd"}
THREADS = [1, 16]
PEERS = list(ALLOCATORS) + ["qemu-nbd", "zram"]


class QemuNbd:
    """qemu-nbd on a raw file in a tmpfs."""

    def __init__(self, size):
        self.size = size
        self.socket = os.path.join(harness.workdir(), "qemu.sock")
        self.file = f"/dev/shm/{os.path.basename(harness.workdir())}.raw"
        self.process = None

    def start(self):
        program = harness.need("qemu-nbd")
        kind = harness.run(["stat", "-f", "-c", "%T", "/dev/shm"]).stdout.strip()
        if kind != "tmpfs":
            raise harness.Skip("/dev/shm is no tmpfs")
        self.sweep()
        harness.at_exit(self.remove)
        with open(self.file, "wb") as file:
            file.truncate(self.size)
        self.process = harness.spawn([program, "--persistent", "--shared=8", "--format=raw",
                                      f"--socket={self.socket}", self.file], log="qemu.log")
        harness.wait_for(self._answers, 20, "qemu-nbd")
        return self

    def _answers(self):
        return subprocess.run(["nbdinfo", "--size", self.uri], capture_output=True).returncode == 0

    @staticmethod
    def sweep():
        """Files of runs that were killed."""
        for left in glob.glob("/dev/shm/fsw-*-*.raw"):
            if not os.path.exists(f"/proc/{os.path.basename(left).split('-')[1]}"):
                os.unlink(left)

    def stop(self):
        harness.end(self.process)
        self.remove()

    def remove(self):
        if os.path.exists(self.file):
            os.unlink(self.file)

    @property
    def pid(self):
        return self.process.pid

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"


def is_farswap(name):
    return name.split(" -t ")[0] in FARSWAP


def variants(name):
    """Of a name: what nbdkit serves, whoever's plugin it is, is there once for each of THREADS."""
    if is_farswap(name) or name in ALLOCATORS:
        return [f"{name} -t {threads}" for threads in THREADS]
    return [name]


def nbdkit(size, name, threads):
    """A server that is not started: our plugin with a codec, or a peer's with an allocator."""
    if name in FARSWAP:
        return servers.Plugin(size=size, memory=size + (size >> 2) + (64 << 20), codec=name,
                              options=["-t", str(threads)])
    return servers.Stock(size, allocator=ALLOCATORS[name], threads=threads)


def start(size, names):
    """Devices for these names, in all variants. A peer that this machine has not is left out with a
    line."""
    devices = {}
    for name in names:
        try:
            if name in FARSWAP or name in ALLOCATORS:
                for threads, variant in zip(THREADS, variants(name)):
                    devices[variant] = nbdkit(size, name, threads).start()
            elif name == "qemu-nbd":
                devices[name] = QemuNbd(size).start()
            else:
                devices[name] = zram.Zram(size, "lz4").start()
        except harness.Skip as reason:
            print(f"{name} is left out: {reason}", flush=True)
    for name, device in devices.items():
        print(f"filling {name}", flush=True)
        fio.fill(device, size)
    return devices
