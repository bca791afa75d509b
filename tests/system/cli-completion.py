#!/usr/bin/python3
"""cli-completion: what bash offers for farswap, compared with what --help lists: every command, every
option of each, every parameter, and the devices that there are."""

import os
import re
import sys

sys.path.insert(0, sys.path[0] + "/lib")

import harness  # noqa: E402
import servers  # noqa: E402
from harness import built, expect, run  # noqa: E402

SCRIPT = os.path.join(harness.SOURCE, "client/cli/farswap.bash")


def offered(*words):
    """For the last word, as bash asks for it: the program's name is the one that was built."""
    program = built("client/cli/farswap")
    done = run(["bash", "--norc", "-c", '. "$0" && shift && COMP_WORDS=("$@") && COMP_CWORD=$(($# - 1))'
                ' && _farswap && printf "%s\\n" "${COMPREPLY[@]}"', SCRIPT, "-", program, *words],
               env=servers.image_environment())
    expect(done.returncode == 0 and not done.stderr, f"{words}: {done}")
    return set(filter(None, done.stdout.split("\n")))


def of_help(*arguments):
    return run([built("client/cli/farswap"), *arguments]).stdout


def same(what, got, wanted):
    expect(got == set(wanted), f"{what}: bash offers {sorted(got)}, --help has {sorted(wanted)}")


def commands():
    found = re.findall(r"^  farswap (\w+)", of_help("--help"), re.M)
    expect(len(found) > 8, f"--help lists {found} only")
    same("commands", offered(""), found + ["--help", "--version"])
    same("a beginning", offered("sta"), [name for name in found if name.startswith("sta")])
    for command in found:
        usage = of_help(command, "--help").splitlines()[0]
        same(f"options of {command}", offered(command, "-"),
             re.findall(r"--[a-z]+", usage) + ["--help"])


def names():
    server = servers.Plugin().start()
    name = server.parameters["name"]
    for command in ("up", "down", "status", "top", "stats", "check", "compact", "overflow", "set", "destroy",
                    "doctor"):
        same(f"devices for {command}", offered(command, ""), [name])
    same("devices after an option", offered("down", "--keep", ""), [name])
    same("devices after an option's value", offered("up", "--priority", "5", ""), [name])
    same("a priority", offered("up", "--priority", ""), [])
    same("seconds", offered("overflow", "--idle", ""), [])
    same("devices after seconds", offered("overflow", "--idle", "5", ""), [name])
    same("a door", offered("up", "--door", ""), ["nbd", "fuse"])
    same("a second device", offered("status", name, ""), [])
    same("of list", offered("list", ""), [])
    same("what set sets", offered("set", name, ""), ["memory=", "codec=", "prefetch=", "fetch_timeout=",
                                                    "watermarks=", "write_wait=", "read_age=", "huge=", "overflow_limit=",
                                                    "overflow-lost="])


def parameters():
    found = re.findall(r"^  ([a-z_-]+)=", run([built("client/fuse/farswap-fuse"), "--help"]).stdout, re.M)
    found.remove("name")
    same("parameters", offered("up", "swap0", ""), [name + "=" for name in found])


def registered():
    done = run(["bash", "--norc", "-c", '. "$0" && complete -p farswap', SCRIPT])
    expect("_farswap" in done.stdout, f"bash does not know of it: {done}")


def test():
    registered()
    commands()
    parameters()
    names()


harness.main(test)
