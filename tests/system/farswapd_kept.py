"""farswapd with a name: killed with -9 under load, upgraded, served twice, shrunk, removed."""
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import unittest

import farswapd_peer
from farswapd_peer import DEADLINE, Donor, Refused, request, wait_for

SEGMENT = 65520
MIB = 1 << 20
KILLS = 60
DEVICES = ["%032x" % (0xabc + i) for i in range(4)]


def segments():
    """Segments that outlive their processes by id, with their resident bytes. Another goes with its last
    process, which may be one that looks at it in passing."""
    with open("/proc/sysvipc/shm", encoding="ascii") as table:
        names = table.readline().split()
        rows = [dict(zip(names, line.split())) for line in table]
    return {int(row["shmid"]): int(row["rss"]) for row in rows
            if not int(row["perms"], 8) & 0o1000}  # SHM_DEST


class Kept:
    """A donor of one name, started as often as one likes; what it keeps goes at the end."""

    def __init__(self, *options, password=None):
        self.options, self.password = options, password
        self.name = f"kept-{os.getpid()}-{random.randrange(1 << 30)}"
        self.donor = Donor("--name", self.name, *options, password=password, keeps=True)
        self.folder = self.donor.folder

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.donor.process.kill()
        self.donor.process.communicate()
        self.destroy()
        self.folder.cleanup()

    def run(self, *options):
        return subprocess.run([farswapd_peer.FARSWAPD, *options], capture_output=True, text=True,
                              env=self.donor.environment, timeout=DEADLINE, check=False)

    def destroy(self):
        return self.run("--destroy", self.name)

    def shmid(self):
        with open(os.path.join(self.folder.name, f"{self.name}.donor"), encoding="ascii") as file:
            return int(file.readline().split("=")[1])

    def end(self, how=signal.SIGKILL):
        self.donor.process.send_signal(how)
        _, errors = self.donor.process.communicate(timeout=DEADLINE)
        assert "ERROR" not in errors and "runtime error" not in errors, errors

    def start(self, *options, program=None):
        self.donor = Donor("--name", self.name, *(options or self.options), password=self.password,
                           keeps=True, folder=self.folder, program=program)


class Host(threading.Thread):
    """A swap host with keys of its own, which knows what it was told and what it asked for."""

    def __init__(self, kept, number):
        super().__init__()
        self.kept, self.device, self.dice = kept, DEVICES[number % 4], random.Random(random.random())
        self.keys = [f"farswap:{self.device}:{number:04x}{i:012x}" for i in range(40)]
        self.values = {}
        self.asked = []  # and not answered: (key, value or None), in order
        self.commands = 0
        self.wrong = None

    def value(self):
        length = self.dice.choice([0, 1, 100, 184, 1024, 1025, 4096, 4097, 30000, 65519, SEGMENT])
        return self.dice.randbytes(length)

    def pick(self):
        key = self.dice.choice(self.keys)
        return key, self.value() if self.dice.random() < 0.75 else None

    def run(self):
        try:
            with self.kept.donor.connect(unix=self.dice.random() < 0.5) as peer:
                while True:
                    self.asked = [self.pick() for _ in range(self.dice.randrange(1, 16))]
                    peer.send(b"".join(request("SET", key, value) if value is not None else
                                       request("UNLINK", key) for key, value in self.asked))
                    while self.asked:
                        self.answered(peer.read())
        except OSError:
            pass
        except EOFError:
            pass
        except (AssertionError, Refused) as error:
            self.wrong = error

    def answered(self, answer):
        key, value = self.asked[0]
        expected = b"OK" if value is not None else int(key in self.values)
        assert answer == expected, (key, answer, expected)
        self.do(*self.asked.pop(0))
        self.commands += 1

    def do(self, key, value):
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def compare(self, peer):
        """What is there: all that was answered, and a first part of what was asked beyond that."""
        peer.send(b"".join(request("GET", key) for key in self.keys))
        found = {key: value for key in self.keys if (value := peer.read()) is not None}
        while found != self.values:
            assert self.asked, f"what is there was never: {self.device}"
            self.do(*self.asked.pop(0))
        self.asked = []

    def again(self):
        fresh = Host(self.kept, 0)
        fresh.device, fresh.keys, fresh.values = self.device, self.keys, self.values
        fresh.commands = self.commands
        return fresh


def with_bytes(devices):
    """Whoever keeps nothing is listed only for as long as the process remembers that it called."""
    return {device: size for device, size in devices.items() if size}


