"""Existing interfaces lent to the lab for the length of a bench, and returned as they were.

An interface that has an address is in use, and is refused: moving it into a namespace would remove its
addresses and routes. Name, MTU, device features, packet steering, NAPI threads, and up or down are restored.
They are written into the interface's alias, so that ``clean`` can do the same when the lab was killed.
"""

import ipaddress
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

from lab.load.topology import SEGMENTATION
from lab.netns.namespaces import NetnsError
from lab.netns.netlink import IFF_UP, Netlink
from lab.netns.steering import RPS, THREADED, write_files, write_steering

ALIAS = "mcastlab: "
"""Prefix of an interface's :class:`Own` state in its alias (IFLA_IFALIAS)."""
ALIAS_BYTES = 255


@dataclass(frozen=True, slots=True)
class Loan:
    """An interface: its own ``name``, and its name in ``namespace``."""

    name: str
    namespace: str
    called: str


@dataclass
class Own:
    """How an interface was before it was lent, in a JSON object of few letters."""

    name: str
    mtu: int
    up: bool
    features: str
    """A letter for each of :data:`SEGMENTATION`: 1 on, 0 off, - unknown to the kernel."""
    threaded: str | None = None
    """``None`` before it is known: neither this nor packet steering has been changed by then."""
    rps: dict[str, str] = field(default_factory=dict)
    """Packet steering by receive queue, where there is some."""

    @property
    def alias(self) -> str:
        """Without packet steering where that is too long: of a killed lab's interface it is then lost."""
        whole = asdict(self)
        texts = (json.dumps(each, separators=(",", ":")) for each in (whole, {**whole, "rps": {}}))
        return next((text for text in texts if len(ALIAS + text) <= ALIAS_BYTES), "")

    def files(self, called: str) -> dict[str, str]:
        """Steering and threads of an interface with that name, for :func:`write_steering`."""
        if self.threaded is None:
            return {}
        queues = {RPS.format(called).replace("rx-*", queue): mask for queue, mask in self.rps.items()}
        return {RPS.format(called): "0", THREADED.format(called): self.threaded, **queues}


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
            features = home.features(loan.name, SEGMENTATION)
            letters = "".join(str(int(features[name])) if name in features else "-" for name in SEGMENTATION)
            own = Own(loan.name, link.get("mtu"), bool(link["flags"] & IFF_UP), letters)
            stack.callback(_return_loan, home, loan, own)
            home.set_down(link["index"])
            home.change(link["index"], ifname=loan.called, ifalias=ALIAS + own.alias, mtu=mtu)
            home.move(link["index"], loan.namespace)
            # Its files can be read where it is now.
            own.threaded, own.rps = _steering(loan)
            with Netlink(loan.namespace) as away:
                if (index := _index(away, loan.called)) is not None:
                    away.change(index, ifalias=ALIAS + own.alias)
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


def _steering(loan: Loan) -> tuple[str, dict[str, str]]:
    """Whether it has NAPI threads, and the packet steering of each queue that has some."""
    found = write_files(
        loan.namespace, dict.fromkeys((THREADED.format(loan.called), RPS.format(loan.called)))
    )
    threaded = found.pop(THREADED.format(loan.called)).strip()
    masks = {path.split("/")[-2]: text.strip() for path, text in found.items()}
    return threaded, {queue: mask for queue, mask in masks.items() if mask.strip("0,")}


def _return_loan(home: Netlink, loan: Loan, own: Own) -> None:
    with Netlink(loan.namespace) as away:
        _return(away, home, loan.namespace, loan.called, own)


def _return(away: Netlink, home: Netlink, namespace: str, called: str, own: Own) -> None:
    """Move an interface home under its own name, as it was."""
    index = _index(away, called)
    if index is not None:  # else it never left, or its card was removed
        write_steering(namespace, own.files(called))
        away.set_down(index)
        away.change(index, ifname=own.name, ifalias="", mtu=own.mtu)
        away.move(index, None)
    index = _index(home, own.name)
    if index is not None:
        letters = zip(SEGMENTATION, own.features, strict=True)
        home.set_features(own.name, {name: letter == "1" for name, letter in letters if letter != "-"})
        if own.up:
            home.set_up(index)


def _index(netlink: Netlink, name: str) -> int | None:
    return next((link["index"] for link in netlink.links() if link.get("ifname") == name), None)


def return_all(namespace: str) -> list[str]:
    """Return the interfaces that were lent to a killed lab for ``namespace``; returns their names."""
    returned = []
    with Netlink(namespace) as away, Netlink(None) as home:
        for link in away.links():
            alias = link.get("ifalias") or ""
            if alias.startswith(ALIAS):
                own = Own(**json.loads(alias.removeprefix(ALIAS)))
                _return(away, home, namespace, link.get("ifname"), own)
                returned.append(own.name)
    return returned
