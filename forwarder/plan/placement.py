"""Rule placement: the worker that owns a rule when rules are hashed, and how even that is.

The hash is of (group, port), as the seed document has it, so that it can be computed from a datagram's
header. It uses only what a classic BPF program has, on unsigned 32-bit numbers: multiply, exclusive or,
shift, compare. All numbers below are taken modulo 2**32:

    mix(h)        = h ^= h >> 16; h *= 0x85EBCA6B; h ^= h >> 13; h *= 0xC2B2AE35; h ^= h >> 16
    hash          = mix(group ^ port * 0x9E3779B1)
    flow hash     = mix(group ^ source * 0x85EBCA77 ^ (source port << 16 | port) * 0x9E3779B1)
    seed(slot)    = mix((slot + 1) * 0x9E3779B9)                     a constant in the program
    score(slot)   = s = (hash ^ seed(slot)) * 0x7FEB352D; s ^= s >> 15; s * 0x846CA68B

    modulo:       owner = hash % members
    rendezvous:   owner = the slot with the highest score; the lowest such slot on a tie

``mix`` is MurmurHash3's finaliser, the constants of ``score`` are those of the "lowbias32" integer hash.
Rendezvous hashing is consistent: a member more takes its share from all others and nothing else moves. Its
price is a score per member: 12 instructions each, so 4,096 (BPF_MAXINSNS) are enough for 300 members.
The reasons are in docs/decisions/0002-placement-hash.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forwarder.plan.strategy import Hashing, RulePlacement, Strategy

U32 = 0xFFFF_FFFF
MAX_MEMBERS = 300
"""Most members of a group whose owner program still fits in one classic BPF program."""

PORT_FACTOR = 0x9E3779B1
SOURCE_FACTOR = 0x85EBCA77
MIX_FACTORS = (0x85EBCA6B, 0xC2B2AE35)
_SLOT_FACTOR = 0x9E3779B9
SCORE_FACTORS = (0x7FEB352D, 0x846CA68B)
_CHUNK = 1 << 20


def _mix(h: Any) -> Any:
    """``mix`` of an integer, or of each word of a ``uint32`` array."""
    h = (h ^ h >> 16) * MIX_FACTORS[0] & U32
    h = (h ^ h >> 13) * MIX_FACTORS[1] & U32
    return h ^ h >> 16


def rule_hash(group: int, port: int) -> int:
    """The 32-bit hash of a destination; ``group`` as an integer in host order."""
    return int(_mix(group ^ port * PORT_FACTOR & U32))


def slot_seed(slot: int) -> int:
    return int(_mix((slot + 1) * _SLOT_FACTOR & U32))


def score(hashed: Any, seed: Any) -> Any:
    """The score of a hash at the slot of this seed, or of each of a ``uint32`` array at each."""
    s = (hashed ^ seed) * SCORE_FACTORS[0] & U32
    return (s ^ s >> 15) * SCORE_FACTORS[1] & U32


def _best_slot(hashed: int, members: int) -> int:
    return max(range(members), key=lambda slot: (score(hashed, slot_seed(slot)), -slot))


def owner(group: int, port: int, members: int, hashing: Hashing = Hashing.RENDEZVOUS) -> int:
    """The slot, 0 to ``members`` − 1, that owns ``group:port``."""
    hashed = rule_hash(group, port)
    return hashed % members if hashing is Hashing.MODULO else _best_slot(hashed, members)


def flow_owner(source: int, group: int, source_port: int, port: int, members: int) -> int:
    """The slot, 0 to ``members`` − 1, that a flow goes to in a group whose members come and go.

    Addresses are integers in host order.
    """
    ports = source_port << 16 | port
    return _best_slot(_mix(group ^ source * SOURCE_FACTOR & U32 ^ ports * PORT_FACTOR & U32), members)


def owners(keys: Sequence[tuple[int, int]], members: int, hashing: Hashing = Hashing.RENDEZVOUS) -> list[int]:
    """:func:`owner` of many (group, port) keys at once."""
    if not keys:
        return []
    import numpy as np  # here: mcrctl, and plans that hash no rules, answer sooner without it

    destinations = np.array(keys, dtype=np.uint32)  # (keys, 2)
    hashed = _mix(destinations[:, 0] ^ destinations[:, 1] * np.uint32(PORT_FACTOR))
    if hashing is Hashing.MODULO:
        return [int(slot) for slot in hashed % np.uint32(members)]
    seeds = np.array([slot_seed(slot) for slot in range(members)], dtype=np.uint32)
    rows = max(1, _CHUNK // members)
    found: list[int] = []
    for start in range(0, len(hashed), rows):
        scores = score(hashed[start : start + rows, None], seeds)
        found += np.argmax(scores, axis=1).tolist()  # the first, so the lowest, of equals
    return found


def moved(keys: Sequence[tuple[int, int]], before: int, after: int, hashing: Hashing) -> int:
    """How many keys change owner when a group goes from ``before`` to ``after`` members."""
    pairs = zip(owners(keys, before, hashing), owners(keys, after, hashing), strict=True)
    return sum(old != new for old, new in pairs)


def imbalance(counts: Sequence[int]) -> float:
    """The fullest member's count over the mean: 1 is even; 1 as well where there is nothing to share."""
    total = sum(counts)
    return max(counts) * len(counts) / total if total else 1.0


@dataclass(frozen=True)
class Distribution:
    """Rules of one worker group by worker."""

    group: int
    workers: int
    rules: int
    """Rules of the group, each counted once."""
    least: int
    most: int
    """Rules held by a worker."""
    imbalance: float
    """The most over the mean: 1 is even."""
    moved_by_one_more: int
    moved_by_one_less: int | None
    """Rules that would move if the group had one worker more or less; 0 if every worker holds all rules,
    ``None`` if the group has one worker."""


def distribution(
    group: int, held: Sequence[int], keys: Sequence[tuple[int, int]], strategy: Strategy
) -> Distribution:
    """The distribution of rules with destinations ``keys`` over workers that hold ``held`` rules each."""
    workers = len(held)

    def moves(after: int) -> int:
        hashed = strategy.placement is RulePlacement.HASH
        return moved(keys, workers, after, strategy.hashing) if hashed else 0

    less = moves(workers - 1) if workers > 1 else None
    even = imbalance(held)
    return Distribution(group, workers, len(keys), min(held), max(held), even, moves(workers + 1), less)
