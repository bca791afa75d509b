"""road: two hosts and the router between them, each a network namespace of the test's own.

    near (NEAR) ── router ── far (FAR)

    road = Road()
    spawn(road.far + [...])        runs it there
    road.cut()                     the router drops what comes; no link goes down, nobody is told
    road.heal()
    road.slow("8mbit")             both ways
"""

import itertools
import os

from harness import Skip, at_exit, need, run

NEAR, FAR = "10.97.1.2", "10.97.2.2"


class Road:
    _count = itertools.count(1)

    def __init__(self):
        need("ip")
        name = f"fsw-{os.getpid()}-road{next(Road._count)}"
        self.names = {place: f"{name}-{place}" for place in ("near", "router", "far")}
        for each in self.names.values():
            self._ip("netns", "add", each)
            at_exit(run, ["ip", "netns", "del", each])
            self._ip("-n", each, "link", "set", "lo", "up")
        self._lay("near", NEAR, "10.97.1.1")
        self._lay("far", FAR, "10.97.2.1")
        self.heal()

    @staticmethod
    def _ip(*arguments):
        done = run(["ip", *arguments])
        if done.returncode != 0:
            raise Skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    def _lay(self, place, address, gateway):
        """The router's end of a link has the name of the place it leads to."""
        there, router = self.names[place], self.names["router"]
        self._ip("-n", router, "link", "add", place, "type", "veth", "peer", "name", "road", "netns", there)
        for name, link, own in ((there, "road", address), (router, place, gateway)):
            self._ip("-n", name, "address", "add", f"{own}/24", "dev", link)
            self._ip("-n", name, "link", "set", link, "up")
        self._ip("-n", there, "route", "add", "default", "via", gateway)

    def _at(self, place):
        """A prefix for commands. (nsenter keeps PR_SET_PDEATHSIG, unlike ip.)"""
        return ["nsenter", f"--net=/run/netns/{self.names[place]}"]

    @property
    def near(self):
        return self._at("near")

    @property
    def far(self):
        return self._at("far")

    def _forward(self, value):
        done = run(self._at("router") + ["sh", "-c", f"echo {value} > /proc/sys/net/ipv4/ip_forward"])
        if done.returncode != 0:
            raise Skip(f"ip_forward: {done.stderr.strip()}")

    def cut(self):
        self._forward(0)

    def heal(self):
        self._forward(1)

    def slow(self, rate):
        for place in ("near", "far"):
            self._ip("netns", "exec", self.names["router"], need("tc"), "qdisc", "replace", "dev", place,
                     "root", "tbf", "rate", rate, "burst", "32kb", "latency", "200ms")
