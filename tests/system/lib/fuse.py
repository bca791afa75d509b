"""fuse: farswap-fuse as tests see it: the same methods as servers.Plugin, and a handle on its file
with the methods of libnbd that the content tests use.

    FARSWAP_DOOR=fuse     servers.device() starts this instead of the plugin
"""

import ctypes
import os
import subprocess

import harness
import servers
from harness import PAGE, at_exit, built, end, expect, run, spawn, wait_for, workdir

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)


class File:
    """Bytes of `disk`. Offsets and lengths may be anything, as over NBD."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def get_size(self):
        return os.fstat(self.fd).st_size

    def get_block_size(self, kind):
        """A file takes any."""
        return 64 << 20

    def pread(self, length, offset):
        parts = []
        while length > 0:
            part = os.pread(self.fd, length, offset)
            if not part:
                raise OSError(5, "read past the end")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pwrite(self, data, offset, flags=0):
        left = memoryview(data)
        while left:
            written = os.pwrite(self.fd, left, offset)
            offset, left = offset + written, left[written:]

    def _fallocate(self, mode, length, offset):
        if _libc.fallocate(self.fd, mode | _KEEP_SIZE, ctypes.c_int64(offset),
                           ctypes.c_int64(length)) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def trim(self, length, offset, flags=0):
        """NBD's: the whole pages of the range. (A punched hole zeroes parts of pages, too.)"""
        expect_inside = offset + length
        first, last = -(-offset // PAGE) * PAGE, expect_inside // PAGE * PAGE
        if expect_inside > self.get_size():
            last = expect_inside  # an error of the device's, not of ours
        if last > first:
            self._fallocate(_PUNCH_HOLE, last - first, first)

    def zero(self, length, offset, flags=0):
        self._fallocate(_ZERO_RANGE if offset % 2 else _PUNCH_HOLE, length, offset)

    def flush(self):
        os.fsync(self.fd)

    def cache(self, length, offset):
        pass

    def shutdown(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def __del__(self):
        self.shutdown()


class Fuse(servers.Plugin):
    """farswap-fuse on a mount point in the test's directory. supervise=True: with its supervisor,
    whose process this is then."""

    PATH = "client/fuse/farswap-fuse"

    def __init__(self, prefix=(), tcp=None, supervise=False, **parameters):
        super().__init__(prefix, tcp, **parameters)
        self.supervise = supervise
        self.mount = os.path.join(workdir(), f"{self.name}.mnt")
        os.mkdir(self.mount)

    @property
    def disk(self):
        return os.path.join(self.mount, "disk")

    def command(self):
        keys = servers.spelled({k: v for k, v in self.parameters.items() if k != "name"})
        return self.prefix + [built(self.PATH)] + ["--supervise"] * self.supervise + [
            self.mount, self.parameters["name"], *keys]

    def environment(self):
        return servers.image_environment()

    def launch(self):
        at_exit(unmount, self.mount)  # after destroy(), which wants it gone
        self.process = spawn(self.command(), log=f"{self.name}.log", env=self.environment())
        wait_for(lambda: is_mounted(self.mount) and self._answers() or self.process.poll() is not None,
                 servers.START_SECONDS, "farswap-fuse to serve")
        expect(self.process.poll() is None, f"farswap-fuse ended at its start: {self.log()}")
        return self

    def _answers(self):
        try:
            return os.stat(self.disk).st_size > 0
        except OSError:
            return False

    def refusal(self):
        return self.refusal_of(self.command())

    def refusal_of(self, command):
        done = run(command, servers.START_SECONDS, env=self.environment())
        lines = done.stderr.splitlines()
        expect(done.returncode != 0, f"{command} was accepted")
        expect(len(lines) == 1, f"expected one line, got:\n{done.stderr}")
        return lines[0]

    def connect(self):
        return File(self.disk)

    def path(self, knob):
        return os.path.join(self.mount, knob)

    def show(self, knob):
        with open(self.path(knob)) as file:
            return file.read()

    def store(self, knob, text):
        """As echo does it: cut, and one write."""
        fd = os.open(self.path(knob), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, text.encode() + b"\n")
        finally:
            os.close(fd)

    def stop(self):
        """Unmounted by itself if nothing uses it; its exit status."""
        return end(self.process)

    def abort(self):
        """Every request fails from now on: for a test that failed, whose clients would wait for ever."""
        run(["umount", "--force", self.mount])

    def servers(self):
        """Pids of the supervised servers: the one that serves first."""
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
            pids = list(map(int, file.read().split()))
        holder = self.holder()
        return sorted(pids, key=lambda pid: pid != holder)

    def holder(self):
        """Who has the image's lock, None: nobody."""
        inode = os.stat(self.image_file()).st_ino
        with open("/proc/locks") as locks:
            for fields in map(str.split, locks):
                if "->" not in fields and fields[1] == "FLOCK" and \
                        int(fields[5].rpartition(":")[2]) == inode:
                    return int(fields[4])
        return None


def is_mounted(path):
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == path for line in mounts)


def unmount(path):
    while is_mounted(path):
        subprocess.run(["umount", "--lazy", path], check=False)
    if os.path.isdir(path):
        os.rmdir(path)


def device(size, memory, **more):
    more.pop("tcp", None)
    return Fuse(size=size, memory=memory, **more).start()


def alone():
    """Skips where this kernel can't."""
    if not os.path.exists("/dev/fuse"):
        raise harness.Skip("this kernel has no FUSE")
