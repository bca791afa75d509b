#!/usr/bin/python3
"""nbd-clients: what real clients make of farswap-nbd: nbdinfo, nbdcopy, nbdsh's library, qemu-img, qemu-io,
fio with its verify job; over a Unix socket and over TCP.
"""

import hashlib
import json
import os
import sys

sys.path[:0] = [sys.path[0] + "/../system/lib", sys.path[0] + "/../fio"]

import nbd  # noqa: E402

import content  # noqa: E402
import fio_job  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, need, run, workdir  # noqa: E402

SIZE = 96 << 20


def ok(argv, **more):
    done = run(argv, **more)
    expect(done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def named(server, export):
    """The URI of an export of that name."""
    address, _, query = server.uri.partition("?")
    return address.rstrip("/") + f"{'/' if server.tcp else '///'}{export}" + (query and f"?{query}")


def info(server, multi_conn):
    """nbdinfo, as JSON and as a list; by the export's name, and by one that is not ours."""
    export = json.loads(ok(["nbdinfo", "--json", server.uri]))["exports"][0]
    wanted = {"export-size": SIZE, "is_read_only": False, "can_flush": True, "can_fua": True,
              "can_trim": True, "can_zero": True, "can_fast_zero": True, "can_cache": True,
              "can_multi_conn": multi_conn, "block_size_minimum": 1, "block_size_preferred": PAGE,
              "block_size_maximum": 32 << 20}
    for key, value in wanted.items():
        expect(export.get(key) == value, f"nbdinfo: {key} is {export.get(key)}, not {value}")
    names = [one["export-name"] for one in json.loads(ok(["nbdinfo", "--json", "--list",
                                                         server.uri]))["exports"]]
    expect(names == [server.name], f"the list of exports is {names}")
    content.fails("ENOENT", nbd.NBD().connect_uri, named(server, "another"))
    handle = nbd.NBD()
    handle.connect_uri(named(server, server.name))
    expect(handle.get_size() == SIZE, "by its name, the export has another size")
    expect(not handle.get_structured_replies_negotiated(), "structured replies were negotiated")


def old_handshake(server):
    """NBD_OPT_EXPORT_NAME, with its zeroes: clients before INFO and GO."""
    handle = nbd.NBD()
    handle.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE)
    handle.set_opt_mode(False)
    handle.connect_uri(server.uri)
    expect(handle.get_size() == SIZE, "the old handshake tells another size")
    handle.shutdown()


def copy(server, source, connections):
    """In by nbdcopy with several connections, out by qemu-img; then the other way."""
    path = os.path.join(workdir(), "in.raw")
    with open(path, "wb") as file:
        file.write(source.bytes(SIZE // 2))
        file.truncate(SIZE)
    with open(path, "rb") as file:
        want = hashlib.sha256(file.read()).digest()
    out = os.path.join(workdir(), "out.raw")
    ok(["nbdcopy", "-C", str(connections), "--requests=64", path, server.uri])
    ok([need("qemu-img"), "convert", "-f", "raw", "-O", "raw", server.uri, out])
    with open(out, "rb") as file:
        expect(hashlib.sha256(file.read()).digest() == want, "qemu-img read something else")
    server.connect().zero(SIZE, 0)
    ok([need("qemu-img"), "convert", "-n", "-f", "raw", "-O", "raw", path, server.uri])
    expect(ok([need("qemu-img"), "compare", "-f", "raw", "-F", "raw", path, server.uri])
           .startswith("Images are identical"), "qemu-img wrote something else")
    ok(["nbdcopy", "-C", str(connections), server.uri, out])
    with open(out, "rb") as file:
        expect(hashlib.sha256(file.read()).digest() == want, "nbdcopy read something else")


def qemu_io(server):
    said = ok([need("qemu-io"), "-f", "raw", "-c", "write -P 0x5a 4096 65536",
               "-c", "write -z 8192 4096", "-c", "discard 16384 4096", "-c", "flush",
               "-c", "read -P 0x5a 4096 4096", "-c", "read -P 0 8192 4096",
               "-c", "read -P 0 16384 4096", "-c", "read -P 0x5a 20480 49152",
               "-c", "aio_write -P 1 1M 3M", "-c", "aio_flush", "-c", "read -P 1 1M 3M", server.uri])
    expect("failed" not in said.lower(), f"qemu-io: {said}")


def fio(server):
    """Writes every block at random and reads it back, with checksums; then a mix."""
    for job in fio_job.run_jobs(server.uri, "verify", SIZE):
        expect(job.write.ops > 0, "fio's verify wrote nothing")
    expect(fio_job.run_job(server.uri, "mixed-4k-qd32", SIZE, 1).read.ops > 1000, "fio's mix")


def test():
    source = content.Source(content.Corpus(harness.seeded()))
    for tcp in (None, ("127.0.0.1", 0)):
        # Over TCP, a client that does not read for longer than the timeout is gone.
        server = servers.Server(size=str(SIZE), memory="128M", tcp=tcp,
                                options=["--timeout", "60"] if tcp else []).start()
        if tcp:
            server.tcp = (tcp[0], int(server.log().rpartition(":")[2]))
        info(server, tcp is None)
        old_handshake(server)
        copy(server, source, 4 if tcp is None else 1)
        qemu_io(server)
        if tcp is None:
            fio(server)
        expect(server.alive(), "the server died")
        server.check()
        expect(server.stop() == 0, "SIGTERM does not end it with 0")


harness.main(test)
