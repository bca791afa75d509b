#!/usr/bin/python3
"""Where a right is missing, scripts/run says which, and makes nothing: capabilities, device nodes,
root itself."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import Skip, expect, main, run  # noqa: E402

BARE_DEV = """
mount -t tmpfs dev /dev
mknod /dev/null c 1 3
ln -s /proc/self/fd /dev/fd
exec "$@"
"""

WITHOUT = {
    ("setpriv", "--bounding-set=-sys_admin"): "CAP_SYS_ADMIN",
    ("setpriv", "--bounding-set=-ipc_lock"): "CAP_IPC_LOCK",
    ("unshare", "--mount", "sh", "-c", BARE_DEV, "sh"): "/dev/fuse",
    ("unshare", "--mount", "sh", "-c", BARE_DEV, "-"): "/dev/loop-control",
    ("setpriv", "--reuid=65534", "--clear-groups"): "needs root",
}


def rights():
    if os.geteuid() != 0:
        raise Skip("needs root, to give rights up")
    if os.path.exists("/dev/nbd0"):
        raise Skip("this kernel has nbd: no FUSE is asked for")
    for prefix, missing in WITHOUT.items():
        done = run([*prefix, "bash", runner.SCRIPT, "--size", "64M", "--", "true"],
                   env=runner.environment())
        expect(done.returncode == 1 and missing in done.stderr,
               f"{prefix}: status {done.returncode}, no '{missing}' in: {done.stderr}")
        runner.expect_nothing_remains()


main(rights)
