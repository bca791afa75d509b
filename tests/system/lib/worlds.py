"""worlds: this host as a program sees it in a mount namespace of its own, with other files in places.

    run(worlds.prefix("mount -t tmpfs none /run") + [program, ...])
"""

import os

import harness


def prefix(script):
    """Of a command: the shell makes the world first."""
    return ["unshare", "--mount", "sh", "-c", f'set -e\n{script}\nexec "$@"', "sh"]


def modules(*names):
    """Script: a kernel that has these modules, and no others."""
    if not os.path.isdir("/lib/modules"):  # there must be something to mount over
        os.mkdir("/lib/modules")
        harness.at_exit(_remove, "/lib/modules")
    lists = "".join(f"kernel/drivers/block/{name}.ko:\\n" for name in names)
    return ("mount -t tmpfs none /lib/modules && mkdir /lib/modules/$(uname -r) && "
            f"printf '{lists}' >/lib/modules/$(uname -r)/modules.dep")


def _remove(path):
    try:
        os.rmdir(path)
    except OSError:  # somebody put something there meanwhile, or was faster
        pass
