"""An ordinary UDP socket that joins a group: what any receiver gets.

Run inside a namespace: ``udp_receiver.py ADDRESS GROUP PORT``, the address being that of the interface to
join on. It says "ready", receives until its standard input is closed and nothing has come for a while, and
prints every payload in hexadecimal, one a line.
"""

from __future__ import annotations

import select
import socket
import sys

QUIET_S = 0.3
SO_RCVBUFFORCE = 33


def main(address: str, group: str, port: str) -> None:
    received = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        receiver.bind((group, int(port)))
        membership = socket.inet_aton(group) + socket.inet_aton(address)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        print("ready", flush=True)
        open_ended = True
        while True:
            watched = [receiver, sys.stdin] if open_ended else [receiver]
            ready, _, _ = select.select(watched, [], [], None if open_ended else QUIET_S)
            if receiver in ready:
                received.append(receiver.recv(65536))
            elif sys.stdin in ready:
                open_ended = False
            else:
                break
    for payload in received:
        print(payload.hex())


if __name__ == "__main__":
    main(*sys.argv[1:])
