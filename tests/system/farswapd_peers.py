"""farswapd against peers: every command, limits, garbage, and those who do not read or vanish."""
import os
import random
import resource
import signal
import time
import unittest

from farswapd_peer import SANITIZED, Donor, Refused, request, wait_for

SEGMENT = 65520
MIB = 1 << 20


class Commands(unittest.TestCase):
    def setUp(self):
        self.donor = Donor()
        self.addCleanup(self.donor.__exit__, None)
        self.peer = self.donor.connect()
        self.addCleanup(self.peer.socket.close)

    def test_values(self):
        ask = self.peer.ask
        value = random.randbytes(SEGMENT)
        self.assertEqual(ask("SET", "k", value), b"OK")
        self.assertEqual(ask("GET", "k"), value)
        self.assertIsNone(ask("GET", "none"))
        for first, last in [(0, -1), (0, 0), (7, 4102), (-10, -1), (SEGMENT - 1, SEGMENT + 9),
                            (5, 4), (SEGMENT, SEGMENT), (-SEGMENT - 5, 3), (0, -SEGMENT - 1),
                            (1 - 2 ** 63, 2 ** 63 - 1)]:
            end = last + 1 if last >= 0 else max(SEGMENT + last + 1, 0)
            begin = first if first >= 0 else max(SEGMENT + first, 0)
            self.assertEqual(ask("GETRANGE", "k", first, last), value[begin:end], (first, last))
        self.assertEqual(ask("GETRANGE", "none", 0, -1), b"")
        self.assertEqual(ask("SET", "k", ""), b"OK")
        self.assertEqual(ask("GET", "k"), b"")
        self.assertEqual(ask("GETRANGE", "k", 0, -1), b"")
        self.assertIsNone(ask("SET", "k", "x", "NX"))
        self.assertIsNone(ask("SET", "l", "x", "xx"))
        self.assertEqual(ask("SET", "l", "x", "nx"), b"OK")
        self.assertEqual(ask("SET", "l", "y", "XX"), b"OK")
        self.assertEqual(ask("EXISTS", "k", "l", "none", "k"), 3)
        self.assertEqual(ask("DBSIZE"), 2)
        self.assertEqual(ask("DEL", "k", "none"), 1)
        self.assertEqual(ask("UNLINK", "l", "l"), 1)
        self.assertEqual(ask("DBSIZE"), 0)

    def test_scan(self):
        for i in range(1000):
            self.peer.ask("SET", f"dev:{i % 10}:{i}", "v")
        for options, expected in [((), 1000), (("MATCH", "dev:3:*"), 100), (("COUNT", 100000), 1000),
                                  (("COUNT", 1, "MATCH", "*[57]"), 200)]:
            keys, cursor, calls = [], b"0", 0
            while calls == 0 or cursor != b"0":
                cursor, some = self.peer.ask("SCAN", cursor, *options)
                keys += some
                calls += 1
            self.assertEqual(len(keys), expected)
            self.assertEqual(len(set(keys)), expected)
            self.assertGreater(calls, 1 if 100000 not in options else 0)
        self.assertEqual(self.peer.ask("SCAN", 2 ** 64 - 1), [b"0", []])

    def test_about(self):
        ask = self.peer.ask
        self.assertEqual(ask("PING"), b"PONG")
        self.assertEqual(ask("ping", "a\r\nb"), b"a\r\nb")
        self.assertEqual(ask("ECHO", "x" * 1000), b"x" * 1000)
        self.assertEqual(ask("SELECT", "0"), b"OK")
        count = ask("COMMAND", "COUNT")
        self.assertEqual(len(ask("COMMAND")), count)
        self.assertEqual(len(ask("COMMAND", "DOCS")), 2 * count)
        self.assertEqual(ask("COMMAND", "INFO", "get", "none")[0][:2], [b"get", 2])
        self.assertEqual(ask("COMMAND", "DOCS", "get", "none")[0], b"get")
        self.assertEqual(ask("CONFIG", "GET", "maxmemory"), [b"maxmemory", b"1073741824"])
        self.assertEqual(ask("CONFIG", "GET", "maxmemory-policy", "save"),
                         [b"maxmemory-policy", b"noeviction", b"save", b""])
        info = self.donor.info(self.peer)
        self.assertEqual(info["maxmemory_policy"], "noeviction")
        self.assertEqual(info["maxmemory"], "1073741824")
        self.assertGreater(int(info["used_memory"]), 0)
        self.assertEqual(info["connected_clients"], "1")
        only = ask("INFO", "memory", "keyspace")
        self.assertTrue(only.startswith(b"# Memory\r\n"))
        self.assertNotIn(b"# Stats", only)
        self.assertEqual(ask("QUIT"), b"OK")
        self.assertEqual(self.peer.read_to_end(), b"")

    def test_errors(self):
        error = self.peer.error
        for words in [("GET",), ("GET", "a", "b"), ("SET", "a"), ("GETRANGE", "a", "0"), ("DEL",),
                      ("UNLINK",), ("EXISTS",), ("SCAN",), ("DBSIZE", "x"), ("ECHO",), ("AUTH",),
                      ("SELECT",), ("PING", "a", "b"), ("CONFIG",), ("CLIENT",)]:
            self.assertEqual(error(*words),
                             f"ERR wrong number of arguments for '{words[0].lower()}' command")
        self.assertIn("unknown command 'FLUSHDB'", error("FLUSHDB"))
        self.assertIn("unknown command 'a  b'", error("a\r\nb"))
        self.assertIn("not an integer", error("GETRANGE", "k", "0", "x"))
        self.assertIn("not an integer", error("GETRANGE", "k", "0", "1 "))
        self.assertIn("out of range", error("SELECT", "1"))
        self.assertIn("syntax", error("SET", "k", "v", "EX"))
        self.assertIn("syntax", error("SCAN", "0", "COUNT"))
        self.assertIn("invalid cursor", error("SCAN", "x"))
        self.assertIn("integer", error("SCAN", "0", "COUNT", "0"))
        self.assertIn("too long: 129 bytes, at most 128", error("SET", "k" * 129, "v"))
        self.assertIn("without any password", error("AUTH", "x"))
        self.assertEqual(self.peer.ask("PING"), b"PONG")

    def test_pipelines_answer_in_order(self):
        values = [random.randbytes(random.randrange(3000)) for _ in range(3000)]
        with self.donor.connect(unix=True) as peer:
            peer.send(b"".join(request("SET", f"k{i}", v) for i, v in enumerate(values)))
            for _ in values:
                self.assertEqual(peer.read(), b"OK")
            peer.send(b"".join(request("GET", f"k{i}") for i in range(3000)))
            for value in values:
                self.assertEqual(peer.read(), value)

    def test_inline(self):
        self.peer.send(b"PING\r\nset a b\n\r\n  get\ta\r\n")
        self.assertEqual([self.peer.read() for _ in range(3)], [b"PONG", b"OK", b"b"])


