"""fio: the jobs of tests/fio on an NBD server (fio's nbd engine) or a block device (io_uring, direct).

    figures = run(device, "randread-4k-qd32", size, seconds)
    figures["iops"], ["mb"] (MB/s), ["p50"], ["p99"] (us), ["server_us"], ["client_us"] (CPU an operation)

A device has a `uri` (an NBD URI or a path) and, if a process serves it, a `pid`.
"""

import json
import os
import subprocess

import harness

JOBS = ["write-128k-qd8", "randwrite-4k-qd32", "randread-4k-qd32", "randread-4k-qd1",
        "read-128k-qd8", "mixed-4k-qd32"]
_HERE = os.path.join(harness.SOURCE, "tests/fio")
_TICK = os.sysconf("SC_CLK_TCK")


def in_bytes(job):
    """Is it a job whose figure is MB/s?"""
    return "128k" in job


def _where(uri):
    if "://" in uri:
        return ["--ioengine=nbd", f"--uri={uri}"]
    return ["--ioengine=io_uring", "--direct=1", f"--filename={uri}"]


def _fio(uri, size, arguments):
    argv = ["fio", "--output-format=json", "--name=global", *_where(uri), f"--size={size}",
            *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=_HERE)
    start = done.stdout.find("\n{") + 1  # the nbd engine prints a line before the JSON
    harness.expect(done.returncode == 0 and done.stdout[start:start + 1] == "{",
                   f"{' '.join(argv)}\n{done.stderr or done.stdout[-2000:]}")
    return json.loads(done.stdout[start:])["jobs"][0]


def _cpu_us(device):
    """User and system time of the server so far; 0 where the kernel serves."""
    pid = getattr(device, "pid", None)
    if pid is None:
        return 0
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / _TICK


def run(device, job, size, seconds):
    before = _cpu_us(device)
    stats = _fio(device.uri, size, ["--time_based=1", f"--runtime={int(seconds * 1000)}ms",
                                    f"{job}.fio"])
    server = _cpu_us(device) - before
    sides = [stats["read"], stats["write"]]
    ops = sum(side["total_ios"] for side in sides)
    main = max(sides, key=lambda side: side["total_ios"])
    percentiles = main.get("clat_ns", {}).get("percentile", {})
    client = (stats["usr_cpu"] + stats["sys_cpu"]) / 100 * stats["job_runtime"] * 1000
    return {"iops": sum(side["iops"] for side in sides),
            "mb": sum(side["bw_bytes"] for side in sides) / 1e6,
            "p50": percentiles.get("50.000000", 0) / 1e3,
            "p99": percentiles.get("99.000000", 0) / 1e3,
            "server_us": server / ops, "client_us": client / ops}


def fill(device, size):
    """Every byte once, so that no read finds a hole."""
    _fio(device.uri, size, ["write-128k-qd8.fio"])


def _randwrite(device, size, percent, *more):
    _fio(device.uri, size, ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--refill_buffers",
                            f"--buffer_compress_percentage={percent}", "--thread",
                            "--buffer_compress_chunk=4k", *more, "--name=churn"])


def overwrite(device, size):
    """As many pages as it has, drawn at random, with what fill() writes."""
    _randwrite(device, size, 60, "--norandommap", "--randrepeat=0")


def churn(device, size, times):
    """Overwrites the device `times` times in random order with contents of changing
    compressibility, and at last every page once, in random order, with what fill() writes: what is
    measured then differs from a fresh device in nothing but its past."""
    percents = [20, 85, 45, 70, 10, 60, 30, 75]
    for turn in range(times - 1):
        _randwrite(device, size, percents[turn % len(percents)], "--norandommap", "--randrepeat=0")
    _randwrite(device, size, 60)
