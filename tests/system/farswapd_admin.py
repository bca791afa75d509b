"""farswapd as its admin sees it: RESP3, connections, devices, forgetting, and its host's memory."""
import itertools
import os
import random
import tempfile
import threading
import time
import unittest

from farswapd_peer import SANITIZED, Donor, Peer, request, wait_for

SEGMENT = 65520
MIB = 1 << 20
GIB = 1 << 30
CALM_S = 5  # FSW_CALM_SECONDS


class Peer3(Peer):
    """Speaks RESP3: maps are dicts, sets are sets, verbatim strings lose their "txt:"."""

    def read(self):
        while b"\r\n" not in self.got:
            self.read_more()
        kind = self.got[:1]
        if kind not in b"%~_=":
            return super().read()
        rest = self.read_line()[1:]
        if kind == b"_":
            return None
        if kind == b"%":
            return {self.read(): self.read() for _ in range(int(rest))}
        if kind == b"~":
            return {self.read() for _ in range(int(rest))}
        self.got = b"$" + rest + b"\r\n" + self.got
        text = super().read()
        assert text.startswith(b"txt:"), text
        return text[4:]


def segment(device, i):
    return f"farswap:{device:032x}:{i:016x}"


def devices(peer):
    told = [dict(zip(d[::2], d[1::2])) for d in peer.ask("FARSWAP.DEVICES")]
    return {int(d[b"device"], 16): (d[b"keys"], d[b"bytes"]) for d in told}


class Protocol(unittest.TestCase):
    def test_hello(self):
        with Donor() as donor, Peer3(donor) as peer:
            self.assertIsNone(peer.ask("GET", "none"))
            flat = peer.ask("HELLO")
            self.assertEqual(flat[:2] + flat[4:6], [b"server", b"redis", b"proto", 2])
            hello = peer.ask("HELLO", 3, "SETNAME", "me")
            self.assertEqual((hello[b"proto"], hello[b"role"]), (3, b"master"))
            self.assertEqual(peer.ask("CLIENT", "GETNAME"), b"me")
            peer.send(request("GET", "none"))
            self.assertEqual(peer.read_line(), b"_")
            self.assertEqual(peer.ask("CONFIG", "GET", "maxmemory*"),
                             {b"maxmemory": b"1073741824", b"maxmemory-policy": b"noeviction"})
            self.assertIn(b"used_memory:", peer.ask("INFO"))
            self.assertEqual(peer.ask("COMMAND", "INFO", "get")[0][2], {b"readonly"})
            self.assertIn(b"get", peer.ask("COMMAND", "DOCS"))
            self.assertEqual(peer.error("HELLO", 4), "NOPROTO unsupported protocol version")
            self.assertIn("not an integer", peer.error("HELLO", "x"))
            self.assertIn("option 'NAME'", peer.error("HELLO", 2, "NAME", "x"))
            self.assertEqual(peer.ask("HELLO", 3)[b"proto"], 3)
            self.assertEqual(peer.ask("HELLO", 2)[5], 2)
            peer.send(request("GET", "none"))
            self.assertEqual(peer.read_line(), b"$-1")

    def test_hello_shows_a_password(self):
        with Donor(password="secret") as donor, Peer3(donor) as peer:
            self.assertIn("NOAUTH", peer.error("HELLO", 3))
            self.assertIn("WRONGPASS", peer.error("HELLO", 3, "AUTH", "default", "x"))
            self.assertIn("NOAUTH", peer.error("GET", "k"))
            self.assertEqual(peer.ask("HELLO", 3, "AUTH", "default", "secret")[b"proto"], 3)
            self.assertIsNone(peer.ask("GET", "k"))

    def test_clients(self):
        with Donor() as donor, donor.connect() as peer, donor.connect(unix=True) as admin:
            self.assertIsNone(peer.ask("CLIENT", "GETNAME"))
            self.assertEqual(peer.ask("CLIENT", "SETNAME", "host-1"), b"OK")
            self.assertIn("cannot contain spaces", peer.error("CLIENT", "SETNAME", "a b"))
            self.assertIn("cannot contain spaces", peer.error("CLIENT", "SETNAME", "x" * 65))
            lines = admin.ask("CLIENT", "LIST").decode().splitlines()
            told = [dict(word.split("=", 1) for word in line.split()) for line in lines]
            by_name = {line["name"]: line for line in told}
            self.assertEqual(len(told), 2)
            address = "%s:%d" % peer.socket.getsockname()
            self.assertEqual((by_name["host-1"]["addr"], by_name["host-1"]["flags"],
                              by_name["host-1"]["cmd"]), (address, "N", "client"))
            self.assertEqual((by_name[""]["addr"], by_name[""]["flags"]), ("unix:0", "U"))
            self.assertIn(b"name=host-1", peer.ask("CLIENT", "INFO"))
            self.assertIn("unknown subcommand", peer.error("CLIENT", "NONE"))
            self.assertIn("No such client", admin.error("CLIENT", "KILL", "1.2.3.4:5"))
            self.assertEqual(admin.ask("CLIENT", "KILL", "ADDR", "1.2.3.4:5"), 0)
            self.assertEqual(admin.ask("CLIENT", "KILL", address), b"OK")
            self.assertEqual(peer.read_to_end(), b"")
            with donor.connect() as one, donor.connect() as other:
                self.assertEqual([one.ask("PING"), other.ask("PING")], [b"PONG"] * 2)
                self.assertIn("Unix socket", one.error("CLIENT", "KILL", "TYPE", "normal"))
                self.assertIn("all are normal", admin.error("CLIENT", "KILL", "TYPE", "master"))
                self.assertEqual(admin.ask("CLIENT", "KILL", "TYPE", "normal"), 2)
                self.assertEqual([one.read_to_end(), other.read_to_end()], [b"", b""])
            self.assertEqual(admin.ask("PING"), b"PONG")

    def test_small_ones(self):
        with Donor() as donor, donor.connect() as peer:
            peer.ask("SET", "k", "v" * SEGMENT)
            self.assertEqual(peer.ask("STRLEN", "k"), SEGMENT)
            self.assertEqual(peer.ask("STRLEN", "none"), 0)
            self.assertEqual(peer.ask("WAIT", 1, 10000), 0)  # at once
            self.assertIn("negative", peer.error("WAIT", 1, -1))
            # Large arguments where nobody expects them.
            for words in [("GETRANGE", "k", "1" * 5000, 2), ("SCAN", "1" * 5000), ("X" * 5000,),
                          ("SELECT", "0" * 5000), ("CLIENT", "KILL", "9" * 5000),
                          ("CLIENT", "SETNAME", "9" * 5000), ("SET", "k" * 5000, "v")]:
                self.assertIn("ERR", peer.error(*words), words[0])
            self.assertEqual(peer.ask("ECHO", "e" * 65536), b"e" * 65536)
            self.assertEqual(peer.ask("EXISTS", "e" * 65536, "k"), 1)


