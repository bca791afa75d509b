"""fio_job: runs the jobs of this directory on an NBD URI or a block device and reads fio's JSON.

    job = run_job("nbd+unix:///?socket=S", "randread-4k-qd32", size, seconds=5)
    job.read.iops, job.write.mb_per_second, job.read.p99_us
"""

import json
import os
import stat
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))

# In the order a person wants to read them; verify ends by itself, the others by time.
JOBS = ["write-128k-qd8", "randwrite-4k-qd32", "randread-4k-qd32", "randread-4k-qd1",
        "read-128k-qd8", "mixed-4k-qd32", "verify"]
_UNTIMED = {"verify"}


class FioFailed(Exception):
    """fio said no, or a block came back wrong; the text is fio's."""


class Side:
    """The reads or the writes of a job."""

    def __init__(self, stats):
        self.ops = stats["total_ios"]
        self.iops = stats["iops"]
        self.mb_per_second = stats["bw_bytes"] / 1e6
        percentiles = stats.get("clat_ns", {}).get("percentile", {})
        self.p50_us = percentiles.get("50.000000", 0) / 1e3
        self.p99_us = percentiles.get("99.000000", 0) / 1e3


class Job:
    def __init__(self, stats):
        self.name = stats["jobname"]
        self.read, self.write = Side(stats["read"]), Side(stats["write"])


def is_uri(target):
    return "://" in target


def size_of(target):
    """Bytes of an NBD export or a block device."""
    if is_uri(target):
        done = subprocess.run(["nbdinfo", "--size", target], capture_output=True, text=True)
        if done.returncode != 0:
            raise FioFailed(done.stderr.strip())
        return int(done.stdout)
    with open(target, "rb") as device:
        if not stat.S_ISBLK(os.fstat(device.fileno()).st_mode):
            raise FioFailed(f"{target} is neither an NBD URI nor a block device")
        return device.seek(0, os.SEEK_END)


def _where(target):
    if is_uri(target):
        return ["--ioengine=nbd", f"--uri={target}"]
    return ["--ioengine=libaio", "--direct=1", f"--filename={target}"]


def _fio(target, size, arguments):
    argv = ["fio", "--output-format=json", "--name=global", *_where(target), f"--size={size}",
            *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=HERE)
    start = done.stdout.find("\n{")  # the nbd engine prints a line before the JSON
    report = done.stdout[start + 1:] if start >= 0 else done.stdout
    if done.returncode != 0 or not report.startswith("{"):
        raise FioFailed(f"{' '.join(argv)}\n{done.stderr or done.stdout[-2000:]}")
    return [Job(stats) for stats in json.loads(report)["jobs"]]


def fill(target, size):
    """Writes every byte once, so that no read finds a hole."""
    _fio(target, size, ["write-128k-qd8.fio"])


def run_jobs(target, name, size, seconds=5):
    """Runs a job file; a list, since a file may hold several jobs."""
    timed = [] if name in _UNTIMED else ["--time_based=1", f"--runtime={seconds}"]
    return _fio(target, size, timed + [f"{name}.fio"])


def run_job(target, name, size, seconds=5):
    return run_jobs(target, name, size, seconds)[0]
