"""The constants and layouts of ``forwarder.abi`` against this machine's own kernel headers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from forwarder.abi import af_packet as ap
from forwarder.abi import io_uring, mempolicy

_PREFIXES = {
    ap: ("ETH_P_", "PACKET_", "TPACKET_V", "TP_STATUS_", "VIRTIO_NET_HDR_"),
    io_uring: ("IORING_OP_", "IOSQE_", "IORING_POLL_", "IORING_CQE_", "IORING_ENTER_", "IORING_SETUP_"),
    mempolicy: ("MPOL_",),
}
_INCLUDES = (
    "stdio stddef linux/if_ether linux/if_packet linux/virtio_net linux/io_uring linux/filter linux/mempolicy"
)
_SIZES = {
    "struct sockaddr_ll": ap.SOCKADDR_LL.size,
    "struct tpacket_req": ap.TPACKET_REQ.size,
    "struct tpacket_stats": ap.TPACKET_STATS.size,
    "struct fanout_args": ap.FANOUT_ARGS.size,
    "struct sock_fprog": ap.SOCK_FPROG.size,
    "struct sock_filter": ap.SOCK_FILTER.size,
    "struct virtio_net_hdr": ap.VNET_HDR_BYTES,
    "struct io_uring_sqe": io_uring.SQE_WORDS * 8,
    "struct io_uring_cqe": io_uring.CQE_WORDS * 8,
}
_OFFSETS = {
    ("struct tpacket2_hdr", "tp_status"): ap.TP2_STATUS,
    ("struct tpacket2_hdr", "tp_len"): ap.TP2_LEN,
    ("struct tpacket2_hdr", "tp_snaplen"): 8,
    ("struct tpacket2_hdr", "tp_mac"): 12,
    ("struct tpacket2_hdr", "tp_net"): 14,
    ("struct tpacket2_hdr", "tp_sec"): ap.TP2_SEC,
    ("struct tpacket2_hdr", "tp_nsec"): ap.TP2_NSEC,
    ("struct virtio_net_hdr", "flags"): 0,
    ("struct virtio_net_hdr", "gso_type"): 1,
    ("struct virtio_net_hdr", "hdr_len"): 2,
    ("struct virtio_net_hdr", "gso_size"): ap.VNET_GSO_SIZE,
    ("struct virtio_net_hdr", "csum_start"): 6,
    ("struct virtio_net_hdr", "csum_offset"): 8,
    ("struct io_uring_sqe", "fd"): 4,
    ("struct io_uring_sqe", "addr"): 16,
    ("struct io_uring_sqe", "len"): 24,
    ("struct io_uring_sqe", "poll32_events"): 28,
    ("struct io_uring_sqe", "user_data"): 32,
    ("struct io_uring_cqe", "res"): 8,
}


@pytest.fixture(scope="module")
def header_values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Names and expressions as the C compiler sees them; macros newer than the headers are left out."""
    compiler = shutil.which("cc")
    if compiler is None or not Path("/usr/include/linux/if_packet.h").exists():
        pytest.skip("no C compiler or no kernel headers")
    lines = [f"#include <{name}.h>" for name in _INCLUDES.split()]
    lines.append('#define SHOW(text, value) printf("%s|%lld\\n", text, (long long)(value))')
    lines.append("int main(void) {")
    for name in _constants():
        shown = f'SHOW("{name}", {name});'
        # The IORING_OP_, TPACKET_V and IOSQE_..._BIT names are enumerators, the others macros.
        enumerator = name.startswith(("IORING_OP_", "TPACKET_V"))
        lines.append(shown if enumerator else f"#ifdef {name}\n{shown}\n#endif")
    lines += [f'SHOW("{kind}", sizeof({kind}));' for kind in _SIZES]
    lines += [f'SHOW("{kind}.{field}", offsetof({kind}, {field}));' for kind, field in _OFFSETS]
    lines.append('SHOW("TPACKET2_HDRLEN", TPACKET2_HDRLEN);')
    lines.append("}")
    directory = tmp_path_factory.mktemp("headers")
    source = directory / "show.c"
    source.write_text("\n".join(lines))
    subprocess.run([compiler, "-o", directory / "show", source], check=True)
    output = subprocess.run([directory / "show"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split("|") for line in output.splitlines())}


def _constants() -> dict[str, int]:
    return {
        name: value
        for module, prefixes in _PREFIXES.items()
        for name, value in vars(module).items()
        if name.startswith(prefixes) and isinstance(value, int)
    }


def test_every_constant_has_the_headers_value(header_values: dict[str, int]) -> None:
    ours = _constants()
    known = {name: value for name, value in header_values.items() if name in ours}
    assert len(known) >= 0.8 * len(ours), "these headers are too old to tell"
    assert {name: ours[name] for name in known} == known


def test_every_structure_has_the_headers_size_and_offsets(header_values: dict[str, int]) -> None:
    ours = {**_SIZES, **{f"{kind}.{field}": offset for (kind, field), offset in _OFFSETS.items()}}
    assert {name: header_values[name] for name in ours} == ours
    assert header_values["TPACKET2_HDRLEN"] == ap.TP2_HDRLEN


def test_a_slots_offsets_follow_from_the_kernels_arithmetic() -> None:
    """``tpacket_rcv``: netoff = TPACKET_ALIGN(tp_hdrlen + 16) + tp_reserve + sizeof(virtio_net_hdr)."""
    aligned = (ap.TP2_HDRLEN + 16 + 15) & ~15
    assert aligned + ap.RESERVE + ap.VNET_HDR_BYTES == ap.NET_OFFSET
    assert ap.MAC_OFFSET == ap.NET_OFFSET - 14
    assert ap.VNET_OFFSET == ap.MAC_OFFSET - ap.VNET_HDR_BYTES
