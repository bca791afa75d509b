#!/usr/bin/python3
"""plugin-rights: the server locks its memory after nbdkit forked, and says which right is missing.

As a daemon: memory locked before the fork would not be (VmLck 0). A right that is taken away is named
in one warning, before the fork, where it is still seen; the server starts all the same.
"""

import os
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import harness  # noqa: E402
import servers  # noqa: E402
from harness import at_exit, built, expect, run, wait_for, workdir  # noqa: E402

WITHOUT = ["prlimit", "--memlock=65536", "setpriv", "--bounding-set", "-ipc_lock,-sys_resource,-sys_nice"]


def end(pid):
    try:
        os.kill(pid, 15)
    except ProcessLookupError:
        return
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 60, f"the end of {pid}")


def remove(plugin):
    """What a server that it has not started itself left."""
    if plugin.shmid() is None:
        return
    done = run([built("client/cli/farswap"), "destroy", plugin.name], env=servers.image_environment())
    expect(done.returncode == 0 and plugin.shmid() is None, f"farswap destroy: {done.stdout}{done.stderr}")


def daemon(prefix):
    """Starts the server in the background: what its start said, and its pid."""
    plugin = servers.Plugin()
    at_exit(remove, plugin)
    pid_file = os.path.join(workdir(), f"{plugin.name}.pid")
    done = run(prefix + ["nbdkit", "-P", pid_file] + plugin.where() + plugin.command(),
               env=plugin.environment())
    expect(done.returncode == 0, f"nbdkit did not start: {done.stderr}")
    wait_for(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file) > 0, 60, "the pid file")
    with open(pid_file) as file:
        pid = int(file.read())
    at_exit(end, pid)
    return done.stderr, pid


def test():
    said, pid = daemon([])
    expect("can't lock memory" not in said, f"a right that is there is missed: {said}")
    wait_for(lambda: servers.locked(pid) > 64 << 10, 60, "locked memory in the daemon")
    end(pid)
    said, pid = daemon(WITHOUT)
    for words in "can't lock memory", "PR_SET_IO_FLUSHER", "oom_score_adj", "real-time", "can't lock the image":
        expect(said.count(words) == 1, f"{words!r} is not said once: {said}")
    expect(servers.locked(pid) <= 64 << 10, "memory is locked without the right")
    end(pid)


harness.main(test)
