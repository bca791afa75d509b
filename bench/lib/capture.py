"""capture: pages of anonymous memory, taken from real programs that are started here.

    sets = capture.sets(folder)       {"python": path, "redis": path, ...}

Each program fills its memory with plausible data, is stopped, and the resident pages of its private
anonymous writable mappings are copied out through /proc/PID/pagemap and /proc/PID/mem; pages of
zeroes are left out, since they cost nothing anywhere. The files stay in the folder for the next run.

Programs get an empty environment, so that nothing of whoever runs this is in their memory; the
folder is readable by its owner only all the same.
"""

import glob
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import corpus
import harness

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = 4096
# Of anonymous memory; some of it is zeroes, and at least 100 MB must be left.
WANTED = 150 << 20
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}
_DEADLINE = 240


def anonymous(pid):
    """Bytes of RssAnon."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("RssAnon"):
                return int(line.split()[1]) << 10
    return 0


def _regions(pid):
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, rights, _, _, inode, *name = line.split(None, 5)
            if rights.startswith("rw") and rights[3] == "p" and inode == "0" and \
                    not (name and name[0].startswith(("[vvar", "[vsyscall"))):
                start, end = (int(part, 16) for part in span.split("-"))
                yield start, end


def _resident(pagemap, start, end):
    """Addresses of the pages that are in RAM, as runs."""
    run = None
    for first in range(start, end, 512 * PAGE):
        last = min(end, first + 512 * PAGE)
        pagemap.seek(first // PAGE * 8)
        words = memoryview(pagemap.read((last - first) // PAGE * 8)).cast("Q")
        for i, word in enumerate(words):
            if word >> 63:
                run = run if run is not None else first + i * PAGE
            elif run is not None:
                yield run, first + i * PAGE
                run = None
    if run is not None:
        yield run, end


def snapshot(pid, path):
    """Copies a stopped process's pages to a file; returns how many."""
    count, zero = 0, bytes(PAGE)
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap, \
            open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(path + ".new", "wb") as out:
        for start, end in _regions(pid):
            for first, last in _resident(pagemap, start, end):
                memory.seek(first)
                part = memory.read(last - first)
                for at in range(0, len(part) - PAGE + 1, PAGE):
                    page = part[at:at + PAGE]
                    if page != zero:
                        out.write(page)
                        count += 1
    os.rename(path + ".new", path)
    return count


def _stop_and_copy(pid, path):
    os.kill(pid, signal.SIGSTOP)
    harness.wait_for(lambda: re.search(r"^State:\s+[tT]", open(f"/proc/{pid}/status").read(), re.M),
                     10, f"process {pid} to stop")
    try:
        return snapshot(pid, path)
    finally:
        os.kill(pid, signal.SIGCONT)


def _spawn(argv, **options):
    return harness.spawn(argv, env=_ENVIRONMENT, stderr=subprocess.DEVNULL, **options)


# ---- the programs: each is a function of (corpus file, path of the set); None: not to be had ----

def _filler(argv, path):
    """One that says "ready"."""
    process = _spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    watch = time.monotonic()
    line = process.stdout.readline()
    if line.strip() != b"ready":
        harness.end(process)
        return None
    count = _stop_and_copy(process.pid, path)
    print(f"  {os.path.basename(argv[0])}: {count} pages after {time.monotonic() - watch:.0f} s",
          flush=True)
    process.stdin.close()
    harness.end(process)
    return count


def _python(text, path):
    return _filler(["/usr/bin/python3", f"{HERE}/fill_python.py", text, str(WANTED)], path)


def _node(text, path):
    if not shutil.which("node"):
        return None
    return _filler(["node", "--max-old-space-size=2048", f"{HERE}/fill_node.js", text, str(WANTED)],
                   path)


def _java(text, path):
    if not shutil.which("java"):
        return None
    lines = os.path.join(harness.workdir(), "lines.txt")
    with open(lines, "w") as file:
        file.write("\n".join(corpus.lines()))
    return _filler(["java", "-XX:+UseSerialGC", "-Xms32m", "-Xmx1g", f"{HERE}/FillJava.java", lines,
                    str(WANTED)], path)


def _reply_count(connection, count):
    while count > 0:
        count -= connection.recv(1 << 16).count(b"\r\n")


def _bulk(*words):
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(out)