class Devices(unittest.TestCase):
    def test_are_told_apart_and_forgotten_by_the_admin(self):
        with Donor() as donor, donor.connect() as peer, donor.connect(unix=True) as admin:
            for device in (1, 2):
                peer.ask("SET", f"farswap:{device:032x}:sentinel", "12345678")
                for i in range(100 * device):
                    peer.ask("SET", segment(device, i), "v" * 1000)
            peer.ask("SET", "other", "xyz")
            self.assertEqual(devices(peer), {1: (101, 100008), 2: (201, 200008)})
            info = donor.info(peer)
            self.assertEqual((info["devices"], info["no_device"]), ("2", "keys=1,bytes=3"))
            for words in [("FARSWAP.FORGET", "%032x" % 1), ("FLUSHALL",)]:
                self.assertIn("NOPERM", peer.error(*words))
            self.assertEqual(peer.ask("DBSIZE"), 303)
            self.assertIn("no such device", admin.error("FARSWAP.FORGET", "%032x" % 3))
            self.assertIn("no such device", admin.error("FARSWAP.FORGET", "1"))
            self.assertEqual(admin.ask("FARSWAP.FORGET", "%032x" % 1), 101)
            self.assertEqual(devices(peer), {2: (201, 200008)})
            self.assertEqual(peer.ask("DBSIZE"), 202)
            for i in range(200):
                peer.ask("UNLINK", segment(2, i))
            self.assertEqual(devices(peer), {2: (1, 8)})
            self.assertIn("syntax", admin.error("FLUSHALL", "NOW"))
            self.assertEqual(admin.ask("FLUSHALL", "ASYNC"), b"OK")
            self.assertEqual((peer.ask("DBSIZE"), devices(peer)), (0, {}))

    def test_more_than_there_are_places_for(self):
        with Donor() as donor, donor.connect() as peer:
            peer.send(b"".join(request("SET", segment(device, 0), "v") for device in range(1100)))
            for _ in range(1100):
                self.assertEqual(peer.read(), b"OK")
            self.assertEqual(len(devices(peer)), 1023)
            info = donor.info(peer)
            self.assertEqual(info["no_device"], "keys=77,bytes=77")
            self.assertEqual(info["limit_devices_hits"], "77")
            peer.ask("UNLINK", segment(5, 0))
            self.assertEqual(peer.ask("SET", segment(5000, 0), "v"), b"OK")
            self.assertIn(5000, devices(peer))
            self.assertNotIn(5, devices(peer))


