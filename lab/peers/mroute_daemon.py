"""Kernel multicast routing, set up through the MRT socket API (linux/mroute.h) without any tool.

Runs inside the forwarder's namespace as ``python -I -S mroute_daemon.py`` (standard library only, so that it
starts at once). The first line on stdin is a JSON object::

    {"interfaces": ["in0", "out0"], "routes": [{"source": "10.10.0.1", "group": "239.1.0.0",
     "input": "in0", "outputs": ["out0"]}]}

It answers ``{"ready": true}`` once every route is in the kernel, then one JSON line for each line. ``stats``:
``{"matched": n, "copies_due": n, "wrong_interface": n, "routes": n}``, in packets, of all routes that there
were. ``add`` or ``remove``, a space and a route as above: ``{"done": true}``, or ``{"error": …}``.
The kernel drops the routes when the socket closes, so the end of this process (or of its stdin) is the
clean-up.

Facts used: the kernel accepts 32 interfaces (MAXVIFS); a route matches (source, group) and forwards the
group unchanged; a copy leaves an interface when the packet's TTL is above the route's threshold for it.
SIOCGETSGCNT's ``pktcnt`` counts the packets that matched a route, ``wrong_if`` among them those that came in
elsewhere (net/ipv4/ipmr.c, ip_mr_forward).
"""

import fcntl
import json
import socket
import struct
import sys
from typing import Any

MRT_INIT = 200
MRT_ADD_VIF = 202
MRT_ADD_MFC = 204
MRT_DEL_MFC = 205
VIFF_USE_IFINDEX = 0x8
MAXVIFS = 32
SIOCGETSGCNT = 0x89E1  # SIOCPROTOPRIVATE + 1

_VIFCTL = struct.Struct("=HBBIi4s")
"""vifi, flags, threshold, rate limit, interface index, remote address."""

_MFCCTL = struct.Struct("@4s4sH32sIIIi")
"""origin, group, parent vif, a TTL threshold for each vif (0: not there), three counters, expire."""

_SG_REQUEST = struct.Struct("@4s4sLLL")
"""source, group, packets, bytes, packets that came in on the wrong interface."""


class Routes:
    """A multicast routing socket, the virtual interfaces and the routes made through it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_INIT, 1)
        self._vifs: dict[str, int] = {}
        self._outputs: dict[tuple[bytes, bytes], int] = {}
        """Number of outputs of each route, by source and group."""
        self._gone: tuple[int, ...] = (0, 0, 0)
        """What routes that were removed had counted: matched, copies due, wrong interface."""

    def add_interface(self, name: str) -> None:
        number = len(self._vifs)
        if number >= MAXVIFS:
            raise ValueError(f"interface {name} is number {number + 1}: the kernel routes between {MAXVIFS}")
        index = socket.if_nametoindex(name)
        vif = _VIFCTL.pack(number, VIFF_USE_IFINDEX, 1, 0, index, bytes(4))
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_ADD_VIF, vif)
        self._vifs[name] = number

    def add_route(self, source: str, group: str, parent: str, outputs: list[str]) -> None:
        thresholds = bytearray(MAXVIFS)
        for name in outputs:
            thresholds[self._vifs[name]] = 1  # the TTL that a datagram must exceed
        key = (socket.inet_aton(source), socket.inet_aton(group))
        route = _MFCCTL.pack(*key, self._vifs[parent], bytes(thresholds), 0, 0, 0, 0)
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_ADD_MFC, route)
        self._outputs[key] = len(outputs)

    def remove_route(self, source: str, group: str) -> None:
        key = (socket.inet_aton(source), socket.inet_aton(group))
        outputs = self._outputs.pop(key)
        counted = self._count(key, outputs)
        route = _MFCCTL.pack(*key, 0, bytes(MAXVIFS), 0, 0, 0, 0)
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_DEL_MFC, route)
        self._gone = tuple(map(sum, zip(self._gone, counted, strict=True)))

    def _count(self, key: tuple[bytes, bytes], outputs: int) -> tuple[int, int, int]:
        """Counts of one route: matched, copies due, wrong interface."""
        request = bytearray(_SG_REQUEST.pack(*key, 0, 0, 0))
        fcntl.ioctl(self._socket, SIOCGETSGCNT, request)
        _, _, packets, _, elsewhere = _SG_REQUEST.unpack(request)
        return packets - elsewhere, (packets - elsewhere) * outputs, elsewhere

    def stats(self) -> dict[str, int]:
        counts = [self._gone, *(self._count(key, outputs) for key, outputs in self._outputs.items())]
        matched, copies, wrong = map(sum, zip(*counts, strict=True))
        routes = len(self._outputs)
        return {"matched": matched, "copies_due": copies, "wrong_interface": wrong, "routes": routes}


def main() -> int:
    request = json.loads(sys.stdin.readline())
    routes = Routes()
    for name in request["interfaces"]:
        routes.add_interface(name)
    for route in request["routes"]:
        _change(routes, "add", route)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "stats":
            answer: dict[str, object] = {**routes.stats()}
        elif verb in ("add", "remove"):
            try:
                _change(routes, verb, json.loads(rest))
                answer = {"done": True}
            except (OSError, ValueError, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
        else:
            answer = {"error": f"{line.strip()!r}: 'stats', 'add ROUTE' and 'remove ROUTE' are understood"}
        print(json.dumps(answer), flush=True)
    return 0


def _change(routes: Routes, verb: str, route: dict[str, Any]) -> None:
    if verb == "add":
        routes.add_route(route["source"], route["group"], route["input"], route["outputs"])
    else:
        routes.remove_route(route["source"], route["group"])


if __name__ == "__main__":
    sys.exit(main())
