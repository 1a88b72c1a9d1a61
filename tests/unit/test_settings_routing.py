"""agent_routing_rules.yaml: rules are strict, and what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard_config import SettingsError, describe, load_settings

ROUTING = "agent_routing_rules.yaml"


def refused(text: str, tmp_path: Path) -> SettingsError:
    (tmp_path / ROUTING).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(files=[tmp_path], environ={})
    return caught.value


def test_rules_and_weights_are_read_and_listed(tmp_path: Path):
    text = """
score: {load: 4}
rules:
  - {capability: review.*, needs: {specialization: [sql], version: ">=1.2, <2", cpu: 2}}
  - {tenant: acme, prefer: {zone: eu}, weights: {success: 0}}
  - {capability: "*", needs: {avoid: [host-7], memory_mb: 512.5, labels: {gpu: a100}}}
"""
    (tmp_path / ROUTING).write_text(text, encoding="utf-8")
    settings = load_settings(files=[tmp_path], environ={})
    assert (settings.score.load, settings.score.fit) == (4, 1)
    first, second, third = settings.rules
    assert first.needs is not None
    assert (first.capability, first.needs.version) == ("review.*", ">=1.2, <2")
    assert second.weights is not None
    assert (second.tenant, second.weights.success, second.weights.load) == ("acme", 0, None)
    assert third.needs is not None
    assert third.needs.avoid == ("host-7",)
    rows = {row.key: row for row in describe(settings)}
    assert rows["score.load"].origin == rows["rules"].origin == f"file {tmp_path / ROUTING}"
    assert rows["score.fit"].origin == f"default ({ROUTING})"
    listed = rows["rules"].value
    assert isinstance(listed, list)
    assert listed[1]["prefer"] == {"zone": "eu"}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("{capability: Review, prefer: {a: b}}", "capability: not a capability"),
        ("{capability: review*, prefer: {a: b}}", "capability: not a capability"),
        ("{capability: review, needs: {versoin: '>=1'}}", "needs.versoin: extra inputs"),
        ("{capability: review, needs: {version: '1.2'}}", "needs.version: not a range"),
        ("{capability: review, needs: {cpu: '2'}}", "needs.cpu: input should be"),
        ("{capability: review, needs: {cpu: 0}}", "needs.cpu: input should be greater"),
        ("{capability: review, weights: {load: -1}}", "weights.load: input should be"),
        ("{tenant: all, prefer: {a: b}}", "tenant: 'all' is reserved"),
        ("{capability: review, prefer: {a: 1}}", "prefer.a: input should be"),
        ("{prefer: {a: b}}", "say for which capability or tenant"),
        ("{capability: review}", "it changes nothing"),
        ("7", "input should be"),
    ],
)
def test_what_is_wrong_in_a_rule_is_named(rule: str, reason: str, tmp_path: Path):
    error = refused(f"rules: [{rule}]", tmp_path)
    assert error.key == "rules"
    assert reason in str(error).lower().replace("'2'", "2")


def test_a_weight_that_is_none_of_them_is_refused(tmp_path: Path):
    assert "score.laod" in str(refused("score: {laod: 1}", tmp_path))
    assert refused("rules: {a: b}", tmp_path).key == "rules"