class Limits(unittest.TestCase):
    @unittest.skipIf(SANITIZED, "a sanitizer takes memory of its own")
    def test_memory_limit_refuses_and_drops_nothing(self):
        with Donor("--memory", "64M") as donor, donor.connect() as peer:
            value, stored = random.randbytes(SEGMENT), 0
            while (answer := peer.error("SET", f"k{stored}", value)).startswith("no error"):
                stored += 1
            self.assertEqual(answer, "OOM command not allowed when used memory > 'maxmemory'.")
            self.assertGreater(stored * SEGMENT, 62 * MIB)  # the limit goes into values
            info = donor.info(peer)
            self.assertLessEqual(int(info["used_memory"]), 64 * MIB)
            self.assertEqual(info["limit_memory_hits"], "1")
            self.assertEqual(int(info["db0"].split(",")[0][5:]), stored)
            self.assertTrue(all(peer.ask("GET", f"k{i}") == value for i in range(stored)))
            # more than one: what the process itself takes has perhaps grown
            self.assertEqual(peer.ask("UNLINK", *(f"k{i}" for i in range(16))), 16)
            self.assertEqual(peer.ask("SET", "again", value), b"OK")

    def test_password(self):
        with Donor(password="s3cret word") as donor:
            with donor.connect() as peer:
                for words in [("PING",), ("GET", "k"), ("INFO",), ("NONE",), ("COMMAND",),
                              ("CLIENT", "KILL", "ID", "1")]:
                    self.assertEqual(peer.error(*words), "NOAUTH Authentication required.")
                for words in [("x",), ("s3cret word ",), ("s3cret wor",), ("",), ("s3cret word" * 2,),
                              ("admin", "s3cret word"), ("default", "x")]:
                    self.assertTrue(peer.error("AUTH", *words).startswith("WRONGPASS"), words)
                self.assertEqual(peer.ask("AUTH", "s3cret word"), b"OK")
                self.assertEqual(peer.ask("SET", "k", "v" * 60000), b"OK")
                self.assertEqual(donor.info(peer)["auth_failures"], "7")
            with donor.connect() as peer:
                self.assertEqual(peer.ask("AUTH", "default", "s3cret word"), b"OK")
                self.assertEqual(peer.ask("PING"), b"PONG")
            with donor.connect() as peer:  # in one piece: what follows AUTH has its rights
                peer.send(request("AUTH", "s3cret word") + request("SET", "l", "v" * 5000))
                self.assertEqual([peer.read(), peer.read()], [b"OK", b"OK"])
            with donor.connect() as peer:
                peer.send(b"*1\r\n$2000\r\n")
                self.assertIn(b"unauthenticated bulk length", peer.read_to_end())

    def test_garbage_ends_the_connection(self):
        with Donor() as donor, donor.connect() as other:
            for garbage in [b"*1000000000\r\n", b"*1\r\n$9999999999\r\n", b"*1\r\n*1\r\n", b"$3\r\n",
                            b"*x\r\n", b"\0\1\2\r\n", b"*1\r\n$-1\r\n", b"*" + b"1" * 100,
                            b"p" * 2000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]:
                with donor.connect() as peer:
                    peer.send(request("PING") + garbage)
                    answer = peer.read_to_end()
                    self.assertTrue(answer.startswith(b"+PONG\r\n"), garbage)
                    self.assertIn(b"-ERR Protocol error", answer, garbage)
            for seed in range(200):
                with donor.connect() as peer:
                    try:
                        peer.send(random.Random(seed).randbytes(3000))
                    except OSError:
                        pass  # closed before it took all
            self.assertGreaterEqual(int(donor.info(other)["protocol_errors"]), 10)

    def test_value_limit(self):
        with Donor() as donor, donor.connect() as peer:
            value = random.randbytes(64 * 1024)
            self.assertEqual(peer.ask("SET", "k", value), b"OK")
            self.assertEqual(peer.ask("GET", "k"), value)
            peer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$65537\r\n")
            self.assertIn(b"value too large", peer.read_to_end())
            with donor.connect() as other:
                self.assertEqual(donor.info(other)["limit_value_bytes_hits"], "1")

    def test_client_limit(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        with Donor() as donor:
            peers = [donor.connect() for _ in range(1024)]
            try:
                self.assertEqual(peers[-1].ask("PING"), b"PONG")
                with donor.connect() as peer:
                    self.assertEqual(peer.read_to_end(), b"-ERR max number of clients reached\r\n")
                peers.pop().socket.close()

                def welcome():
                    peers.append(donor.connect())
                    try:
                        return peers[-1].ask("PING") == b"PONG"
                    except (Refused, EOFError, OSError):
                        return False
                wait_for(welcome, "room for a client after another has left")
            finally:
                for peer in peers:
                    peer.socket.close()


def kernels(donor, peer):
    """The donor's end of a peer's TCP connection: its line in /proc/net/tcp, if there is one."""
    ports = [f":{donor.port:04X}", f":{peer.socket.getsockname()[1]:04X}"]
    with open("/proc/net/tcp", encoding="ascii") as table:
        return [fields for fields in map(str.split, table) if [word[8:] for word in fields[1:3]] == ports]


class Slow:
    """Has always asked for more than it has read, and reads 256 KiB in a second. Where the machine does
    not let it, or the donor, which answers `other` late then, it begins again, and says so."""

    def __init__(self, donor, other, patience):
        self.donor, self.other, self.patience, self.excuses = donor, other, patience, 0
        self.begin()

    def begin(self):
        self.peer = self.donor.connect()
        self.began = self.at = self.seen = time.monotonic()
        self.gap = 0  # the longest time in which nothing was seen to move
        self.peer.send_while_it_takes(request("GET", "k") * 100)

    def look(self):
        self.other.ask("PING")
        self.gap = max(self.gap, time.monotonic() - self.seen)
        self.seen = time.monotonic()

    def read_some(self):
        """Whether it has done so for longer than the donor is patient."""
        self.look()
        if time.monotonic() < self.at + 1:
            return False
        self.at = time.monotonic()
        try:
            for _ in range(4):
                self.peer.read()
        except (EOFError, ConnectionResetError):
            self.look()
            if self.gap < self.patience / 4:
                raise
            self.peer.socket.close()
            self.excuses += 1
            self.begin()
        return self.at > self.began + 2 * self.patience


class Rudeness(unittest.TestCase):
    def test_who_never_reads_costs_a_bounded_amount(self):
        with Donor() as donor, donor.connect() as other:
            other.ask("SET", "k", random.randbytes(SEGMENT))
            before = donor.resident()
            rude = [donor.connect(unix=i % 2 == 0) for i in range(4)]
            wanted = request("GET", "k") * 100
            for peer in rude:
                taken = peer.send_while_it_takes(wanted)
                self.assertGreater(taken, 0)
                # held: a read's worth of requests, the output, and the sockets' own buffers
                self.assertLess(taken, 16 * MIB)
            wait_for(lambda: donor.info(other)["paused_clients"] == "4", "all of them to wait")
            self.assertLess(donor.resident() - before, 16 * MIB)
            info = donor.info(other)
            self.assertLess(int(info["output_bytes_waiting"]), 4 * (MIB + 512 * 1024))
            self.assertEqual(other.ask("DEL", "k"), 1)  # what waits to be read is held
            for _ in range(1000):
                self.assertEqual(other.ask("PING"), b"PONG")
            for peer in rude[:2]:  # two vanish, two come to their senses
                peer.reset()
            for peer in rude[2:]:
                for _ in range(16):
                    self.assertEqual(len(peer.read()), SEGMENT)
                peer.socket.close()
            wait_for(lambda: donor.info(other)["connected_clients"] == "1", "the rude to be gone")
            info = donor.info(other)
            self.assertEqual((info["paused_clients"], info["output_bytes_waiting"]), ("0", "0"))

    def test_who_has_no_end_is_shown_the_door(self):
        """Who never reads, who ends no request, who says nothing; not who reads slowly, nor who is idle."""
        patience = 5
        with Donor("--patience", str(patience)) as donor, donor.connect() as other:
            other.ask("SET", "k", random.randbytes(SEGMENT))
            rude = [donor.connect(unix=i % 2 == 0) for i in range(4)]
            for peer in rude:
                peer.send_while_it_takes(request("GET", "k") * 100)
            rude.append(donor.connect())
            rude[-1].send(request("GET", "k") * 500)  # all of it is read
            half, mute = donor.connect(), donor.connect(unix=True)
            half.ask("PING")
            half.send(b"*2\r\n$3\r\nGET\r\n")
            slow = Slow(donor, other, patience)
            wait_for(lambda: slow.read_some() and donor.info(other)["connected_clients"] == "2",
                     "all others to be shown the door")
            info = donor.info(other)
            for limit, hits in ("output", 5 + slow.excuses), ("request", 1), ("stranger", 1):
                self.assertEqual(int(info[f"limit_{limit}_seconds_hits"]), hits, limit)
            self.assertLess(int(info["output_bytes_waiting"]), 2 * MIB)  # of the slow one
            self.assertEqual((half.read_to_end(), mute.read_to_end()), (b"", b""))
            self.assertEqual(kernels(donor, rude[-1]), [])  # it keeps nothing for it either
            for peer in rude:
                self.assertLess(len(peer.read_to_end()), 16 * MIB)
            slow.peer.socket.close()

    def test_who_vanishes_is_asked_for(self):
        """Its connection has the kernel's keepalive timer, and no other."""
        with Donor() as donor, donor.connect() as peer:
            peer.ask("PING")
            wait_for(lambda: [fields[5][:2] for fields in kernels(donor, peer)] == ["02"], "the timer")

    def test_who_reads_late_gets_all(self):
        with Donor() as donor, donor.connect() as peer:
            values = [random.randbytes(SEGMENT) for _ in range(8)]
            for i, value in enumerate(values):
                peer.ask("SET", f"k{i}", value)
            order = [random.randrange(8) for _ in range(3000)]
            peer.send(b"".join(request("GETRANGE", f"k{i}", i, -1) for i in order))
            with donor.connect() as other:
                wait_for(lambda: donor.info(other)["paused_clients"] == "1", "a pause")
                # What the donor read and has not run is safe from what it reads meanwhile.
                self.assertEqual(other.ask("SET", "other", b"*" * 65536), b"OK")
            for i in order:
                self.assertEqual(peer.read(), values[i][i:])

    def test_ten_thousand_come_and_go(self):
        with Donor() as donor, donor.connect() as other:
            for i in range(10000):
                with donor.connect(unix=i % 2 == 0) as peer:
                    if i % 5 == 0:
                        peer.send(b"*2\r\n$3\r\nGET\r\n$5\r\nab"[: i % 23])
                    if i % 7 == 0:
                        peer.reset()
            wait_for(lambda: (info := donor.info(other))["connected_clients"] == "1" and
                     info["total_connections_received"] == "10001", "all to have come and gone")
            files = os.listdir(f"/proc/{donor.process.pid}/fd")
            self.assertLess(len(files), 32)
            if not SANITIZED:
                wait_for(lambda: int(donor.info(other)["used_memory"]) < 5 * MIB, "memory to come back")

    def test_who_dies_in_the_middle_of_a_request_changes_nothing(self):
        with Donor() as donor, donor.connect() as other:
            other.ask("SET", "k", "old")
            whole = request("SET", "k", "new" * 20000)
            for cut in list(range(1, 60)) + [1000, 60000, len(whole) - 1]:
                peer = donor.connect()
                peer.send(whole[:cut])
                (peer.reset if cut % 2 else peer.socket.close)()
            wait_for(lambda: donor.info(other)["connected_clients"] == "1", "all to be gone")
            self.assertEqual(other.ask("GET", "k"), b"old")

    def test_kill_ends_a_connection_and_what_it_sent(self):
        with Donor() as donor, donor.connect() as other, donor.connect() as peer:
            other.ask("SET", "big", random.randbytes(SEGMENT))
            ident = peer.ask("CLIENT", "ID")
            # It waits for its answers to be read, with a SET behind them.
            peer.send(request("GET", "big") * 400 + request("SET", "late", "x"))
            wait_for(lambda: donor.info(other)["paused_clients"] == "1", "a pause")
            self.assertEqual(other.ask("CLIENT", "KILL", "ID", ident), 1)
            self.assertEqual(other.ask("CLIENT", "KILL", "ID", ident), 0)
            self.assertEqual(other.ask("CLIENT", "KILL", "ID", other.ask("CLIENT", "ID")), 0)
            peer.read_to_end()
            self.assertIsNone(other.ask("GET", "late"))


class TheEnd(unittest.TestCase):
    def test_sigterm_with_clients_is_clean(self):
        donor = Donor()
        with donor:
            peers = [donor.connect() for _ in range(20)]
            peers[0].ask("SET", "k", b"v" * SEGMENT)
            for peer in peers:
                peer.send(request("GET", "k") * 200)
        self.assertFalse(os.path.exists(donor.unix))
        for peer in peers:
            peer.socket.close()

    def test_a_core_has_no_values(self):
        def dumps(pid):
            os.kill(pid, signal.SIGABRT)
            return os.WCOREDUMP(os.waitpid(pid, 0)[1])

        def any_core():
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        with open("/proc/sys/kernel/core_pattern", encoding="ascii") as file:
            if file.read()[0] in "|/":
                self.skipTest("kernel.core_pattern sends cores elsewhere")
        donor = Donor(preexec=any_core)
        try:
            with donor.connect() as peer:
                peer.ask("SET", "k", "planted text")
            self.assertFalse(dumps(donor.process.pid))
            self.assertFalse([f for f in os.listdir(donor.folder.name) if f.startswith("core")])
        finally:
            donor.process.returncode = -1
            donor.process.stdout.close()
            donor.process.stderr.close()
            donor.folder.cleanup()


if __name__ == "__main__":
    unittest.main(verbosity=2)
