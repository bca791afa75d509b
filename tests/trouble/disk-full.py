#!/usr/bin/python3
"""disk-full: pages spill to a file on a file system that something else has filled. Writes are refused
and nothing else suffers; once that is deleted, all is well. The server is killed with -9 meanwhile."""

import os
import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import full  # noqa: E402
import harness  # noqa: E402
from harness import Skip, at_exit, expect, need, run, workdir  # noqa: E402

DISK = 96 << 20
ROOM = 22 << 20


def small_disk():
    """A file system of its own, mounted."""
    image, mount = os.path.join(workdir(), "disk"), os.path.join(workdir(), "disk.mnt")
    with open(image, "wb") as file:
        file.truncate(DISK)
    os.mkdir(mount)
    done = run([need("mkfs.ext4"), "-q", "-m", "0", image])
    expect(done.returncode == 0, done.stderr)
    done = run(["mount", "-o", "loop", image, mount])
    if done.returncode != 0:
        raise Skip(f"mount: {done.stderr.strip()}")
    at_exit(run, ["umount", "--lazy", mount])
    return mount


def test():
    rng = harness.seeded()
    disk = small_disk()
    ballast = os.path.join(disk, "ballast")
    with open(ballast, "wb") as file:
        left = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_bsize - ROOM)
    host = full.through(rng, f"crypt+file:{disk}/overflow", lambda: os.unlink(ballast))
    host.destroy()
    expect(not os.path.exists(f"{disk}/overflow"), "destroy left the file")


harness.main(test)
