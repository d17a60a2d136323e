"""AF_PACKET: constants and memory layouts from ``linux/if_packet.h`` and ``linux/virtio_net.h``.

Offsets are bytes. The kernel lays out one TPACKET_V2 slot for a SOCK_RAW socket with PACKET_VNET_HDR as
(``tpacket_rcv`` in ``net/packet/af_packet.c``)::

    0            tpacket2_hdr (32 bytes), sockaddr_ll (20 bytes)
    net-24       virtio_net_hdr (10 bytes)
    net-14       Ethernet header (14 bytes)
    net          network header, at align16(52 + 16) + PACKET_RESERVE + 10

With ``PACKET_RESERVE = 6`` the network header stands at byte 96: IPv4 and UDP fields and the payload are
then aligned to four bytes, so compiled code reads them as whole words.
"""

import struct
from typing import Final

ETH_P_ALL: Final = 0x0003
ETH_P_IP: Final = 0x0800

SOL_PACKET: Final = 263

PACKET_RX_RING: Final = 5
PACKET_STATISTICS: Final = 6
PACKET_COPY_THRESH: Final = 7
PACKET_VERSION: Final = 10
PACKET_RESERVE: Final = 12
PACKET_TX_RING: Final = 13
PACKET_VNET_HDR: Final = 15
PACKET_FANOUT: Final = 18
PACKET_QDISC_BYPASS: Final = 20
PACKET_FANOUT_DATA: Final = 22
PACKET_IGNORE_OUTGOING: Final = 23

PACKET_FANOUT_HASH: Final = 0
PACKET_FANOUT_LB: Final = 1
PACKET_FANOUT_CPU: Final = 2
PACKET_FANOUT_CBPF: Final = 6
PACKET_FANOUT_FLAG_IGNORE_OUTGOING: Final = 0x4000
PACKET_FANOUT_FLAG_UNIQUEID: Final = 0x2000

TPACKET_V2: Final = 1
TPACKET_V3: Final = 2

TP_STATUS_KERNEL: Final = 0
TP_STATUS_USER: Final = 1 << 0
TP_STATUS_COPY: Final = 1 << 1
TP_STATUS_CSUMNOTREADY: Final = 1 << 3
TP_STATUS_VLAN_VALID: Final = 1 << 4

# of a transmit ring
TP_STATUS_AVAILABLE: Final = 0
TP_STATUS_SEND_REQUEST: Final = 1 << 0
TP_STATUS_WRONG_FORMAT: Final = 1 << 2

# struct tpacket2_hdr
TP2_STATUS, TP2_LEN, TP2_SEC, TP2_NSEC = 0, 4, 16, 20
TP2_HDRLEN: Final = 52
"""``TPACKET2_HDRLEN``: the header and the ``sockaddr_ll`` behind it."""

TX_OFFSET: Final = TP2_HDRLEN - 20
"""Where a frame, and its virtio_net_hdr first, begins in a slot of a transmit ring."""

RESERVE: Final = 6
NET_OFFSET: Final = 96
"""Where the network header stands in a slot with ``PACKET_RESERVE = RESERVE`` and a virtio_net_hdr."""
MAC_OFFSET: Final = NET_OFFSET - 14
VNET_OFFSET: Final = MAC_OFFSET - 10

# struct virtio_net_hdr
VNET_HDR_BYTES: Final = 10
VNET_GSO_SIZE: Final = 4
VIRTIO_NET_HDR_F_NEEDS_CSUM: Final = 1
VIRTIO_NET_HDR_F_DATA_VALID: Final = 2
VIRTIO_NET_HDR_GSO_UDP_L4: Final = 5

SOCKADDR_LL: Final = struct.Struct("=HHiHBB8s")
"""family, protocol (network order), ifindex, hatype, pkttype, halen, address."""
TPACKET_REQ: Final = struct.Struct("=IIII")
"""block size, block count, frame size, frame count."""
TPACKET_STATS: Final = struct.Struct("=II")
"""packets, drops; the kernel resets both when they are read."""
FANOUT_ARGS: Final = struct.Struct("=HHI")
"""group id, type and flags, max_num_members."""
SOCK_FPROG: Final = struct.Struct("@HP")
"""length, address of the ``sock_filter`` array."""
SOCK_FILTER: Final = struct.Struct("=HBBI")
"""code, jump if true, jump if false, k."""
