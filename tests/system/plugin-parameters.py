#!/usr/bin/python3
"""plugin-parameters: what is wrong at the start is said in one line that names what is allowed, and
leaves no image behind. And memory= in percent.
"""

import sys

sys.path.insert(0, sys.path[0] + "/lib")

import harness  # noqa: E402
import servers  # noqa: E402
from harness import expect  # noqa: E402

GONE = None  # a parameter that is left out

# Parameters, and words that the line must have: the culprit and what is allowed.
WRONG = [
    ({"frobnicate": "1"}, ["frobnicate", "size", "memory", "codec", "overflow"]),
    ({"size": "4097k"}, ["4097k", "multiple of 4096"]),
    ({"size": "16777217"}, ["16777217", "multiple of 4096"]),
    ({"size": "2M"}, ["2M", "4M", "16T"]),
    ({"size": "17T"}, ["17T", "4M", "16T"]),
    ({"size": "big"}, ["big"]),
    ({"size": GONE}, ["size"]),
    ({"memory": "900T"}, ["memory", "vailable"]),
    ({"memory": "32M", "size": "1T"}, ["memory", "32 MiB", "1 TiB"]),
    ({"memory": "0"}, ["memory"]),
    ({"memory": "101%"}, ["101%", "100%"]),
    ({"memory": "much"}, ["much"]),
    ({"codec": "lzo"}, ["lzo", "lz4", "raw"]),
    ({"name": "a/b"}, ["a/b", "A-Z"]),
    ({"name": ".."}, [".."]),
    ({"name": "x" * 64}, ["63"]),
    ({"name": GONE}, ["name"]),
    ({"overflow": "http://127.0.0.1"}, ["http://127.0.0.1", "resp://"]),
    ({"overflow": "resp://127.0.0.1:1"}, ["127.0.0.1:1"]),
    ({"overflow": "resp+unix:///nowhere/at/all"}, ["/nowhere/at/all"]),
    ({"overflow": "crypt+resp://127.0.0.1:6390", "overflow_plaintext": "yes"},
     ["crypt+resp", "overflow-plaintext=yes"]),
    ({"overflow": "resp://127.0.0.1:6390", "overflow_plaintext": "perhaps"}, ["perhaps"]),
    ({"overflow_password": "secret"}, ["+FILE"]),
]


def refused(parameters, words):
    server = servers.Plugin(**parameters)
    line = server.refusal()
    print(line)
    for word in words:
        expect(word in line, f"{parameters}: the line does not say {word!r}: {line}")
    expect(server.shmid() is None, f"{parameters}: an image was left")


def percent():
    server = servers.Plugin(memory="20%").start()
    with open("/proc/meminfo") as table:
        total = next(int(line.split()[1]) for line in table if line.startswith("MemTotal")) << 10
    limit = server.counters()["mem_limit"]
    expect(abs(limit - total / 5) <= 1 << 20, f"memory=20% of {total} made a limit of {limit}")


def stores_that_evict():
    for policy in ("allkeys-lru", "volatile-ttl"):
        redis = servers.Redis(maxmemory="64mb", maxmemory_policy=policy)
        refused({"overflow": redis.uri}, ["maxmemory-policy", "noeviction"])
    redis = servers.Redis(maxmemory="64mb", maxmemory_policy="noeviction")
    servers.Plugin(overflow=redis.uri).start()


def test():
    before = {row["shmid"] for row in servers.shm_rows()}
    for parameters, words in WRONG:
        refused(parameters, words)
    stores_that_evict()
    percent()
    mine = [row for row in servers.shm_rows()
            if row["shmid"] not in before and row["nattch"] == 0 and row["cpid"] in servers.refused_pids]
    expect(not mine, f"shared memory was left: {mine}")


harness.main(test)