class Killed(unittest.TestCase):
    def test_under_load(self):
        with Kept("--memory", "64M") as kept:
            hosts = [Host(kept, number) for number in range(4)]
            for _ in range(KILLS):
                before = sum(host.commands for host in hosts)
                for host in hosts:
                    host.start()
                enough = before + random.randrange(150)
                wait_for(lambda: sum(host.commands for host in hosts) >= enough or
                         any(host.wrong for host in hosts), "some commands")
                kept.end()
                for host in hosts:
                    host.join()
                    self.assertIsNone(host.wrong)
                kept.start()
                with kept.donor.connect() as peer:
                    for host in hosts:
                        host.compare(peer)
                    info = kept.donor.info(peer)
                    self.assertEqual(int(info["recovered_values"]),
                                     sum(len(host.values) for host in hosts))
                    self.assertEqual(info["recovered_damaged_values"], "0")
                    self.assertLess(int(info["used_memory"]), 64 * MIB)
                    bytes_by_device = {}
                    for host in hosts:
                        bytes_by_device[host.device] = sum(map(len, host.values.values()))
                    told = {dict(zip(d[::2], d[1::2]))[b"device"].decode():
                            dict(zip(d[::2], d[1::2]))[b"bytes"]
                            for d in peer.ask("FARSWAP.DEVICES")}
                    self.assertEqual(with_bytes(told), with_bytes(bytes_by_device))
                hosts = [host.again() for host in hosts]
            self.assertGreater(sum(host.commands for host in hosts), 10 * KILLS)
            with kept.donor.connect(unix=True) as admin:
                self.assertEqual(admin.ask("FLUSHALL"), b"OK")
            wait_for(lambda: segments()[kept.shmid()] < 5 * MIB, "the memory to be given back")

    def test_upgrade(self):
        """A kill plus another binary."""
        with Kept() as kept:
            other = os.path.join(kept.folder.name, "newer-farswapd")
            shutil.copy(farswapd_peer.FARSWAPD, other)
            value = random.randbytes(SEGMENT)
            with kept.donor.connect() as peer:
                peer.ask("SET", "k", value)
            for program in (other, None):
                kept.end()
                kept.start(program=program)
                with kept.donor.connect() as peer:
                    self.assertEqual(peer.ask("GET", "k"), value)


class Names(unittest.TestCase):
    def test_a_stop_keeps_too(self):
        with Kept(password="secret") as kept:
            with kept.donor.connect() as peer:
                peer.ask("AUTH", "secret")
                peer.ask("SET", "farswap:" + DEVICES[0] + ":sentinel", "here")
            kept.end(signal.SIGTERM)
            self.assertEqual(kept.donor.process.returncode, 0)
            shmid = kept.shmid()
            self.assertIn(shmid, segments())
            time.sleep(1.1)  # for the clock of seconds
            kept.start()
            with kept.donor.connect() as peer:
                peer.ask("AUTH", "secret")
                info = kept.donor.info(peer)
                about = dict(part.split("=") for part in info["device_" + DEVICES[0]].split(","))
                self.assertGreaterEqual(int(about["idle"]), 1)  # a restart is no contact
                self.assertEqual((about["keys"], about["bytes"], about["peer"]),
                                 ("1", "4", "127.0.0.1"))
                self.assertEqual(peer.ask("GET", "farswap:" + DEVICES[0] + ":sentinel"), b"here")
                self.assertEqual(info["image_outlives_us"], "1")
            kept.end(signal.SIGTERM)
            done = kept.destroy()
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertNotIn(shmid, segments())
            done = kept.destroy()
            self.assertEqual(done.returncode, 1)
            self.assertIn("there is no donor named", done.stderr)

    def test_one_at_a_time(self):
        with Kept() as kept:
            second = kept.run("--name", kept.name, "--unix", os.path.join(kept.folder.name, "t"))
            self.assertEqual(second.returncode, 1)
            self.assertIn("is being served", second.stderr)
            self.assertIn("is being served", kept.destroy().stderr)
            with kept.donor.connect() as peer:
                self.assertEqual(peer.ask("PING"), b"PONG")

    def test_without_a_name_nothing_stays(self):
        with Donor() as donor:
            with donor.connect() as peer:
                peer.ask("SET", "k", "v" * SEGMENT)
                self.assertEqual(donor.info(peer)["image_outlives_us"], "0")
            with open(f"/proc/{donor.process.pid}/maps", encoding="ascii") as maps:
                shmid = int(next(line.split()[4] for line in maps if "/SYSV" in line))
            self.assertNotIn(shmid, segments())  # it goes with the donor, however that ends

    def test_less_memory_drops_nothing(self):
        with Kept("--memory", "64M") as kept:
            values = [random.randbytes(SEGMENT) for _ in range(200)]
            with kept.donor.connect() as peer:
                for i, value in enumerate(values):
                    self.assertEqual(peer.ask("SET", f"k{i}", value), b"OK")
            kept.end()
            kept.start("--memory", "8M")
            with kept.donor.connect() as peer:
                self.assertIn("OOM", peer.error("SET", "more", "v" * 5000))
                for i, value in enumerate(values):
                    self.assertEqual(peer.ask("GET", f"k{i}"), value)
                for i in range(150):
                    self.assertEqual(peer.ask("UNLINK", f"k{i}"), 1)
                self.assertEqual(peer.ask("SET", "more", "v" * 5000), b"OK")
            wait_for(lambda: segments()[kept.shmid()] < 8 * MIB, "the memory to be given back")


if __name__ == "__main__":
    unittest.main(verbosity=2)
