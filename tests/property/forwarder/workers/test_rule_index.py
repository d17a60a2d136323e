"""Rules as the supervisor sends them to workers, against what the kernels look up and read."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from packet_support import examples, outputs
from packet_support.frames import addresses, groups, ports, raw_address, raw_port

from forwarder.engines.packet.rule_table import pack_key
from forwarder.rules.model import ForwardingRule, Output
from forwarder.workers.rule_index import Numbering, worker_rule

names = st.sampled_from(["eth0", "eth1", "eth2", "bond0.7"])


@examples(200)
@given(
    st.lists(names, min_size=1, unique=True),
    groups,
    ports,
    st.lists(
        st.builds(
            Output,
            group=groups,
            port=ports,
            interface=names,
            ttl=st.none() | st.integers(1, 255),
            source=st.none() | st.just("preserve") | addresses.map(IPv4Address),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_rule_reaches_the_kernels_with_the_key_and_the_outputs_that_they_expect(
    interfaces: list[str], group: str, port: int, given_outputs: list[Output]
) -> None:
    inputs, links = Numbering(8), Numbering(8)
    assert [inputs[name] for name in interfaces] == [interfaces.index(name) for name in interfaces]
    rule = ForwardingRule(
        rule_id="r",
        input_interface=interfaces[-1],
        input_group=IPv4Address(group),
        input_port=port,
        outputs=tuple(given_outputs),
    )
    made = worker_rule(rule, 5, inputs, links)
    assert made.slot == 5
    assert made.key == pack_key(len(interfaces) - 1, raw_port(port), raw_address(group))
    for output, row in zip(given_outputs, made.outputs, strict=True):
        expected = outputs.Output(
            group=str(output.group),
            port=output.port,
            ttl=output.ttl or 0,
            source="interface" if output.source is None else str(output.source),
            link=links[output.interface],
        )
        assert list(row) == expected.row().tolist()
