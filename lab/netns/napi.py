"""NAPI threads: an interface's receive work in kernel threads that can be pinned, in place of softirq.

A device's ``threaded`` file in sysfs switches them on (Linux 5.12). The kernel names the threads by interface
(``napi/in0-8197``), so namespaces repeat the names; their pids come from the generic netlink family *netdev*
(Linux 6.7, Documentation/netlink/specs/netdev.yaml).
"""

import os
from collections.abc import Sequence
from typing import Final

import pyroute2.netlink as nl
from pyroute2.netlink.marshal import Marshal

from lab.netns.namespaces import NetnsError
from lab.netns.netlink import CHANGE, NetlinkSocket

FAMILY: Final = "netdev"
NAPI_GET: Final = 11
"""NETDEV_CMD_NAPI_GET."""
REALTIME: Final = 10
"""Real-time priority of a thread that must not wait for a generator on its CPU."""


class NapiMessage(nl.genlmsg):  # type: ignore[misc]
    """A NAPI instance, as NETDEV_CMD_NAPI_GET describes it."""

    nla_map = (
        ("NETDEV_A_NAPI_UNSPEC", "none"),
        ("NETDEV_A_NAPI_IFINDEX", "uint32"),
        ("NETDEV_A_NAPI_ID", "uint32"),
        ("NETDEV_A_NAPI_IRQ", "uint32"),
        ("NETDEV_A_NAPI_PID", "uint32"),
    )


class NapiSocket(NetlinkSocket):
    """Asks the kernel about the NAPI instances of ``namespace``."""

    protocol = nl.NETLINK_GENERIC

    def __init__(self, namespace: str | None) -> None:
        marshal = Marshal()
        marshal.msg_map = {nl.GENL_ID_CTRL: nl.ctrlmsg}
        super().__init__(namespace, marshal)
        request = nl.ctrlmsg()
        request["cmd"], request["version"] = nl.CTRL_CMD_GETFAMILY, 1
        request["attrs"] = [("CTRL_ATTR_FAMILY_NAME", FAMILY)]
        (answer,) = self.ask(request, nl.GENL_ID_CTRL, CHANGE, f"looking up the netlink family {FAMILY!r}")
        self._family: int = answer.get("CTRL_ATTR_FAMILY_ID")
        marshal.msg_map[self._family] = NapiMessage

    def pids(self, index: int) -> list[int]:
        """The threads of the interface with this index; none where its NAPI is not threaded."""
        request = NapiMessage()
        request["cmd"], request["version"] = NAPI_GET, 1
        request["attrs"] = [("NETDEV_A_NAPI_IFINDEX", index)]
        what = f"listing the NAPI instances of interface {index}"
        found = self.ask(request, self._family, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, what)
        return [pid for each in found if (pid := each.get("NETDEV_A_NAPI_PID"))]


def pin(pids: Sequence[int], interface: str, cpu: int, *, realtime: bool = False) -> None:
    """Pin the threads of an interface to a CPU; ``realtime``: before everything else there.

    Raises NetnsError if there are none.
    """
    if not pids:
        raise NetnsError(f"interface {interface} has no NAPI threads: its driver or this kernel has none")
    for pid in pids:
        os.sched_setaffinity(pid, {cpu})
        if realtime:
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(REALTIME))
