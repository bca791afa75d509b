#!/usr/bin/python3
"""Ctrl-C, TERM and HUP in the middle of the demonstration: swap goes off before its server stops,
and nothing remains."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main, run  # noqa: E402


def kernel_complaints():
    return [line for line in run(["dmesg"]).stdout.splitlines()
            if any(device[5:] in line for device in complained_devices) and "error" in line.lower()]


complained_devices = set()


def signals():
    for number, status in runner.STOP_SIGNALS.items():
        demo = runner.Run(*runner.SMALL)
        demo.wait_said("  fill ")  # its pages are on the device now
        complained_devices.update(runner.swaps())
        before = kernel_complaints()
        demo.signal(number)
        demo.expect_status(status)
        runner.expect_in_order(demo.said(), number.name, "swap off:", "server stopped",
                               "donor stopped")
        runner.expect_nothing_remains()
        expect(kernel_complaints() == before, f"the kernel says {kernel_complaints()}")


main(signals)
