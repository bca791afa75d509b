"""guest: a User Mode Linux machine for a test, with its own kernel, network and block devices.

    net = Net()                             # a network namespace with one TAP; gone when the test ends
    guest = Guest(net, memory="128M", modules=["nbd"], programs=["nbd-client"])
    guest.run("nbd-client -N '' 10.99.0.1 10809 /dev/nbd0 && …")

  - The root file system is a small directory on the host (hostfs): static busybox, the programs
    with the libraries that ldd names, the modules with what modules.dep says they need.
  - run() boots, runs one busybox sh script with `set -e`, powers off, and returns a Result: status,
    output (console), kernel log. A guest boots in about a second; there is no state between runs
    but the root directory.
  - What only the host can do while the script runs, it asks for: `errand NAME` calls the function of
    that name in run(errands={...}), and returns when that has returned.
  - Guest address on TAP i is 10.99.i.2, device vecI; the host's end is 10.99.i.1. Start servers
    with `net.prefix`, which puts a command into the namespace.
  - Everything of the guest lives in a pid namespace of its own: killing its first process kills all
    of it, and the kernel does so when the test dies.

The guest is one CPU. Its root has all capabilities, CAP_SYS_RESOURCE included. With cgroup2=True
the cgroup v2 tree is mounted at /sys/fs/cgroup.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system/lib"))

from harness import Skip, at_exit, built, expect, need, run, spawn, workdir  # noqa: E402

# Lines of a kernel log that no healthy run has.
_TROUBLE = re.compile(r"I/O error|Buffer I/O|Write-error|Read-error|Receive control failed|"
                      r"Other side returned error|Connection timed out|Out of memory|BUG:|WARNING:|"
                      r"Oops|Kernel panic|hung_task|blocked for more than", re.I)

_MARK = "---- the script of the guest begins here"

_INIT = """#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
ip link set lo up
@SETUP@
echo @MARK@
sh -e /script
echo $? > /result/status
dmesg > /result/dmesg
sync
poweroff -f
"""


class Net:
    """A network namespace with `taps` TAP devices, each with its own /24."""

    _count = 0

    def __init__(self, taps=1):
        need("ip")
        if not os.path.exists("/dev/net/tun"):
            raise Skip("no /dev/net/tun")
        if os.geteuid() != 0:
            raise Skip("a network namespace needs root")
        Net._count += 1
        self.name = f"fsw-{os.getpid()}-{Net._count}"
        self.prefix = ["nsenter", f"--net=/run/netns/{self.name}"]  # keeps PR_SET_PDEATHSIG, unlike ip
        self.taps = [f"tap{i}" for i in range(taps)]
        self._ip("netns", "add", self.name)
        at_exit(run, ["ip", "netns", "del", self.name])
        self._ip("-n", self.name, "link", "set", "lo", "up")
        for i, tap in enumerate(self.taps):
            self._ip("-n", self.name, "tuntap", "add", tap, "mode", "tap")
            self._ip("-n", self.name, "address", "add", f"{self.host(i)}/24", "dev", tap)
            self._ip("-n", self.name, "link", "set", tap, "up")

    @staticmethod
    def _ip(*arguments):
        done = run(["ip", *arguments])
        if done.returncode != 0:
            raise Skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    @staticmethod
    def host(i=0):
        return f"10.99.{i}.1"

    @staticmethod
    def guest(i=0):
        return f"10.99.{i}.2"


class Far:
    """Another host: a namespace of its own behind that of a Net, which routes between it and the
    guest. cut() lets the router drop what comes, without a link going down; heal() ends that. The
    guest finds it by `ip route add 10.98.0.0/24 via 10.99.0.1`."""

    ADDRESS = "10.98.0.2"

    def __init__(self, net):
        self.net = net
        self.name = net.name + "-far"
        self.prefix = ["nsenter", f"--net=/run/netns/{self.name}"]
        net._ip("netns", "add", self.name)
        at_exit(run, ["ip", "netns", "del", self.name])
        net._ip("-n", net.name, "link", "add", "far", "type", "veth", "peer", "near", "netns", self.name)
        for name, link, address in ((net.name, "far", "10.98.0.1"), (self.name, "near", self.ADDRESS)):
            net._ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            net._ip("-n", name, "link", "set", link, "up")
        net._ip("-n", self.name, "link", "set", "lo", "up")
        net._ip("-n", self.name, "route", "add", "default", "via", "10.98.0.1")
        self.heal()

    def _forward(self, value):
        done = run(self.net.prefix + ["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/ip_forward"])
        if done.returncode != 0:
            raise Skip(f"ip_forward: {done.stderr.strip()}")

    def cut(self):
        self._forward(0)

    def heal(self):
        self._forward(1)


# In the guest. The file is there until the host has done it.
_ERRAND = """#!/bin/sh
echo "$1" > /errand.new
mv /errand.new /errand
while [ -e /errand ]; do usleep 20000; done
"""


class _Errands:
    """A thread that does what a running guest asks for."""

    def __init__(self, root, table):
        self.path = os.path.join(root, "errand")
        self.table = table
        self.stopped = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopped.wait(0.02):
            if not os.path.exists(self.path):
                continue
            with open(self.path) as file:
                name = file.read().strip()
            try:
                self.table[name]()
            except Exception as failure:  # pylint: disable=broad-except
                self.failure = failure
                return  # the guest waits, and is ended
            os.unlink(self.path)

    def stop(self):
        self.stopped.set()
        self.thread.join()
        if self.failure is not None:
            raise self.failure


class Result:
    """What a run left. `output` is the script's; `dmesg` the guest kernel's log at its end."""

    def __init__(self, status, output, dmesg, seconds):
        self.status, self.output, self.dmesg, self.seconds = status, output, dmesg, seconds

    def trouble(self):
        return [line for line in self.dmesg.splitlines() if _TROUBLE.search(line)]

    def expect_clean(self):
        """The script ended with 0 and the kernel complained of nothing."""
        expect(self.status == 0,
               f"the guest's script ended with {self.status}\n{self.output[-6000:]}\n"
               f"--- kernel\n{self.dmesg[-3000:]}")
        expect(not self.trouble(), "the guest's kernel log has:\n" + "\n".join(self.trouble()))
        return self


class Guest:
    """One root directory, to be booted any number of times.

    modules    names as modprobe knows them, loaded in that order with what they need
    programs   names or paths of executables of the host; they keep their base name in /bin
    files      {path in the guest: bytes, or path of a file of the host}
    module_options  {module: "nbds_max=1"}
    """

    def __init__(self, net=None, memory="128M", modules=(), programs=(), files=None,
                 module_options=None, cgroup2=False, kernel_options=()):
        self.uml = need("linux.uml")
        need("unshare")
        self.net = net
        self.memory = memory
        self.kernel_options = list(kernel_options)
        self.root = os.path.join(workdir(), f"root{id(self):x}")
        self._setup = ["mount -t cgroup2 cgroup2 /sys/fs/cgroup"] if cgroup2 else []
        self._make_root()
        for path in programs:
            self.add_program(path)
        for path, content in (files or {}).items():
            self.add_file(path, content)
        self._add_modules(modules, module_options or {})
        self._add_network()

    def _make_root(self):
        for name in ("bin", "dev", "proc", "sys", "run", "tmp", "etc", "result", "modules"):
            os.makedirs(os.path.join(self.root, name))
        os.symlink("bin", os.path.join(self.root, "sbin"))
        busybox = need("busybox")
        if run(["ldd", busybox]).returncode == 0:
            raise Skip("busybox is not static (package busybox-static)")
        shutil.copy(busybox, os.path.join(self.root, "bin/busybox"))
        for applet in set(run([busybox, "--list"]).stdout.split()) - {"busybox"}:
            os.symlink("busybox", os.path.join(self.root, "bin", applet))

    def add_program(self, path):
        """Copies an executable to /bin, and the libraries that ldd names to where they were."""
        path = os.path.realpath(path if "/" in path else need(path))
        target = os.path.join(self.root, "bin", os.path.basename(path))
        if os.path.lexists(target):
            os.unlink(target)  # a busybox applet of that name
        shutil.copy(path, target)
        self.add_libraries(path)

    def add_libraries(self, path):
        for library in re.findall(r"(/\S+) \(0x", run(["ldd", path]).stdout):
            target = self.root + library
            if not os.path.exists(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(library, target)

    def add_file(self, path, content):
        target = self.root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if isinstance(content, bytes):
            with open(target, "wb") as out:
                out.write(content)
        else:
            shutil.copy(content, target)

    def _add_modules(self, modules, options):
        tree = max(glob.glob("/usr/lib/uml/modules/*"), default=None)
        if tree is None:
            raise Skip("no modules of user-mode-linux")
        with open(os.path.join(tree, "modules.dep")) as table:
            needs = dict(line.strip().split(":", 1) for line in table)
        paths = {os.path.basename(path)[:-3].replace("-", "_"): path for path in needs}
        loaded = []
        for module in modules:
            path = paths[module.replace("-", "_")]
            for each in needs[path].split()[::-1] + [path]:
                if each not in loaded:
                    loaded.append(each)
                    name = os.path.basename(each)
                    shutil.copy(os.path.join(tree, each), os.path.join(self.root, "modules", name))
                    self._setup.append(f"insmod /modules/{name} {options.get(name[:-3], '')}")

    def _add_network(self):
        for i in range(len(self.net.taps) if self.net else 0):
            self._setup += [f"ip address add {Net.guest(i)}/24 dev vec{i}",
                            f"ip link set vec{i} up"]

    def _command(self):
        argv = list(self.net.prefix) if self.net else []
        argv += ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--ipc"]
        # UML ends itself by a signal when it panics, which the first process of a namespace ignores.
        # Copies of mounts would keep other tests' servers after their unmount.
        argv += ["sh", "-c", 'umount --all --lazy --no-canonicalize --types fuse.farswap; "$@"; exit $?',
                 "sh"]
        argv += [self.uml, f"mem={self.memory}", "root=/dev/root", "rootfstype=hostfs",
                 f"rootflags={self.root}", "rw", "init=/init", "con=null", "con0=fd:0,fd:1",
                 f"uml_dir={workdir()}/", "panic=-1", "loglevel=4"]
        argv += self.kernel_options
        for i, tap in enumerate(self.net.taps if self.net else ()):
            argv.append(f"vec{i}:transport=tap,ifname={tap},depth=128,gro=1")
        return argv

    def run(self, script, seconds=900, errands=None, enough=None):
        """Boots, runs the script, returns a Result. A guest that does not end in time is killed and
        its status is None, as that of one whose kernel panicked. errands: functions by name. enough:
        asked with the output so far, says that there is no need to go on."""
        errands = _Errands(self.root, errands or {})
        try:
            return self._run(script, seconds, lambda output: errands.failure or enough and enough(output))
        finally:
            errands.stop()

    @staticmethod
    def _output(console):
        with open(console, errors="replace") as text:
            output = text.read().replace("\r", "")
        return output.split(_MARK + "\n")[-1]  # all of it when the guest never came that far

    def _run(self, script, seconds, enough):
        self._write("/init", self._init(), 0o755)
        self._write("/script", script, 0o644)
        self._write("/bin/errand", _ERRAND, 0o755)
        for name in ("status", "dmesg"):
            with_path = os.path.join(self.root, "result", name)
            if os.path.exists(with_path):
                os.unlink(with_path)
        started = time.monotonic()
        console = os.path.join(workdir(), "guest-console")
        # The console must not be at its end of file, which UML takes for a reason to spin.
        with open(console, "wb") as out, open("/dev/zero", "rb") as zeros:
            process = spawn(self._command(), stdin=zeros, stdout=out, stderr=subprocess.STDOUT,
                            env=dict(os.environ, HOME=workdir(), TMPDIR=self._fast_memory(),
                                     LD_PRELOAD=built("tests/uml/libxstate.so")))
            while process.poll() is None and time.monotonic() < started + seconds and \
                    not enough(self._output(console)):
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    pass
            process.kill()
            process.wait()
        output = self._output(console)
        status = self._read("status")
        return Result(int(status) if status.strip() else None, output, self._read("dmesg"),
                      time.monotonic() - started)

    def _init(self):
        return _INIT.replace("@SETUP@", "\n".join(self._setup)).replace("@MARK@", _MARK)

    @staticmethod
    def _fast_memory():
        return "/dev/shm" if os.path.isdir("/dev/shm") else workdir()

    def _write(self, path, text, mode):
        with open(self.root + path, "w") as out:
            out.write(text)
        os.chmod(self.root + path, mode)

    def _read(self, name):
        path = os.path.join(self.root, "result", name)
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as text:
            return text.read()
