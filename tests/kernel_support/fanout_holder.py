"""Another program with fanout groups of its own: ``fanout_holder.py INTERFACE COUNT``.

It asks the kernel for a group id, as a forwarder does, then takes the COUNT ids after it by number; says so,
and holds them until its standard input ends.
"""

from __future__ import annotations

import socket
import sys

from forwarder.abi import af_packet as ap


def member(interface: str, group: int, flags: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((interface, ap.ETH_P_ALL))
    value = ap.FANOUT_ARGS.pack(group, ap.PACKET_FANOUT_CPU | flags, 0)
    sock.setsockopt(ap.SOL_PACKET, ap.PACKET_FANOUT, value)
    return sock


def main() -> None:
    interface, count = sys.argv[1], int(sys.argv[2])
    first = member(interface, 0, ap.PACKET_FANOUT_FLAG_UNIQUEID)
    taken = first.getsockopt(ap.SOL_PACKET, ap.PACKET_FANOUT) & 0xFFFF
    held = [first, *(member(interface, (taken + n) & 0xFFFF, 0) for n in range(1, count + 1))]
    print(f"holds {len(held)} groups from {taken}", flush=True)
    sys.stdin.read()
    for sock in held:
        sock.close()


if __name__ == "__main__":
    main()
