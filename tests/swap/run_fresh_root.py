#!/usr/bin/python3
"""scripts/run in a Debian root that has nothing: it installs what it needs from the machine's own
package sources, builds, swaps, and demonstrates. Then again: on the prepared root no package is
touched. The root is made anew each time (mmdebstrap, variant minbase) and thrown away."""

import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system/lib"))

import harness  # noqa: E402
from harness import Skip, at_exit, expect, main, need, run, workdir  # noqa: E402

# Nothing of this may be there before scripts/run: it must not lean on what it has to install.
ABSENT = ["git", "sudo", "make", "python3", "ip", "modprobe", "ps", "fusermount3", "gcc", "meson",
          "nbdkit", "redis-server"]

# In namespaces of its own for mounts and processes: nothing that scripts/run does there can stay.
ENTER = """
set -e
mount --rbind /dev {root}/dev
mount --rbind /sys {root}/sys
mount -t proc proc {root}/proc
mount -t tmpfs run {root}/run
exec chroot {root} /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin CI=true "$@"
"""


def debian_sources():
    """What of the machine's package sources is Debian's own, as mmdebstrap takes it from stdin."""
    for path in ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"):
        if os.path.exists(path):
            with open(path) as sources:
                text = sources.read()
            if "debian" in text:
                return text
    raise Skip("no Debian package sources in /etc/apt")


def make_root():
    root = os.path.join(workdir(), "root")
    tarball = os.path.join(workdir(), "root.tar")
    with open(os.path.join(workdir(), "sources"), "w") as sources:
        sources.write(debian_sources())
    made = run([need("mmdebstrap"), "--mode=root", "--variant=minbase", "--format=tar",
                "--aptopt=Acquire::Retries 3", "bookworm", tarball,
                os.path.join(workdir(), "sources")], seconds=300)
    expect(made.returncode == 0, f"mmdebstrap: {made.stderr[-2000:]}")
    os.mkdir(root)
    expect(run(["tar", "-xf", tarball, "-C", root, "--numeric-owner"]).returncode == 0, "tar")
    os.unlink(tarball)
    copy_apt_settings(root)
    os.mkdir(f"{root}/farswap")
    for name in os.listdir(harness.SOURCE):
        if name == ".git" or os.path.exists(os.path.join(harness.SOURCE, name, "build.ninja")):
            continue
        source, target = os.path.join(harness.SOURCE, name), f"{root}/farswap/{name}"
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return root


def copy_apt_settings(root):
    """The way to the network is the machine's: proxies, certificates, resolver."""
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        if os.path.exists(path):
            shutil.copy(path, root + path)
    for name in os.listdir("/etc/apt/apt.conf.d"):
        if "proxy" in name.lower():
            shutil.copy(f"/etc/apt/apt.conf.d/{name}", f"{root}/etc/apt/apt.conf.d/{name}")


def inside(root, *argv, seconds=700):
    # no --kill-child: scripts/run gets the TERM that ends the test, and cleans up itself
    return run(["unshare", "--mount", "--propagation", "private", "bash", "-c",
                ENTER.format(root=root), "bash", *argv], seconds=seconds)


def left_behind(root):
    with open("/proc/swaps") as swaps:
        lines = [line for line in swaps if "loop" in line]
    loops = [line for line in run(["losetup", "--list", "--noheadings"]).stdout.splitlines()
             if "farswap-run" in line]
    processes = [pid for pid in os.listdir("/proc") if pid.isdigit() and
                 os.path.exists(f"/proc/{pid}/root") and
                 os.readlink(f"/proc/{pid}/root").startswith(root)]
    return lines + loops + processes


def fresh_root():
    if os.geteuid() != 0:
        raise Skip("a chroot needs root")
    root = make_root()
    at_exit(lambda: inside(root, "bash", "/farswap/scripts/run", "--stop", seconds=200))
    there = [name for name in ABSENT if any(os.path.exists(f"{root}{folder}/{name}") for folder in
                                            ("/usr/bin", "/bin", "/usr/sbin", "/sbin"))]
    expect(not there, f"the fresh root has {there} already: it proves nothing")

    first = inside(root, "bash", "/farswap/scripts/run", "--size", "512M", "--memory", "24M")
    print(first.stderr[-4000:], first.stdout[-3000:], sep="\n")
    expect(first.returncode == 0, f"scripts/run ended with {first.returncode}")
    expect("installing" in first.stderr, "it installed nothing")
    expect("every page came back right" in first.stderr, "no verdict")
    missing = [name for name in ("redis-server", "fio", "mmdebstrap", "cmocka.h")
               if run(["find", root, "-xdev", "-name", name, "-type", "f"]).stdout.strip()]
    expect(not missing, f"it installed test packages: {missing}")
    expect(not left_behind(root), f"left behind: {left_behind(root)}")

    second = inside(root, "bash", "/farswap/scripts/run", "--size", "64M", "--memory", "24M",
                    "--", "true")
    expect(second.returncode == 0, second.stderr[-2000:])
    expect("installing" not in second.stderr, "a prepared machine was given packages again")
    took = re.search(r"([0-9.]+) s after the build", second.stderr)
    expect(took and float(took.group(1)) < 5, f"swap was slow to be on: {second.stderr}")
    expect(not left_behind(root), f"left behind: {left_behind(root)}")


main(fresh_root)
