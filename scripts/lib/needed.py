#!/usr/bin/python3
"""needed.py: the files that the tests of one suite need built.

    needed.py BUILD SUITE      prints them on one line, as ninja wants them
"""

import json
import os
import subprocess
import sys


def introspect(build, what):
    return json.loads(subprocess.run(["meson", "introspect", build, what], check=True,
                                     capture_output=True).stdout)


build, suite = sys.argv[1:]
tests = [test for test in introspect(build, "--tests")
         if suite in (name.split(":")[-1] for name in test["suite"])]
wanted = {target for test in tests for target in test["depends"]}
files = [name for target in introspect(build, "--targets") if target["id"] in wanted
         for name in target["filename"]]
print(*sorted(os.path.relpath(name, os.path.abspath(build)) for name in files))
sys.exit(0 if tests else f"{build}: no test is in the suite {suite}")
