"""What the tests of the packet kernels share: scapy-made frames, what Linux does to them, a fake wire."""

from __future__ import annotations

from hypothesis import settings

from forwarder.abi.jit import JIT_DISABLED


def examples(count: int) -> settings:
    """So many hypothesis examples; a fifth of them where every kernel is interpreted.

    No deadline: the first example compiles.
    """
    return settings(max_examples=max(count // 5, 5) if JIT_DISABLED else count, deadline=None)
