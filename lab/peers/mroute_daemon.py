"""Kernel multicast routing, set up through the MRT socket API (linux/mroute.h) without any tool.

Runs inside the forwarder's namespace as ``python -I -S mroute_daemon.py`` (standard library only, so that it
starts at once). The first line on stdin is a JSON object::

    {"interfaces": ["in0", "out0"], "routes": [{"source": "10.10.0.1", "group": "239.1.0.0",
     "input": "in0", "outputs": ["out0"], "ttl": 1}]}

It answers ``{"ready": true}`` once every route is in the kernel, then one JSON line for each line ``stats``:
``{"matched": n, "copies_due": n, "wrong_interface": n, "routes": n}``, in packets. The kernel drops the
routes when the socket closes, so the end of this process (or of its stdin) is the clean-up.

Facts used: the kernel accepts 32 interfaces (MAXVIFS); a route matches (source, group) and forwards the
group unchanged; a copy leaves an interface when the packet's TTL is above the route's threshold for it.
SIOCGETSGCNT's ``pktcnt`` counts the packets that matched a route, ``wrong_if`` among them those that came in
elsewhere (net/ipv4/ipmr.c, ip_mr_forward).
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys

MRT_INIT = 200
MRT_ADD_VIF = 202
MRT_ADD_MFC = 204
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
        self._keys: list[tuple[bytes, bytes, int]] = []

    def add_interface(self, name: str) -> None:
        number = len(self._vifs)
        if number >= MAXVIFS:
            raise ValueError(f"interface {name} is number {number + 1}: the kernel routes between {MAXVIFS}")
        index = socket.if_nametoindex(name)
        vif = _VIFCTL.pack(number, VIFF_USE_IFINDEX, 1, 0, index, bytes(4))
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_ADD_VIF, vif)
        self._vifs[name] = number

    def add_route(self, source: str, group: str, parent: str, outputs: list[str], ttl: int) -> None:
        thresholds = bytearray(MAXVIFS)
        for name in outputs:
            thresholds[self._vifs[name]] = ttl
        key = (socket.inet_aton(source), socket.inet_aton(group))
        route = _MFCCTL.pack(*key, self._vifs[parent], bytes(thresholds), 0, 0, 0, 0)
        self._socket.setsockopt(socket.IPPROTO_IP, MRT_ADD_MFC, route)
        self._keys.append((*key, len(outputs)))

    def stats(self) -> dict[str, int]:
        matched = copies = wrong = 0
        for source, group, outputs in self._keys:
            request = bytearray(_SG_REQUEST.pack(source, group, 0, 0, 0))
            fcntl.ioctl(self._socket, SIOCGETSGCNT, request)
            _, _, packets, _, elsewhere = _SG_REQUEST.unpack(request)
            matched += packets - elsewhere
            copies += (packets - elsewhere) * outputs
            wrong += elsewhere
        return {
            "matched": matched,
            "copies_due": copies,
            "wrong_interface": wrong,
            "routes": len(self._keys),
        }


def main() -> int:
    request = json.loads(sys.stdin.readline())
    routes = Routes()
    for name in request["interfaces"]:
        routes.add_interface(name)
    for route in request["routes"]:
        routes.add_route(route["source"], route["group"], route["input"], route["outputs"], route["ttl"])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        if line.strip() == "stats":
            print(json.dumps(routes.stats()), flush=True)
        else:
            print(json.dumps({"error": f"{line.strip()!r}: only 'stats' is understood"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
