"""worlds: this host as a program sees it in a mount namespace of its own, with other files in places.

    run(worlds.prefix("mount -t tmpfs none /run") + [program, ...])
"""

import contextlib
import fcntl
import os

import harness

FOLDER = "/lib/modules"
MADE = "/run/lock/farswap-worlds-made"  # FOLDER is none of the host's


def prefix(script):
    """Of a command: the shell makes the world first."""
    return ["unshare", "--mount", "sh", "-c", f'set -e\n{script}\nexec "$@"', "sh"]


def modules(*names):
    """Script: a kernel that has these modules, and no others."""
    _have_folder()
    lists = "".join(f"kernel/drivers/block/{name}.ko:\\n" for name in names)
    return ("mount -t tmpfs none /lib/modules && mkdir /lib/modules/$(uname -r) && "
            f"printf '{lists}' >/lib/modules/$(uname -r)/modules.dep")


def _have_folder():
    """There must be something to mount over. Who makes or needs it holds the lock, the last removes it."""
    lock = open("/run/lock/farswap-worlds", "w")
    fcntl.flock(lock, fcntl.LOCK_SH)
    if os.path.isdir(FOLDER) and not os.path.exists(MADE):
        return  # the host's own
    os.makedirs(FOLDER, exist_ok=True)
    with open(MADE, "w"):
        pass
    harness.at_exit(_remove, lock)


def _remove(lock):
    fcntl.flock(lock, fcntl.LOCK_UN)
    with lock, contextlib.suppress(OSError):  # another test needs it, or somebody put something there
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(FOLDER)
        os.unlink(MADE)
