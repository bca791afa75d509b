#!/usr/bin/python3
"""Adds up the tests of several builds.

    tally.py [--may-skip FILE] [--broken NAME]... [--must-fail BUILD]... BUILD...

Reads BUILD/meson-logs/testlog.json. In a --must-fail build (one that loses pages) a test passes by
failing; it fails by passing, and by a timeout, which proves nothing. Last line: N passed, N failed,
N skipped. Status 0 only if nothing failed and something passed.
"""

import argparse
import json
import os
import sys

GOOD = {"OK", "EXPECTEDFAIL"}
CAUGHT = {"FAIL", "ERROR"}


def read_log(build):
    path = os.path.join(build, "meson-logs/testlog.json")
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as log:
        return [json.loads(line) for line in log if line.strip()]


def read_reasons(path):
    """Lines 'test name: reason' of tests that may be skipped also where CI=true."""
    if not path or not os.path.exists(path):
        return {}
    with open(path) as lines:
        pairs = (line.strip().partition(": ") for line in lines
                 if line.strip() and not line.startswith("#"))
        return {name: reason for name, _, reason in pairs if reason}


def reason_of(test):
    said = (test.get("stdout") or "") + (test.get("stderr") or "")
    marked = [line for line in said.splitlines() if "skip" in line.lower()]
    return (marked or said.splitlines() or ["no reason given"])[-1].strip()


class Tally:
    def __init__(self, may_skip):
        self.may_skip = may_skip
        self.passed = self.failed = self.skipped = 0

    def passes(self):
        self.passed += 1

    def fails(self, what, why):
        self.failed += 1
        print(f"FAILED   {what}: {why}")

    def skips(self, what, name, reason):
        if os.environ.get("CI") == "true" and name not in self.may_skip:
            self.fails(what, f"skipped, and CI=true allows it only by tests/may-skip: {reason}")
            return
        self.skipped += 1
        print(f"skipped  {what}: {reason}")

    def add(self, build, must_fail):
        label = os.path.basename(build.rstrip("/"))
        tests = read_log(build)
        if not tests:
            self.fails(label, "no tests were run there")
        for test in tests:
            name = test["name"].split(" / ")[-1]
            what, result = f"{label}: {name}", test["result"]
            if result == "SKIP":
                self.skips(what, name, reason_of(test))
            elif must_fail and result in CAUGHT:
                self.passes()
            elif must_fail:
                self.fails(what, f"{result}, although pages were lost: it looks away")
            elif result in GOOD:
                self.passes()
            else:
                self.fails(what, f"{result} after {test['duration']:.1f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--may-skip")
    parser.add_argument("--broken", action="append", default=[])
    parser.add_argument("--must-fail", action="append", default=[])
    parser.add_argument("builds", nargs="*")
    arguments = parser.parse_args()
    tally = Tally(read_reasons(arguments.may_skip))
    for name in arguments.broken:
        tally.fails(name, "could not be built")
    for build in arguments.builds:
        tally.add(build, False)
    for build in arguments.must_fail:
        tally.add(build, True)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    sys.exit(0 if tally.passed and not tally.failed else 1)


main()
