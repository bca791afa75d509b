#!/usr/bin/python3
"""scripts/run in a Debian root that has nothing: it installs what it needs from the machine's own
package sources, builds, swaps, and demonstrates. Then again: on the prepared root no package is
touched. At last that root is booted as a User Mode Linux guest, whose kernel has nbd and cgroup v2:
the demonstration through nbd-client, --keep, a swapoff that finds too little RAM, --stop. The root
is made anew each time (mmdebstrap, variant minbase) and thrown away."""

import os
import re
import shutil
import sys

for folder in ("../system/lib", "../uml", "lib"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), folder))

import harness  # noqa: E402
import runner  # noqa: E402
from guest import Guest  # noqa: E402
from harness import Skip, at_exit, expect, main, need, run, workdir  # noqa: E402

# Nothing of this may be there before scripts/run: it must not lean on what it has to install.
ABSENT = ["git", "sudo", "make", "python3", "ip", "modprobe", "ps", "fusermount3", "gcc", "meson",
          "nbdkit", "redis-server"]

# In namespaces of its own for mounts and processes: nothing that scripts/run does there can stay.
ENTER = """
set -e
umount --all --lazy --no-canonicalize --types fuse.farswap  # copies, that would keep the servers
mount --rbind /dev {root}/dev
mount --rbind /sys {root}/sys
mount -t proc proc {root}/proc
exec chroot {root} /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin CI=true "$@"
"""


# In the guest. 256 MiB of RAM; what is kept must serve the host, whoever needs memory there.
IN_GUEST = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
run="bash /farswap/scripts/run"
no() { if "$@"; then echo "should have failed: $*"; exit 1; fi; }
$run --size 512M --memory 16M
$run --size 256M --memory 112M --keep
for stat in /proc/[0-9]*/stat; do                # every right is there: the server took them
    read -r pid name state parent group session tty foreground flags rest <"$stat" || continue
    test "$name" = '(farswap-nbd)' || continue
    test "$(cat "/proc/$pid/oom_score_adj")" = -1000
    grep -q '^VmLck:[^0-9]*[1-9]' "/proc/$pid/status"
    if test $((flags & 0x80000)) != 0; then      # PF_MEMALLOC_NOIO: PR_SET_IO_FLUSHER
        echo rights taken                        # the spare takes that when it is needed
    fi
done
grep -q '^/dev/nbd0 ' /proc/swaps
no $run -- true                                  # kept: refused, and told how to end it
mkfifo /run/hold
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/outsider                    # owns more on the swap than there is RAM for
echo 24M >/sys/fs/cgroup/outsider/memory.max
sh -c 'echo $$ >/sys/fs/cgroup/outsider/cgroup.procs
       exec /farswap/build/tests/swap/hoard --size 190M --report /run/report --hold /run/hold' &
hoard=$!
while test ! -e /run/report; do kill -0 $hoard; sleep 0.1; done
no $run --stop                                   # more is swapped out than there is RAM
grep -q '^/dev/nbd0 ' /proc/swaps
: >/run/hold
wait $hoard
$run --stop
no grep -q nbd /proc/swaps
test ! -e /sys/block/nbd0/pid
no grep -l -E 'nbdkit|farswapd' /proc/[0-9]*/comm
test "$(tail -n +2 /proc/sysvipc/shm | wc -l)" = 0
"""


class DebianGuest(Guest):
    """The root that scripts/run has prepared, with the guest kernel's modules."""

    def __init__(self, root):  # the root directory is not a new one: no super().__init__()
        self.uml = need("linux.uml")
        self.net, self.memory, self.kernel_options, self.root = None, "256M", [], root
        self._setup = ["mount -t cgroup2 cgroup2 /sys/fs/cgroup", "ln -s /proc/self/fd /dev/fd"]
        os.makedirs(f"{root}/result", exist_ok=True)
        shutil.copytree("/usr/lib/uml/modules", f"{root}/lib/modules", dirs_exist_ok=True)
        self.add_file("/usr/sbin/poweroff", b"#!/bin/sh\nsync\nexec /usr/bin/python3 -c "
                      b"'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'\n")
        os.chmod(f"{root}/usr/sbin/poweroff", 0o755)


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
    # once the mount it lies on is gone, a file's path is what it was below that
    loops = [file for file in run(["losetup", "--list", "--noheadings", "--output",
                                   "BACK-FILE"]).stdout.split() if root in file or file == "/disk"]
    return loops + [pid for pid in os.listdir("/proc") if pid.isdigit() and root_of(pid).startswith(root)]


def root_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/root")
    except OSError:  # it has ended
        return ""


def fresh_root():
    if os.geteuid() != 0:
        raise Skip("a chroot needs root")
    root = make_root()
    runner.alone()
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

    runner.expect_quick(lambda: again(root))
    in_guest(root)


def again(root):
    """On the prepared root."""
    second = inside(root, "bash", "/farswap/scripts/run", "--size", "64M", "--memory", "24M",
                    "--", "true")
    expect(second.returncode == 0, second.stderr[-2000:])
    expect("installing" not in second.stderr, "a prepared machine was given packages again")
    expect(not left_behind(root), f"left behind: {left_behind(root)}")
    return second.stderr


def in_guest(root):
    result = DebianGuest(root).run(IN_GUEST, seconds=600)
    print(result.output)
    expect(result.status == 0, f"in the guest: {result.status}\n{result.dmesg[-2000:]}")
    expect("front door: the kernel's nbd" in result.output, "not through the kernel's nbd")
    for text in ("every page came back right", "rights taken", "swap stays on", "is kept on here since",
                 "more RAM than there is", "everything stays up"):
        expect(text in result.output, f"no '{text}' in what scripts/run said in the guest")
    # A write may be refused where the guest is not run for a second: the kernel keeps the page.
    expect(not re.search(r"\(READ\)|Read-error on swap", result.dmesg), result.dmesg[-3000:])


if __name__ == "__main__":
    main(fresh_root)
