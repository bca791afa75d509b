#!/usr/bin/python3
"""fuse-files: the folder that farswap-fuse mounts, as people use it: ls, cat, echo, and mistakes.

What stands in the files is compared with `farswap stats`, and their form with zram's, as far as
this kernel has one to show.
"""

import errno
import glob
import json
import os
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import content  # noqa: E402
import fuse  # noqa: E402
import harness  # noqa: E402
import servers  # noqa: E402
from harness import PAGE, expect, run, wait_for  # noqa: E402

SIZE = 64 << 20
VDSO = 64 << 10  # at most: what the kernel maps into every process, and does not lock
READ_ONLY = ["backing_dev", "bd_stat", "initstate", "io_stat", "mm_stat", "stats"]
WRITE_ONLY = ["compact", "idle", "mem_used_max", "writeback"]
BOTH = ["accept_threshold_percent", "comp_algorithm", "compressor", "disksize", "max_comp_streams", "max_pool_percent",
        "mem_limit", "writeback_limit", "writeback_limit_enable"]


def fails(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        expect(error.errno == number, f"{call.__name__}{arguments}: {error}, not {errno.errorcode[number]}")
        return
    raise harness.Failed(f"{call.__name__}{arguments} succeeded, not {errno.errorcode[number]}")


def folder(door):
    names = sorted(os.listdir(door.mount))
    expect(names == sorted(["disk"] + READ_ONLY + WRITE_ONLY + BOTH), f"the folder has {names}")
    info = os.stat(door.disk)
    expect(info.st_size == SIZE and info.st_mode == 0o100600, f"disk is {info}")
    fails(errno.ENOENT, os.stat, door.path("nothing"))
    fails(errno.ENOENT, os.stat, door.path("x" * 255))
    fails(errno.ENOSYS, os.mkdir, door.path("folder"))
    fails(errno.ENOSYS, os.unlink, door.path("mm_stat"))
    fails(errno.EPERM, os.chmod, door.path("disk"), 0o666)
    fails(errno.EINVAL, os.truncate, door.path("disk"), SIZE // 2)
    for name in READ_ONLY:
        fails(errno.EACCES, os.open, door.path(name), os.O_WRONLY)
    for name in WRITE_ONLY:
        fails(errno.EACCES, os.open, door.path(name), os.O_RDONLY)


def numbers(door, knob):
    return list(map(int, door.show(knob).split()))


def statistics(door):
    """After some pages: numbers that fit each other, and the command's."""
    source = content.Source(content.Corpus(harness.seeded()))
    disk = door.connect()
    disk.pwrite(source.bytes(100 * PAGE), 0)
    disk.pwrite(b"\x07" * (50 * PAGE), 200 * PAGE)
    disk.pwrite(os.urandom(10 * PAGE), 300 * PAGE)
    disk.trim(20 * PAGE, 0)
    wanted = ["orig_data_size", "compr_data_size", "mem_used_total", "mem_limit", "mem_used_max",
              "same_pages", "pages_compacted", "huge_pages", "huge_pages_since"]
    wait_for(lambda: numbers(door, "mm_stat") == [door.counters()[name] for name in wanted], 60,
             f"mm_stat to be what farswap stats says: {door.show('mm_stat')} {door.counters()}")
    mm = numbers(door, "mm_stat")
    expect(mm[0] == 140 * PAGE and mm[5] == 50 and mm[7] >= 10, f"mm_stat is {mm}")
    fails(errno.EFBIG, disk.trim, PAGE, SIZE)
    expect(numbers(door, "io_stat") == [0, 0, 1, 20], f"io_stat is {numbers(door, 'io_stat')}")
    expect(numbers(door, "bd_stat") == [0, 0, 0], f"bd_stat is {numbers(door, 'bd_stat')}")
    shown = dict(line.split() for line in door.show("stats").splitlines())
    names = set(door.counters())
    expect(set(shown) == names, f"stats and farswap stats differ: {set(shown) ^ names}")
    with open(door.path("mm_stat"), "rb") as file:  # in small pieces
        text = b"".join(iter(lambda: os.read(file.fileno(), 3), b""))
    expect(text.decode() == door.show("mm_stat"), "small reads give another text")


def like_zram(door):
    """The same number of fields in lines of the same form, where the kernel has a zram to show."""
    for zram in glob.glob("/sys/block/zram*")[:1]:
        for knob in ("mm_stat", "io_stat", "bd_stat"):
            if os.path.exists(f"{zram}/{knob}"):
                with open(f"{zram}/{knob}") as file:
                    theirs = file.read()
                ours = door.show(knob)
                expect(len(theirs.split()) == len(ours.split()) and ours.count("\n") == 1,
                       f"{knob}: zram's is {theirs!r}, ours is {ours!r}")


def settings(door):
    expect("[lz4]" in door.show("comp_algorithm"), door.show("comp_algorithm"))
    door.store("comp_algorithm", "zstd:3")
    expect("[zstd:3]" in door.show("comp_algorithm"), door.show("comp_algorithm"))
    fails(errno.EINVAL, door.store, "comp_algorithm", "gzip")
    door.store("mem_limit", "80M")
    expect(door.show("mem_limit") == f"{80 << 20}\n", door.show("mem_limit"))
    wait_for(lambda: door.counters()["mem_limit"] == 80 << 20, 60, "the limit to be followed")
    fails(errno.EINVAL, door.store, "mem_limit", "much")
    fails(errno.ENOSPC, door.store, "mem_limit", "0")  # less than is in use
    like_zswap(door)
    fails(errno.EBUSY, door.store, "disksize", "1G")
    expect(door.show("disksize") == f"{SIZE}\n", door.show("disksize"))
    door.store("mem_used_max", "0")
    fails(errno.EINVAL, door.store, "mem_used_max", "1")
    door.store("compact", "1")
    expect(door.show("initstate") == "1\n" and door.show("backing_dev") == "none\n", "what it is")
    door.store("idle", "all")
    for text in ("some", "-1", ""):
        fails(errno.EINVAL, door.store, "idle", text)
    fails(errno.ENODEV, door.store, "writeback", "huge")
    done = run(["/bin/sh", "-c", f"echo lz4 >{door.path('comp_algorithm')} && "
                f"cat {door.path('comp_algorithm')}"])
    expect("[lz4]" in done.stdout, f"echo and cat: {done.stdout}{done.stderr}")


def like_zswap(door):
    """What zswap calls parameters, in words that it understands."""
    expect(door.show("compressor") == "zstd:3\n", door.show("compressor"))
    door.store("compressor", "lz4")
    expect(door.show("compressor") == "lz4\n" and "[lz4]" in door.show("comp_algorithm"), door.show("compressor"))
    fails(errno.EINVAL, door.store, "compressor", "gzip")
    for percent in (5, 1):
        door.store("max_pool_percent", str(percent))
        expect(door.show("max_pool_percent") == f"{percent}\n", door.show("max_pool_percent"))
        ram = os.sysconf("SC_PHYS_PAGES") * PAGE
        expect(abs(int(door.show("mem_limit")) - ram * percent // 100) < ram // 1000, door.show("mem_limit"))
    door.store("mem_limit", "80M")
    expect(80 <= numbers(door, "accept_threshold_percent")[0] < 100, door.show("accept_threshold_percent"))
    for percent in (90, 98, 40):
        door.store("accept_threshold_percent", str(percent))
        expect(numbers(door, "accept_threshold_percent") == [percent], door.show("accept_threshold_percent"))
        shown = door.cli("status", "--json", door.parameters["name"]).stdout
        start, stop = map(int, json.loads(shown)[0]["settings"]["watermarks"].split(":"))
        expect(stop == percent < start < 100, f"watermarks={start}:{stop}")
    for knob in ("max_pool_percent", "accept_threshold_percent"):
        for text in ("0", "101", "all", ""):
            fails(errno.EINVAL, door.store, knob, text)


def limits(door, model, disk):
    """As zram's documentation does it: a budget, and what is left of it. Nothing is in the pool."""
    def left():
        return int(door.show("writeback_limit"))

    expect(door.show("writeback_limit_enable") == "0\n", "there is a limit that nobody set")
    door.store("writeback_limit_enable", "1")
    expect(left() == 0, f"nothing was given, and {left()} is left")
    model.write(disk, 0, os.urandom(PAGE))
    door.store("idle", "0")
    fails(errno.EDQUOT, door.store, "writeback", "idle")
    door.store("writeback_limit", "100")
    expect(left() == 100, f"{left()} of 100 are left at once")
    door.store("writeback", "idle")
    expect(door.counters()["pages_pool"] == 0 and 97 <= left() <= 99, f"{left()} of 100 are left")
    door.cli("set", door.parameters["name"], "overflow_limit=1M")
    expect(left() == 256, f"{left()} of a day's 1M are left")
    for text in ("2", "-1", ""):
        fails(errno.EINVAL, door.store, "writeback_limit_enable", text)
    for text in ("1M", "-1", ""):
        fails(errno.EINVAL, door.store, "writeback_limit", text)
    expect(door.show("writeback_limit_enable") == "1\n" and left() == 256, "what was refused counts")
    door.store("writeback_limit_enable", "0")
    model.check(disk, 0, PAGE)


def writeback():
    """As zram's documentation does it: mark, use some, write back; and huge pages."""
    donor = servers.Donor()
    door = fuse.Fuse(size=str(SIZE), memory="96M", overflow=donor.uri).start()
    expect(door.show("backing_dev") == f"{donor.uri}\n", door.show("backing_dev"))
    disk, model = door.connect(), content.Model(SIZE)
    source = content.Source(content.Corpus(harness.seeded()))
    for page in range(200):
        model.write(disk, page * PAGE, source.bytes(PAGE))
    model.write(disk, 1000 * PAGE, os.urandom(50 * PAGE))
    for text in ("idle", "huge_idle", "type=idle"):
        door.store("writeback", text)
    expect(numbers(door, "bd_stat")[0] == 0, f"nothing is marked, and {door.show('bd_stat')} left")
    for text in ("all", "page_index=7", "type=", ""):
        fails(errno.EINVAL, door.store, "writeback", text)
    door.store("idle", "all")
    model.check(disk, 0, 20 * PAGE)
    model.write(disk, 1000 * PAGE, os.urandom(10 * PAGE))
    stays = 10 + sum(len(set(model.bytes[n * PAGE:(n + 1) * PAGE])) > 1 for n in range(20))
    before = door.counters()["pages_pool"]
    door.store("writeback", "huge_idle")
    expect(door.counters()["pages_store"] >= 40 and door.counters()["pages_pool"] == before -
           door.counters()["pages_store"] >= 100, f"huge_idle: {door.counters()}")
    door.store("writeback", "idle")
    counters = door.counters()
    expect(counters["pages_pool"] == stays and counters["pages_store"] == before - stays,
           f"idle: {stays} pages should have stayed of {before}: {counters}")
    expect(numbers(door, "bd_stat")[0] == counters["pages_store"], door.show("bd_stat"))
    door.store("writeback", "huge")
    expect(door.counters()["huge_pages"] == 0, "huge pages stay")
    door.store("idle", "0")
    door.store("writeback", "type=idle")
    expect(door.counters()["pages_pool"] == 0, "idle for 0 s is every page")
    model.check_all(disk, 4 << 20)
    limits(door, model, disk)
    model.write(disk, 0, os.urandom(PAGE))
    door.store("idle", "all")
    donor.process.kill()
    donor.process.wait()
    fails(errno.EIO, door.store, "writeback", "idle")
    disk.shutdown()
    door.stop()
    door.cli("destroy", "--local", door.parameters["name"])


def locked():
    """Nothing that serves pages, or sees to it that they are served, can be paged out itself."""
    door = fuse.Fuse(supervise=True).start()
    wait_for(lambda: len(door.servers()) == 2, 60, "a server and a spare")
    for pid in (door.pid, *door.servers()):
        wait_for(lambda pid=pid: servers.locked(pid) + VDSO >= servers.resident(pid), 60, f"locked memory in {pid}")
    expect(door.stop() == 0, f"it ended with {door.process.returncode}")


def nobody(door):
    """Another user sees what sysfs would show, and changes nothing."""
    os.chmod(harness.workdir(), 0o711)
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = run(as_nobody + ["cat", door.path("mm_stat")])
    expect(done.returncode == 0, f"nobody can't read mm_stat: {done.stderr}")
    for command in (f"cat {door.disk}", f"echo 1 >{door.path('compact')}"):
        done = run(as_nobody + ["/bin/sh", "-c", command])
        expect(done.returncode != 0 and "ermission denied" in done.stderr, f"nobody could: {command}")


def ends(door):
    """Busy: it stays, and says why. Free: it goes, and so does the mount; the image stays."""
    disk = door.connect()
    door.process.terminate()
    wait_for(lambda: "is in use and stays" in door.log(), 60, "a refusal to end")
    disk.pread(PAGE, 0)
    disk.shutdown()
    expect(door.stop() == 0, f"it ended with {door.process.returncode}")
    expect(not fuse.is_mounted(door.mount), "the mount is still there")
    expect(door.image_row() is not None, "the image is gone")


def again(old):
    """The image goes on, with its name alone; an unmount from outside ends the server."""
    door = fuse.Fuse(name=old.parameters["name"], size=None, memory=None, codec=None)
    door.start()
    expect(door.show("disksize") == f"{SIZE}\n", "another size")
    expect(numbers(door, "mm_stat")[5] == 50, "pages are missing")
    fuse.unmount(door.mount)
    expect(door.process.wait(60) == 0, f"it ended with {door.process.returncode} after an unmount")


def images():
    """Of this test: files, and shared memory that they name."""
    folder = os.path.join(harness.workdir(), "run")
    return {name for name in os.listdir(folder) if name.endswith(".image")}


def hides(door):
    """A mount over what its servers open: they would wait for themselves."""
    run_dir, state_dir = door.environment()["FARSWAP_RUNDIR"], door.environment()["FARSWAP_STATEDIR"]
    for supervise in (False, True):
        for mount, what in ((run_dir, "FARSWAP_RUNDIR"), (harness.workdir(), "FARSWAP_RUNDIR"), ("/", "FARSWAP_RUNDIR"),
                            (state_dir, "FARSWAP_STATEDIR"), (state_dir + "/../state", "FARSWAP_STATEDIR")):
            hiding = fuse.Fuse(supervise=supervise)
            hiding.mount = mount
            line = hiding.refusal()
            expect(f"would hide {what} " in line and
                   f"{run_dir}/{hiding.name}.mnt" in line, line)
    hiding = fuse.Fuse()
    hiding.parameters["overflow"] = f"file:{hiding.mount}/store"
    expect("would hide the file of overflow=" in hiding.refusal(), "a store in the mount")
    linked = fuse.Fuse()
    os.rmdir(linked.mount)
    os.symlink(run_dir, linked.mount)
    expect("would hide FARSWAP_RUNDIR" in linked.refusal(), "a link to what is hidden")
    os.unlink(linked.mount)
    expect(not fuse.is_mounted(run_dir) and not fuse.is_mounted(state_dir), "it is mounted")


def refusals(door):
    """One line each, and nothing left behind."""
    before = images()
    for parameters, text in (({"size": "many"}, "size="), ({"codec": "gzip"}, "codec="),
                             ({"memory": "1"}, "memory")):
        line = fuse.Fuse(**parameters).refusal()
        expect(text in line, f"{parameters}: {line}")
    hides(door)
    nowhere = fuse.Fuse()
    os.rmdir(nowhere.mount)
    expect("No such file" in nowhere.refusal(), "a mount point that is not there")
    for arguments in ([], [door.mount], ["--supervise", door.mount], ["--wrong", door.mount, "x"],
                      ["--fuse-fds=x", door.mount, "x"]):
        done = run([harness.built(fuse.Fuse.PATH)] + arguments)
        expect(done.returncode == 2 and "usage:" in done.stderr, f"{arguments}: {done}")
    expect(images() == before, f"refusals left images: {images() - before}")


def test():
    fuse.alone()
    door = fuse.Fuse(size=str(SIZE), memory="96M").start()
    folder(door)
    statistics(door)
    like_zram(door)
    settings(door)
    writeback()
    nobody(door)
    ends(door)
    again(door)
    refusals(door)
    if servers.sanitizer() is None:  # which make mlockall() do nothing
        locked()


harness.main(test)
