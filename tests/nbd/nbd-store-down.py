#!/usr/bin/python3
"""nbd-store-down: the store is away, or is not fit for pages any more, when the server dies. The next
one serves the pages that are there all the same, and warns; those at the store wait for it. A new
device is refused.
"""

import os
import re
import signal
import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/lib"]

import nbd  # noqa: E402

import content  # noqa: E402
import harness  # noqa: E402
import raw  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, STOCK, built, expect, need, run, spawn, wait_for, workdir  # noqa: E402

SIZE = 64 << 20
POOL = 8 << 20
FAR = 24 << 20  # written first: most of it leaves for the store


def fill(server, source):
    """Its first FAR bytes, and a page at the end that is local."""
    handle = server.connect()
    data = bytes(source.bytes(FAR))
    for offset in range(0, FAR, 1 << 20):
        handle.pwrite(data[offset:offset + (1 << 20)], offset)
    wait_for(lambda: server.counters()["overflow_pages"] > FAR // PAGE // 4, 60, "pages to leave")
    local = bytes(source.bytes(PAGE))
    handle.pwrite(local, SIZE - PAGE)
    return data, local


def comes_up(server, local, why):
    """It dies, and the next one serves what is local, and says what is wrong with the store."""
    server.kill()
    again = type(server)(prefix=server.prefix, **server.parameters).start()
    handle = again.connect()
    expect(handle.pread(PAGE, SIZE - PAGE) == local, "content of a local page")
    handle.pwrite(local, SIZE - PAGE)
    wait_for(lambda: why in again.log(), 60, f"a warning: {why}")
    return again


def waits_for_the_store(server, donor, data, local):
    """A donor that does not answer; a page that is there is read once it does."""
    away = raw.Away(donor)
    with away:
        server = comes_up(server, local, "can't be reached")
        handle, buffer = server.connect(), nbd.Buffer(PAGE)
        cookie = handle.aio_pread(buffer, 7 * PAGE)
        expect(server.connect().pread(PAGE, SIZE - PAGE) == local, "content while a read waits")
    while not handle.aio_command_completed(cookie):
        handle.poll(1000)
    expect(bytes(buffer.to_bytearray()) == data[7 * PAGE:8 * PAGE], "content of a page that was away")
    return server


def spare_waits_without(server, donor, local):
    """So does one that is started by a supervisor while the donor is away."""
    if not isinstance(server, servers.Server):
        return server
    server.kill()
    parameters = {key: server.parameters[key] for key in ("name", "overflow")}
    parameters |= {"size": None, "memory": None, "codec": None}
    first = raw.Handed(**parameters)
    with raw.Away(donor):
        first.start()
        spare = raw.Handed(options=["--wait"], **parameters).spawn()
        expect(spare.hear() == "waiting", f"the spare does not wait: {spare.log()}")
        first.kill()
        expect(spare.hear().endswith("recovered=1"), f"the spare does not take over: {spare.log()}")
        expect(spare.hand().read(SIZE - PAGE, PAGE) == local, "content of a local page")
    spare.kill()
    return servers.Server(**server.parameters).start()


def gone(server, donor, local):
    """Nobody listens there any more. A new device is refused: a person reads why."""
    donor.process.send_signal(signal.SIGKILL)
    donor.process.wait()
    server = comes_up(server, local, "can't be reached")
    line = type(server)(size=str(SIZE), overflow=donor.uri).refusal()
    expect("can't be reached" in line, line)
    server.kill()
    done = server.cli("destroy", "--local", server.parameters["name"])  # the rest of it can't be told
    expect(done.returncode == 0, done.stderr)


def policy_of(redis, policy):
    done = run([need("redis-cli"), "-s", redis.socket, "config", "set", "maxmemory-policy", policy])
    expect(done.stdout.strip() == "OK", done.stdout + done.stderr)


def not_fit_any_more(redis):
    """What a new device is refused for is a warning to one that is in use."""
    server = servers.device(str(SIZE), "96M", overflow=redis.uri)
    server.connect().pwrite(b"7" * PAGE, SIZE - PAGE)
    wait_for(lambda: "has no maxmemory" in server.log(), 60, "a warning of it")
    policy_of(redis, "allkeys-lru")
    comes_up(server, b"7" * PAGE, "maxmemory-policy")
    line = type(server)(size=str(SIZE), overflow=redis.uri).refusal()
    expect("maxmemory-policy" in line, line)


def folder_is_away(source):
    """A file whose folder is not mounted, say, before there was anything in it, and after."""
    folder = os.path.join(workdir(), "spill")
    os.mkdir(folder)
    server = servers.device(str(SIZE), str(POOL), patient=True, overflow=f"file:{folder}/slots")
    server.connect().pwrite(b"8" * PAGE, SIZE - PAGE)
    os.rename(folder, folder + ".away")
    server = comes_up(server, b"8" * PAGE, "spill")
    os.rename(folder + ".away", folder)
    data, local = fill(server, source)
    os.rename(folder, folder + ".away")
    server = comes_up(server, local, "spill")
    os.rename(folder + ".away", folder)
    expect(server.connect().pread(FAR, 0) == data, "content after the folder came back")


class Hosts:
    """What names mean to the programs of this test: a mount namespace with files of its own in /etc."""

    def __init__(self):
        self.path = os.path.join(workdir(), "hosts")
        nss = os.path.join(workdir(), "nsswitch.conf")
        with open(nss, "w") as file:
            file.write("hosts: files\n")
        binds = f"mount --bind {self.path} /etc/hosts && mount --bind {nss} /etc/nsswitch.conf"
        self.prefix = ["unshare", "--mount", "sh", "-c", binds + ' && exec "$@"', "sh"]
        self.know("")

    def know(self, line):
        with open(self.path, "w") as file:
            file.write(line + "\n")


def listens():
    """Where the donor does, by its own words; None: it does not yet."""
    with open(os.path.join(workdir(), "tcp.log")) as log:
        found = re.search(r" ready on 127\.0\.0\.1:(\d+)$", log.read(), re.M)
    return found and found.group(1)


def nobody_knows_its_name(source):
    """Nor can the store's host be found by its name; once it is, its pages are there."""
    hosts = Hosts()
    spawn([built("server/farswapd"), "--listen", "127.0.0.1:0", "--memory", "1G"], log="tcp.log")
    port = wait_for(listens, 60, "farswapd to listen")
    hosts.know("127.0.0.1 donor.test")
    server = servers.device(str(SIZE), str(POOL), patient=True, overflow=f"resp://donor.test:{port}",
                            prefix=hosts.prefix)
    data, local = fill(server, source)
    hosts.know("")
    server = comes_up(server, local, "donor.test can't be found")
    line = type(server)(size=str(SIZE), overflow=f"resp://donor.test:{port}",
                        prefix=hosts.prefix).refusal()
    expect("donor.test can't be found" in line, line)
    hosts.know("127.0.0.1 donor.test")
    expect(server.connect().pread(FAR, 0) == data, "content once the name is known")
    server.kill()
    done = server.cli("destroy", "--local", server.parameters["name"])  # which asks for the name, too
    expect(done.returncode == 0, done.stderr)


def on_a_disk():
    """file: refuses a file system in memory."""
    return run(["stat", "-f", "-c", "%T", workdir()]).stdout.strip() not in ("tmpfs", "ramfs")


def test():
    if STOCK:
        return
    source = content.Source(content.Corpus(harness.seeded()))
    donor, redis = servers.Donor("1G"), servers.Redis()
    server = servers.device(str(SIZE), str(POOL), patient=True, overflow=donor.uri)
    data, local = fill(server, source)
    server = waits_for_the_store(server, donor, data, local)
    gone(spare_waits_without(server, donor, local), donor, local)
    not_fit_any_more(redis)
    nobody_knows_its_name(source)
    if on_a_disk():
        folder_is_away(source)


harness.main(test)
