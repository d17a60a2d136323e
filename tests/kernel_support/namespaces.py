"""The network namespaces of this test process, among those of other labs on the machine."""

from __future__ import annotations

from lab.netns import namespaces as netns
from lab.netns import ownership


def own_names() -> list[str]:
    """Those that this process made and has not removed."""
    mine = ownership.new_name("x")[:-1]
    return [name for name in netns.names() if name.startswith(mine)]
