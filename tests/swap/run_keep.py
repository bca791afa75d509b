#!/usr/bin/python3
"""scripts/run --keep through FUSE: swap stays on when the script has ended, also when its server is
killed, until --stop takes all of it away. (Through nbd: the guest test.)"""

import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main, wait_for  # noqa: E402


def keep():
    if os.path.exists("/dev/nbd0"):
        print("this kernel has nbd: the guest test covers it")
        return
    run = runner.Run("--keep", *runner.SMALL)
    run.expect_status(0)
    expect("swap stays on" in run.said(), run.said())
    runner.note_images()
    devices = runner.swaps()
    expect(len(devices) == 1, f"swap is on for {devices}")
    wait_for(lambda: len(runner.servers()) == 2, 60, "a server and a spare")
    os.kill(runner.servers()[0], signal.SIGKILL)
    done = subprocess.run(["dd", f"if={devices[0]}", "of=/dev/null", "bs=1M", "iflag=direct"],
                          capture_output=True, text=True, timeout=300, check=False)
    expect(done.returncode == 0, f"reading {devices[0]} after a kill: {done.stderr}")
    second = runner.Run(*runner.SMALL)
    second.expect_status(1)
    expect("is kept on here since" in second.said(), second.said())
    runner.Run("--stop").expect_status(0)
    runner.expect_nothing_remains()


main(keep)
