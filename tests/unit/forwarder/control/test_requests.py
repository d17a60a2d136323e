"""Requests on the control socket: what is refused names field, value and what is allowed."""

from __future__ import annotations

import pytest

from forwarder.control.requests import Add, Apply, RequestError, Stats, parse


@pytest.mark.parametrize(
    ("line", "problems"),
    [
        ("nonsense", ["request: b'nonsense'; allowed: one line of JSON "]),
        ("[1]", ["request: [1]; allowed: a JSON object"]),
        ("{}", ["command: (missing); allowed: one of add, remove, list, "]),
        ('{"command": ["ping"]}', ["command: ['ping']; allowed: one of add, remove, list, "]),
        ('{"command": "ping", "loudly": true}', ["loudly: true; allowed: no such field: none here"]),
        (
            '{"command": "stats", "format": "xml", "rules": 1, "rule": "a"}',
            [
                "format: 'xml'; allowed: json or prometheus",
                "rules: 1; allowed: true or false",
                "rule: 'a'; allowed: no such field: format, rules here",
            ],
        ),
        ('{"command": "plan", "format": "prometheus"}', ["format: 'prometheus'; allowed: json or text"]),
        ('{"command": "remove"}', ["rule_id: (missing); allowed: required: the id of a rule in force"]),
        ('{"command": "remove", "rule_id": 7}', ["rule_id: 7; allowed: the id of a rule in force"]),
        ('{"command": "add", "rules": {}}', ["rules: {}; allowed: a list of rules"]),
        (
            '{"command": "resize", "group": true, "workers": "2"}',
            ["group: true; allowed: the id of an elastic group", "workers: '2'; allowed: an integer"],
        ),
        (
            '{"command": "apply", "config": [], "dry_run": 0}',
            ["config: []; allowed: a table of options", "dry_run: 0; allowed: true or false"],
        ),
    ],
)
def test_a_bad_request_is_refused_with_every_problem(line: str, problems: list[str]) -> None:
    with pytest.raises(RequestError) as refused:
        parse(line.encode())
    found = list(map(str, refused.value.problems))
    assert len(found) == len(problems)
    assert all(one.startswith(start) for one, start in zip(found, problems, strict=True)), found


def test_fields_left_out_have_their_defaults() -> None:
    assert parse(b'{"command": "stats"}') == Stats(command="stats", format="json", rules=True)
    assert parse(b'{"command": "add", "rules": [7]}') == Add(command="add", rules=[7])
    wanted = parse(b'{"command": "apply", "config": {"interface": "eth0"}}')
    assert wanted == Apply(command="apply", config={"interface": "eth0"}, dry_run=False)
