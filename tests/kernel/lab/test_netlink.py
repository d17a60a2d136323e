"""The lab's netlink socket: requests that are answered, refused, and not answered at all."""

from __future__ import annotations

import pytest
from pyroute2.netlink import NLM_F_REQUEST
from pyroute2.netlink.rtnl import RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink


def test_a_pair_across_namespaces_is_made_and_comes_up() -> None:
    with netns.namespace("near") as near, netns.namespace("far") as far:
        with Netlink(near) as here, Netlink(far) as there:
            here.add_veth({"ifname": "a", "index": 77, "mtu": 4000}, {"ifname": "b", "mtu": 4000}, far)
            (index,) = (link["index"] for link in there.links() if link.get("ifname") == "b")
            here.set_up(77)
            there.set_up(index)
            here.add_address(77, "10.1.2.3", 24)
        shown = netns.run(near, ["ip", "-o", "addr", "show", "a"])
        assert "inet 10.1.2.3/24" in shown
        assert "mtu 4000" in netns.run(far, ["ip", "-o", "link", "show", "b", "up"])


def test_what_the_kernel_refuses_says_what_was_asked_and_where() -> None:
    with netns.namespace("refuse") as name, Netlink(name) as netlink:
        netlink.add_veth({"ifname": "a"}, {"ifname": "b"}, name)
        with pytest.raises(netns.NetnsError, match=rf"adding the veth pair a, c in {name}: EEXIST"):
            netlink.add_veth({"ifname": "a"}, {"ifname": "c"}, name)
        with pytest.raises(netns.NetnsError, match=rf"setting interface 99 up in {name}: ENODEV"):
            netlink.set_up(99)
        assert {link.get("ifname") for link in netlink.links()} == {"lo", "a", "b"}, "it still works"


def test_a_request_that_is_never_answered_ends_at_its_deadline() -> None:
    """Without NLM_F_ACK the kernel says nothing of a change that it makes."""
    with netns.namespace("silent") as name, Netlink(name, timeout_s=0.2) as netlink:
        message = ifinfmsg()
        message["index"] = 1
        with pytest.raises(netns.NetnsError, match=r"a silent change in .*: asked 2 times, no answer within"):
            netlink.ask(message, RTM_NEWLINK, NLM_F_REQUEST, "a silent change")
        assert [link.get("ifname") for link in netlink.links()] == ["lo"], "the new socket works"


def test_a_namespace_that_does_not_exist_is_named() -> None:
    with pytest.raises(netns.NetnsError, match=r"netlink socket in mcl-none: No such file or directory"):
        Netlink("mcl-none")