class Memory(unittest.TestCase):
    def host(self, available, stalled=1):
        for name, text in (("meminfo", f"MemTotal: {16 * GIB // 1024} kB\n"
                                       f"MemAvailable: {available // 1024} kB\n"),
                           ("pressure/memory",
                            f"some avg10=0.00 avg60=0.00 avg300=0.00 total={stalled}\n")):
            path = os.path.join(self.proc, name)
            with open(path + "~", "w", encoding="ascii") as file:
                file.write(text)
            os.rename(path + "~", path)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.proc = folder.name
        os.mkdir(os.path.join(self.proc, "pressure"))
        self.host(8 * GIB)

    def test_a_host_that_is_short_gets_no_new_values_and_keeps_all(self):
        with Donor("--keep-available", "1G", proc=self.proc) as donor, donor.connect() as peer:
            value = random.randbytes(SEGMENT)
            self.assertEqual(peer.ask("SET", "k", value), b"OK")
            self.host(GIB - MIB)
            answer = wait_for(lambda: (e := peer.error("SET", "l", value)).startswith("OOM") and e,
                              "a refusal")
            self.assertIn("host is short of memory", answer)
            self.assertIn("OOM", peer.error("SET", "k", "x"))
            self.assertEqual(peer.ask("GET", "k"), value)
            info = donor.info(peer)
            self.assertEqual((info["host_memory_short"], info["host_memory_short_times"]),
                             ("1", "1"))
            self.assertEqual(info["image_memory_free"], "0")  # what was free went to the host
            self.assertGreaterEqual(int(info["refused_for_host"]), 2)
            self.host(GIB + MIB)  # not enough more
            time.sleep(2.5)
            self.assertIn("OOM", peer.error("SET", "l", value))
            began = time.monotonic()
            self.host(2 * GIB)
            wait_for(lambda: peer.error("SET", "l", value).startswith("no error"), "calm")
            self.assertGreaterEqual(time.monotonic() - began, CALM_S)  # not at once
            stalled = itertools.count(3000000, 3000000)

            def refused_while_it_stalls():
                self.host(2 * GIB, stalled=next(stalled))
                return peer.error("SET", "l", value).startswith("OOM")
            wait_for(refused_while_it_stalls, "a refusal")

    def test_never_looks_at_it_when_told_so(self):
        self.host(0)
        with Donor("--keep-available", "0", proc=self.proc) as donor, donor.connect() as peer:
            time.sleep(1.5)
            self.assertEqual(peer.ask("SET", "k", "v"), b"OK")

    @unittest.skipIf(SANITIZED, "a sanitizer takes memory of its own")
    def test_all_that_is_resident_stays_below_the_limit(self):
        """Values, their overwriting, pipelines, big answers, clients with half a request."""
        with Donor("--memory", "24M") as donor, donor.connect() as peer:
            def resident():
                return int(donor.info(peer)["used_memory_rss"])
            half = [donor.connect() for _ in range(60)]
            greedy = [donor.connect(unix=True) for _ in range(4)]
            most = 0
            for client in half:
                client.send(request("SET", "half", "v" * SEGMENT)[:40000])
            for i in range(1500):
                key, value = f"k{random.randrange(700)}", random.randbytes(random.randrange(65537))
                peer.error("SET", key, value)
                if i % 10 == 0:
                    peer.ask("UNLINK", f"k{random.randrange(700)}")
                if i % 100 == 0:
                    for client in greedy:
                        client.socket.setblocking(False)
                        try:
                            client.socket.send(request("COMMAND", "DOCS") * 100)
                        except BlockingIOError:
                            pass
                    most = max(most, resident())
            info = donor.info(peer)
            self.assertGreater(int(info["limit_memory_hits"]), 0)
            self.assertLessEqual(most, 24 * MIB)
            self.assertGreater(most, 20 * MIB)
            for client in half + greedy:
                client.socket.close()

    @unittest.skipIf(SANITIZED, "a sanitizer takes memory of its own")
    def test_an_idle_donor_is_small(self):
        with Donor("--memory", "64G") as donor, donor.connect() as peer:
            self.assertLess(int(donor.info(peer)["used_memory_rss"]), 3 * MIB)


class Fairness(unittest.TestCase):
    def test_a_client_with_much_work_has_its_turn_and_no_more(self):
        with Donor() as donor, donor.connect() as busy, donor.connect() as other:
            busy.send(b"".join(request("SET", f"k{i}", "v") for i in range(20000)))
            for _ in range(20000):
                self.assertEqual(busy.read(), b"OK")
            load = request("SCAN", 0, "COUNT", 1024, "MATCH", "*none*") * 1500
            waits = []
            while len(waits) < 20:  # of a machine that does not let us ask in time, again
                busy.send(load)
                reader = threading.Thread(target=lambda: [busy.read() for _ in range(1500)])
                reader.start()
                while reader.is_alive():
                    before = time.monotonic()
                    other.ask("PING")
                    waits.append(time.monotonic() - before)
                reader.join()
            info = donor.info(other)
            self.assertGreater(int(info["limit_turn_us_hits"]), 5)
            self.assertLess(sorted(waits)[len(waits) // 2], 0.1)

    def test_strangers_cannot_take_all_places(self):
        with Donor(password="secret") as donor, donor.connect() as known:
            known.ask("AUTH", "secret")
            strangers = [donor.connect() for _ in range(300)]
            with donor.connect() as late:
                self.assertEqual(late.ask("AUTH", "secret"), b"OK")
            wait_for(lambda: int(donor.info(known)["connected_clients"]) <= 130, "the first to go")
            self.assertGreaterEqual(int(donor.info(known)["limit_strangers_hits"]), 170)
            self.assertEqual(known.ask("PING"), b"PONG")
            self.assertEqual(strangers[0].read_to_end(), b"")
            self.assertIn("NOAUTH", strangers[-1].error("PING"))
            for peer in strangers:
                peer.socket.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
