"""A network interface of the process that opens it, which nothing passes: a tap (tun(4))."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ: Final = struct.Struct("16sH22x")


class Tap:
    """Down, in the process's network namespace, and gone with :meth:`close` or the process.

    Raises:
        OSError: no tun module, or no CAP_NET_ADMIN.
    """

    def __init__(self, pattern: str) -> None:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = _IFREQ.pack(pattern.encode(), _IFF_TAP | _IFF_NO_PI)
            made = fcntl.ioctl(self._descriptor, _TUNSETIFF, request)
        except OSError:
            os.close(self._descriptor)
            raise
        self.name: str = _IFREQ.unpack(made)[0].rstrip(b"\0").decode()

    def close(self) -> None:
        os.close(self._descriptor)
