#!/usr/bin/python3
"""plugin-idle-memory: an idle 1 TiB device costs 32 MiB at most, image and server together.

Idle as swap is: mkswap's writes, swapon --discard's discards over all of it, and 64 GiB of it read
by four connections in requests of 32 MiB. Reading a page of shared memory that was never touched
would allocate it; nothing may do so. Measured once the connections have closed, and again after
kill -9 and a restart, as the kernel's own count of the segment (/proc/sysvipc/shm, rss) and of the
process without shared memory.
"""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import nbd  # noqa: E402

import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, wait_for  # noqa: E402

SIZE = 1 << 40
MIB = 1 << 20
LIMIT = 32 * MIB
READ = 64 << 30
READERS = 4
REQUEST = 32 * MIB


def cost(server):
    """Bytes of image and server."""
    image = server.image_row()
    expect(image is not None, "no image in /proc/sysvipc/shm")
    expect(image["size"] > MIB, "that is no image")
    return image["rss"], servers.resident(server.pid)


def say(server, when):
    image, process = cost(server)
    print(f"{when}: image {image / MIB:.1f} MiB, server {process / MIB:.1f} MiB", flush=True)
    return image + process


def as_swap(server):
    handle = server.connect()
    handle.pwrite(bytes(PAGE - 10) + b"SWAPSPACE2", 0)
    handle.pwrite(bytes(1024) + b"\1" + bytes(1023), 1024)
    handle.flush()
    largest = (4 << 30) - PAGE
    for offset in range(PAGE, SIZE, largest):
        handle.trim(min(largest, SIZE - offset), offset)
    for offset in range(SIZE // 4, SIZE // 2, 1 << 30):
        handle.zero(1 << 30, offset)
    expect(handle.pread(10, PAGE - 10) == b"SWAPSPACE2", "the header is lost")
    handle.shutdown()


def reader(server, number):
    """An equal share of the 64 GiB, spread over the whole device."""
    handle = server.connect()
    room = nbd.Buffer(REQUEST)
    count = READ // READERS // REQUEST
    for i in range(count):
        offset = (i * READERS + number) * (SIZE // (count * READERS)) // PAGE * PAGE
        if offset == 0:
            continue
        cookie = handle.aio_pread(room, offset)
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
        expect(room.is_zero(), f"not zero at {offset}")
    handle.shutdown()


def test():
    if servers.sanitizer():
        raise harness.Skip("a sanitizer's own memory is not the device's")
    server = servers.Plugin(size="1T", memory="2560M").start()
    say(server, "at the start")
    as_swap(server)
    say(server, "after mkswap and swapon --discard")
    workers = [harness.Worker(reader, server, i) for i in range(READERS)]
    for worker in workers:
        worker.join(600)
    say(server, "after 64 GiB of reads")
    server.check()
    wait_for(lambda: sum(cost(server)) <= LIMIT or not server.alive(), 60,
             f"the device to cost {LIMIT // MIB} MiB at most; it is "
             f"{say(server, 'and after farswap check') / MIB:.1f} MiB")
    expect(server.alive(), "the server died")
    name = server.parameters["name"]
    server.kill()
    server = servers.Plugin(name=name, size=None, memory=None, codec=None).start()
    expect(server.connect().pread(10, PAGE - 10) == b"SWAPSPACE2", "the header is lost")
    wait_for(lambda: sum(cost(server)) <= LIMIT, 60,
             f"the device to cost {LIMIT // MIB} MiB at most after a restart; it is "
             f"{say(server, 'after kill -9 and a restart') / MIB:.1f} MiB")


harness.main(test)
