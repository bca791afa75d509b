#!/usr/bin/python3
"""content_can_fail: every test of the suite `content` must fail where one page in 100,000 is lost.

Sets up such a build inside this one's directory (kept, so that the next run is quick), runs the
suite there, and looks at each verdict: FAIL, and not because it could not start. That the same
tests pass where nothing is lost is the rest of the suite's business.
"""

import json
import os
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import harness  # noqa: E402
from harness import expect, need, run  # noqa: E402

LOSE = 100_000


def build(directory):
    if not os.path.exists(os.path.join(directory, "build.ninja")):
        done = run([need("meson"), "setup", directory, harness.SOURCE, f"-Dlose_pages={LOSE}"], 120)
        expect(done.returncode == 0, f"meson setup: {done.stdout[-2000:]}")
    done = run([need("ninja"), "-C", directory], 900)
    expect(done.returncode == 0, f"ninja: {done.stdout[-3000:]}")


def verdicts(directory):
    """Result and output by test."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("FARSWAP_", "MESON"))}
    run([need("meson"), "test", "-C", directory, "--no-rebuild", "--suite", "content"], 1500,
        env=environment)
    with open(os.path.join(directory, "meson-logs/testlog.json")) as log:
        tests = [json.loads(line) for line in log]
    return {test["name"]: (test["result"], test.get("stdout", "")) for test in tests}


def test():
    directory = os.path.join(harness.BUILD, "lose-pages")
    build(directory)
    tests = verdicts(directory)
    expect(len(tests) >= 6, f"only {len(tests)} tests are in the suite: {list(tests)}")
    blind = []
    for name, (result, output) in tests.items():
        last = [line for line in output.splitlines() if "wrong" in line or "FAILED" in line][-1:]
        print(f"{result:8} {name}: {' '.join(last)[:120]}", flush=True)
        # A threaded test may hang once a thread of it found a wrong page and left.
        if result != "FAIL" and not (result == "TIMEOUT" and last):
            blind.append(name)
    expect(not blind, f"these lost pages and did not notice (or never ran): {blind}")
    unstarted = [name for name, (_, output) in tests.items() if "is not built" in output]
    expect(not unstarted, f"these never started: {unstarted}")


harness.main(test)
