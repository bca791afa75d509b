#!/usr/bin/python3
"""scripts/run says what is wrong with its options in its first line, before it makes anything."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import runner  # noqa: E402
from harness import expect, main  # noqa: E402

WRONG = {
    ("--bogus",): "unknown: --bogus",
    ("frobnicate",): "unknown: frobnicate",
    ("--size",): "--size needs a value",
    ("--size", "large"): "--size large is not a size",
    ("--size=",): "is not a size",
    ("--memory", "12parsec"): "--memory 12parsec is not a size",
    ("--memory", "0%"): "--memory 0% is not a size",
    ("--limit", "-1", "--", "true"): "--limit -1 is not a size",
    ("--limit", "30M"): "--limit is for a COMMAND",
    ("--memory", "1G", "--size", "2G"): "--size must be at least",
    ("--",): "no command after --",
    ("--size", "64M", "--memory", "24M", "--codec", "gif", "--", "true"): "codec",
    ("--size", "64M", "--memory", "24M", "--overflow", "gopher://x", "--", "true"): "overflow",
    ("--size", "67108865", "--memory", "24M", "--", "true"): "4096",
}


def options():
    for arguments, text in WRONG.items():
        run = runner.Run(*arguments)
        run.expect_status(1)
        expect(text in run.said(), f"{arguments}: no '{text}' in: {run.said()}")
        runner.expect_nothing_remains()
    output = runner.Run("--help").expect_status(0)
    for option in ("--size", "--memory", "--codec", "--overflow", "--keep", "--stop", "COMMAND"):
        expect(option in output, f"--help says nothing of {option}")


main(options)
