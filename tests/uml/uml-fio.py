#!/usr/bin/python3
"""uml-fio: the fio jobs of tests/fio on /dev/nbd0 of a real kernel, against the server over TCP.

Every timed job runs for a second or so, the verify job to its end, all with O_DIRECT through the
guest's kernel nbd client. It passes when fio reports no error, each job did some operations, and
the guest's kernel complained of nothing.
"""

import glob
import os
import re

import guest as uml
import harness
import servers
from harness import expect

FIO = os.path.join(harness.SOURCE, "tests/fio")
SIZE = "96M"

SCRIPT = f"""
nbd-client -N '' -b 4096 -timeout 60 {uml.Net.host()} 10809 /dev/nbd0
cd /fio
options="--name=global --ioengine=libaio --direct=1 --filename=/dev/nbd0 --size={SIZE}"
fio $options write-128k-qd8.fio
for job in *.fio; do
    case $job in
        verify.fio) fio $options $job ;;
        *) fio $options --time_based=1 --runtime=2 $job ;;
    esac
done
nbd-client -d /dev/nbd0
"""


def test():
    net = uml.Net()
    server = servers.device(SIZE, "128M", prefix=net.prefix, tcp=(net.host(), 10809))
    files = {f"/fio/{os.path.basename(path)}": path
             for path in glob.glob(f"{FIO}/*.fio") + glob.glob(f"{FIO}/*.inc")}
    guest = uml.Guest(net, memory="192M", modules=["nbd"], programs=["nbd-client", "fio"],
                      files=files)
    result = guest.run(SCRIPT)
    result.expect_clean()
    for line in re.findall(r"^.*(?:err=|IOPS=).*$", result.output, re.M):
        print(line)
    jobs = re.findall(r"^(\S+): \(groupid=.*err= *(\d+)", result.output, re.M)
    expect(len(jobs) == len(glob.glob(f"{FIO}/*.fio")) + 2, f"fio reported on {len(jobs)} jobs")
    expect(all(error == "0" for _, error in jobs), f"fio reported errors: {jobs}")
    done = re.findall(r"issued rwts: total=(\d+),(\d+)", result.output)
    expect(len(done) == len(jobs) and all(int(reads) + int(writes) > 0 for reads, writes in done),
           f"a job did nothing: {done}")
    expect(server.alive(), "the server died")


harness.main(test)
