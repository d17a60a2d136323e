"""The stamp that begins every payload, so that a receiver knows which datagram it has and when it was sent.

Big-endian, 18 bytes, the least payload that needs no Ethernet padding:

====== ===== =========================================================================================
offset bytes field
====== ===== =========================================================================================
0      2     magic, 0x4D43
2      2     stream
4      4     sequence number within the stream, from 0
8      8     send time, nanoseconds of CLOCK_REALTIME (the clock of the kernel's receive timestamps)
16     2     check: one's complement of the sum of all words above, the low sequence word counted twice
====== ===== =========================================================================================

The check finds a stamp with any one word damaged, and makes the stamp's own sum the negative of the low word
of the sequence number, whatever the time is. So the UDP checksum of a datagram is that of its template with
one word taken away: one addition per datagram, right for each, and different from one to the next. After the
stamp comes a filler, byte ``i`` of the payload being ``i mod 256``, which a receiver can check
without being told.
"""

ETHERNET_BYTES = 14
IP_BYTES = 20
UDP_BYTES = 8
HEADER_BYTES = ETHERNET_BYTES + IP_BYTES + UDP_BYTES
"""Before the payload of a frame as the generator makes it."""

MAGIC = 0x4D43
STAMP_BYTES = 18
