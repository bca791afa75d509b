#!/usr/bin/python3
"""together.py SCRIPT...: tests that mostly wait, beside one another. Each is a test of its own, which
cleans up after itself; what it says is shown when it ends. Passes if all do."""

import os
import sys
import time

sys.path.insert(0, sys.path[0] + "/../system/lib")

import harness  # noqa: E402
from harness import SKIPPED, Failed, Skip, expect, spawn, workdir  # noqa: E402


class Part:
    def __init__(self, script):
        self.name = os.path.basename(script).removesuffix(".py")
        self.output = os.path.join(workdir(), f"{self.name}.output")
        self.process = spawn([sys.executable, script], log=f"{self.name}.output")

    def ended(self):
        """Says how, once."""
        if self.process.poll() is None:
            return False
        with open(self.output, errors="replace") as file:
            print(f"==== {self.name}: status {self.process.returncode}", file.read(), sep="\n", flush=True)
        return True


def test():
    running = [Part(script) for script in sys.argv[1:]]
    expect(running, "no script was named")
    failed, skipped = [], []
    while running:
        for part in [part for part in running if part.ended()]:
            running.remove(part)
            if part.process.returncode == SKIPPED:
                skipped.append(part.name)
            elif part.process.returncode != 0:
                failed.append(part.name)
        time.sleep(0.1)
    if failed:
        raise Failed(f"failed: {', '.join(failed)}")
    if skipped:
        raise Skip(f"could not be run: {', '.join(skipped)}")


harness.main(test)
