"""Device features (``ethtool -K``) of an interface in another namespace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pyroute2.ethtool.ioctl import IoctlEthtool

from lab.netns.namespaces import NetnsError


class InNamespace(Protocol):
    """A socket that was opened in a namespace."""

    def fileno(self) -> int: ...


def features_of(opened: InNamespace, interface: str, names: Iterable[str]) -> dict[str, bool]:
    """Which of these features are on, those left out that the kernel does not know."""
    features = _device(opened, interface).get_features()
    known = set(features.keys())
    return {name: features.is_active(name) for name in names if name in known}


def set_features(opened: InNamespace, interface: str, wanted: dict[str, bool]) -> None:
    """Switch features of ``interface``; :class:`NetnsError` names those that did not take.

    The kernel takes the namespace of an ethtool ioctl from the socket it is made on, and any socket will do:
    so ``opened``, which is open in the interface's namespace, saves a process there.
    """
    device = _device(opened, interface)
    features = device.get_features()
    known = set(features.keys())
    for name, on in wanted.items():
        if name in known and features.is_active(name) != on:
            features[name] = on
    device.set_features(features)
    after = device.get_features()
    # A kernel without a feature has it off.
    stuck = [name for name, on in wanted.items() if (name in known and after.is_active(name)) != on]
    if stuck:
        raise NetnsError(f"interface {interface}: cannot switch {', '.join(stuck)} as asked")


def _device(opened: InNamespace, interface: str) -> IoctlEthtool:
    device = IoctlEthtool()
    device.close()
    device.sock = opened
    device.change_ifname(interface)
    return device
