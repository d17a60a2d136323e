"""Existing interfaces lent to the lab for the length of a bench, and returned as they were.

An interface that has an address is in use, and is refused: moving it into a namespace would remove its
addresses and routes. Its name is written into its alias, so that ``clean`` can return it when the lab was
killed. Name, MTU, device features and up or down are restored; after a killed lab only name and MTU.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pyroute2.netlink import nlmsg

from lab.load.topology import SEGMENTATION
from lab.netns.namespaces import NetnsError
from lab.netns.netlink import IFF_UP, Netlink

ALIAS = "mcastlab: "
"""Prefix of an interface's own name and MTU in its alias (IFLA_IFALIAS)."""


@dataclass(frozen=True, slots=True)
class Loan:
    """An interface: its own ``name``, and its name in ``namespace``."""

    name: str
    namespace: str
    called: str


@contextmanager
def lent(loans: Sequence[Loan], mtu: int) -> Iterator[None]:
    """Move interfaces out of the caller's own namespace, and back again at the end.

    Raises :class:`NetnsError`, and nothing is moved, when one does not exist or carries an address.
    """
    if problems := obstacles([loan.name for loan in loans]):
        raise NetnsError("; ".join(problems))
    with Netlink(None) as home, ExitStack() as stack:
        there = {link.get("ifname"): link for link in home.links()}
        for loan in loans:
            link = there[loan.name]
            before = home.features(loan.name, SEGMENTATION)
            stack.callback(_return_loan, home, loan, link, before)
            home.set_down(link["index"])
            home.change(
                link["index"], ifname=loan.called, ifalias=f"{ALIAS}{loan.name} {link.get('mtu')}", mtu=mtu
            )
            home.move(link["index"], loan.namespace)
        yield


def obstacles(names: Sequence[str]) -> list[str]:
    """One sentence for each reason why interfaces cannot be lent: there is none, or it has an address.

    Link-local addresses (fe80::), which every interface has, are none.
    """
    with Netlink(None) as home:
        there = {link["index"]: link.get("ifname") for link in home.links()}
        addresses = [(there.get(index), address) for index, address in home.addresses()]
    return [
        *(f"interface {name}: there is none" for name in names if name not in there.values()),
        *(
            f"interface {name} has address {address}: it is in use and is not taken; remove the address first"
            for name, address in addresses
            if name in names and not ipaddress.ip_address(address).is_link_local
        ),
    ]


def _return_loan(home: Netlink, loan: Loan, link: nlmsg, features: dict[str, bool]) -> None:
    with Netlink(loan.namespace) as away:
        _return(away, loan.called, loan.name, mtu=link.get("mtu"))
    found = {one.get("ifname"): one for one in home.links()}
    home.set_features(loan.name, features)
    if link["flags"] & IFF_UP:
        home.set_up(found[loan.name]["index"])


def _return(away: Netlink, called: str, name: str, mtu: int) -> None:
    """Move an interface home under its own name."""
    index = next((link["index"] for link in away.links() if link.get("ifname") == called), None)
    if index is None:
        return  # it never left, or its card was removed
    away.set_down(index)
    away.change(index, ifname=name, ifalias="", mtu=mtu)
    away.move(index, None)


def return_all(namespace: str) -> list[str]:
    """Return the interfaces that were lent to a killed lab for ``namespace``; returns their names."""
    returned = []
    with Netlink(namespace) as away:
        for link in away.links():
            alias = link.get("ifalias") or ""
            if alias.startswith(ALIAS):
                name, own_mtu = alias.removeprefix(ALIAS).split()
                _return(away, link.get("ifname"), name, mtu=int(own_mtu))
                returned.append(name)
    return returned
