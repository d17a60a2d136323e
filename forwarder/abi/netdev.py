"""What a network device can do with XDP, and a wait for what is being received (``linux/netdev.h``)."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

XDP_BASIC, XDP_REDIRECT, XDP_TRANSMIT = 1, 2, 4
"""``enum netdev_xdp_act``: the driver runs a program, obeys its redirection, takes redirected frames."""

_NLMSG_ERROR, _GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 2, 0x10, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2
_NETDEV_CMD_DEV_GET, _NETDEV_A_DEV_IFINDEX, _NETDEV_A_DEV_XDP_FEATURES = 1, 1, 3
_NLM_F_REQUEST: Final = 1
_HEADER: Final = struct.Struct("=IHHIIBBxx")
"""``struct nlmsghdr``, then ``struct genlmsghdr``"""
_ATTRIBUTE: Final = struct.Struct("=HH")


def xdp_features(ifindex: int) -> int:
    """What the device does, as flags XDP_*. Raises OSError: there is no such device (ENODEV)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 16) as generic:
        name = _attribute(_CTRL_ATTR_FAMILY_NAME, b"netdev\0")
        family = _ask(generic, _GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, name)[_CTRL_ATTR_FAMILY_ID]
        which = _attribute(_NETDEV_A_DEV_IFINDEX, ifindex.to_bytes(4, "little"))
        device = _ask(generic, int.from_bytes(family, "little"), _NETDEV_CMD_DEV_GET, which)
        return int.from_bytes(device[_NETDEV_A_DEV_XDP_FEATURES], "little")


def wait_for_receivers() -> None:
    """Wait until frames that CPUs handle now are dealt with (``packet_release``: ``synchronize_net``)."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).close()


def _attribute(kind: int, value: bytes) -> bytes:
    return (_ATTRIBUTE.pack(4 + len(value), kind) + value).ljust((4 + len(value) + 3) & ~3, b"\0")


def _ask(generic: socket.socket, family: int, command: int, attributes: bytes) -> dict[int, bytes]:
    """The attributes of the reply to a request of generic netlink."""
    generic.send(_HEADER.pack(20 + len(attributes), family, _NLM_F_REQUEST, 0, 0, command, 1) + attributes)
    reply = generic.recv(1 << 16)
    if _HEADER.unpack_from(reply)[1] == _NLMSG_ERROR:
        error = -int.from_bytes(reply[16:20], "little", signed=True)
        raise OSError(error, os.strerror(error))
    return dict(_attributes(reply[_HEADER.size :]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]
