"""nbdfuse: nbdkit farswap as a file, without farswap-fuse: what it replaces, and what a log filter can stand
before.

    disk = NbdFuse(size="1G", memory="1G").start()        disk.uri: the file
"""

import os

import fuse
import harness
import servers


class NbdFuse:
    """nbdkit farswap, and nbdfuse over it, with a connection a CPU."""

    def __init__(self, **parameters):
        self.plugin = servers.Plugin(**parameters)
        self.mount = os.path.join(harness.workdir(), "nbdfuse.mnt")
        os.mkdir(self.mount)

    @property
    def uri(self):
        return os.path.join(self.mount, "disk")

    def start(self):
        program = harness.need("nbdfuse")
        self.plugin.start()
        harness.at_exit(fuse.unmount, self.mount)
        harness.spawn([program, "--connections", str(min(os.cpu_count(), 4)), self.uri, "--unix",
                       self.plugin.socket], log="nbdfuse.log")
        harness.wait_for(lambda: fuse.is_mounted(self.mount) and os.path.exists(self.uri), 10, "nbdfuse")
        return self
