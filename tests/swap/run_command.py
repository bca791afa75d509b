#!/usr/bin/python3
"""scripts/run -- COMMAND: its stdin, stdout and status are the command's, and its RAM is limited."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main  # noqa: E402

# 60 MB of different words, all read again: more than the 30 MiB it gets.
GREEDY = """
import array
words = array.array('Q', range(8_000_000))
print(sum(words))
print([line for line in open('/proc/self/status') if line.startswith('VmSwap')][0].split()[1])
"""


def command():
    read_end, write_end = os.pipe()
    os.write(write_end, b"through\n")
    os.close(write_end)
    run = runner.Run(*runner.SMALL, "--", "sh", "-c", "cat; echo out; exit 7", stdin=read_end)
    output = run.expect_status(7)
    expect(output == "through\nout\n", f"the command's output came back as {output!r}")

    run = runner.Run(*runner.SMALL, "--", "sh", "-c", "kill -9 $$")
    run.expect_status(137)

    run = runner.Run(*runner.SMALL, "--limit", "30M", "--", "/usr/bin/python3", "-c", GREEDY)
    total, swapped = run.expect_status(0).split()
    expect(int(total) == sum(range(8_000_000)), f"wrong sum {total}")
    expect(int(swapped) > 20_000, f"only {swapped} KiB of the command were swapped out")

    # What a command leaves running in the squeeze ends with it.
    run = runner.Run(*runner.SMALL, "--", "sh", "-c", f"setsid sh -c 'sleep 1000; : {runner.workdir()}' & true")
    run.expect_status(0)
    runner.expect_nothing_remains()


main(command)