def _redis_commands(rng, lines, number):
    """What an application keeps: sessions, users, feeds, ranks, jobs, items, counters."""
    text = lines[rng.randrange(len(lines))]
    words = text.split()
    yield _bulk("SET", f"session:{rng.getrandbits(64):016x}",
                f'{{"user": {number}, "csrf": "{rng.getrandbits(128):032x}", "last": "{text[:80]}",'
                f' "cart": [{number % 97}, {number % 89}], "seen": {1.7e9 + number:.1f}}}',
                "EX", 86400 + number)
    yield _bulk("HSET", f"user:{number}", "name", " ".join(words[:2]), "email",
                f"{words[0][:12]}{number}@example.org", "visits", number % 113, "bio", text)
    yield _bulk("ZADD", f"rank:{number % 50}", rng.randrange(10**6), f"user:{number}")
    yield _bulk("LPUSH", f"feed:{number % 400}", lines[rng.randrange(len(lines))])
    yield _bulk("RPUSH", f"queue:{number % 20}",
                f'{{"job": {number}, "kind": "mail.send", "state": "waiting", "tries": 0, '
                f'"priority": {number % 5}, "created": "2024-05-{number % 28 + 1:02}T10:15:00Z", '
                f'"to": {{"user": {number % 977}, "address": "{words[0][:12]}@example.org"}}, '
                f'"template": "welcome", "language": "en", "error": null}}')
    yield _bulk("HSET", f"item:{number}", "sku", f"A-{number:08}", "price", number % 9999, "stock",
                number % 61, "category", number % 17, "name", " ".join(words[:6]))
    yield _bulk("INCRBY", f"hits:{words[0][:20]}:{number % 1000}", number)
    yield _bulk("SADD", f"tag:{words[-1][:20]}", number)


def _redis(text, path):
    if not shutil.which("redis-server"):
        return None
    where = os.path.join(harness.workdir(), "capture-redis.sock")
    server = _spawn(["redis-server", "--port", "0", "--unixsocket", where, "--save", "",
                     "--appendonly", "no", "--dir", harness.workdir()], stdout=subprocess.DEVNULL)
    connection = socket.socket(socket.AF_UNIX)
    harness.wait_for(lambda: connection.connect_ex(where) == 0, 20, "redis-server")
    rng, lines, number = random.Random(7), corpus.lines(), 0
    lines = [line for line in lines if line.split()]
    while anonymous(server.pid) < WANTED:
        batch = []
        for _ in range(500):
            number += 1
            batch += _redis_commands(rng, lines, number)
        connection.sendall(b"".join(batch))
        _reply_count(connection, len(batch))
    count = _stop_and_copy(server.pid, path)
    print(f"  redis-server: {count} pages with {number * 8} commands", flush=True)
    connection.close()
    harness.end(server)
    return count


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def _compiler(text, path):
    """cc1 in the middle of its work: stopped when it has become large."""
    source = os.path.join(harness.workdir(), "big.c")
    with open(source, "w") as file:
        subprocess.run(["/usr/bin/python3", f"{HERE}/make_c.py", text, "12000"], stdout=file,
                       check=True)
    driver = _spawn(["gcc", "-O2", "-g", "-w", "-c", "-o", "/dev/null", source],
                    stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + _DEADLINE
    while driver.poll() is None and time.monotonic() < deadline:
        for child in _children(driver.pid):
            if anonymous(child) < WANTED:
                continue
            count = _stop_and_copy(child, path)
            print(f"  cc1: {count} pages", flush=True)
            os.kill(child, signal.SIGKILL)
            driver.wait(20)
            return count
        time.sleep(0.02)
    harness.end(driver)
    return None


PROGRAMS = {"python": _python, "redis": _redis, "node": _node, "java": _java, "compiler": _compiler}


def sets(folder, fresh=False, only=None):
    """Captures what is not there yet. Returns the files by name."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    text = corpus.write(os.path.join(folder, "corpus.json"))
    found = {}
    for name, program in PROGRAMS.items():
        path = os.path.join(folder, f"{name}.pages")
        if only and name not in only:
            continue
        if (fresh or not os.path.exists(path)) and program(text, path) is None:
            print(f"  {name}: left out, it is not installed or did not run", flush=True)
            continue
        found[name] = path
    return found


def leftovers(folder):
    """Half-written files of a run that was killed."""
    for path in glob.glob(os.path.join(folder, "*.new")):
        os.unlink(path)


if __name__ == "__main__":
    sys.exit("capture is a part of bench/density")
