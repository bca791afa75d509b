#!/usr/bin/python3
"""scripts/run --keep is refused where swap would be served through nbdfuse, which locks no memory."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main  # noqa: E402


def keep():
    if os.path.exists("/dev/nbd0"):
        print("this kernel has nbd: here --keep is allowed (the guest test covers it)")
        return
    run = runner.Run("--keep", *runner.SMALL)
    run.expect_status(1)
    expect("--keep needs a kernel with nbd" in run.said(), run.said())
    runner.expect_nothing_remains()


main(keep)
