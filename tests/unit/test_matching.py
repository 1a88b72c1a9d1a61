"""Whether a host fits what a task needs, and the reason for each misfit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from callboard_broker.errors import BadInput
from callboard_broker.wire import Beat, Needs, Offer, decode_post
from callboard_router.matching import check_needs, fits, misfits, shortage
from tests.desks import offer

BEAT = Beat("h", "h-1", "shared", cpus=4.0, cpu=1.0, free_mb=2000.0)


@pytest.mark.parametrize(
    ("needs", "said", "reason"),
    [
        ({"specialization": ["sql", "rust"]}, {"specialization": ["sql"]}, "not in rust"),
        ({"version": ">=2"}, {"version": "1.9"}, "version: '1.9', must be >=2"),
        ({"version": ">=2"}, {}, "version: none, must be >=2"),
        ({"version": ">=2"}, {"version": "new"}, "version: 'new', must be >=2"),
        ({"version": ">=2"}, {"version": "2.1rc1"}, "version: '2.1rc1'"),
        ({"labels": {"zone": "eu"}}, {"labels": {"zone": "us"}}, "zone is us, must be eu"),
        ({"labels": {"zone": "eu"}}, {}, "zone is not set, must be eu"),
        ({"cpu": 8}, {}, "cpu: 4 cores, must have 8"),
        ({"stay_with": "g"}, {}, "stay_with: must run on g"),
        ({"avoid": ["h"]}, {}, "the host h is to be avoided"),
        ({"avoid": ["x", "critic"]}, {"agent": "critic"}, "the agent critic is to be avoided"),
    ],
)
def test_each_misfit_names_what_is_asked_and_what_is_there(
    needs: dict[str, Any], said: dict[str, Any], reason: str
):
    found = misfits(Needs(**needs), BEAT, offer(**said))
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({}, {}),
        ({"specialization": ["sql"]}, {"specialization": ["sql", "rust"]}),
        ({"version": ">=1.2,<2"}, {"version": "1.10.0"}),
        ({"version": ">=2rc1"}, {"version": "2.1rc1"}),
        ({"version": "==1.*"}, {"version": "v1.4+build.5"}),
        ({"labels": {"zone": "eu"}}, {"labels": {"zone": "eu", "gpu": "a100"}}),
        ({"cpu": 4, "memory_mb": 99999}, {}),
        ({"stay_with": "h"}, {}),
        ({"avoid": ["g"]}, {}),
    ],
)
def test_a_host_that_has_what_is_asked_fits(needs: dict[str, Any], said: dict[str, Any]):
    assert misfits(Needs(**needs), BEAT, offer(**said)) == []


def test_all_misfits_are_named_and_not_only_the_first():
    needs = Needs(specialization=["sql"], version=">=2", labels={"a": "b"}, avoid=["h"])
    assert [reason.partition(":")[0] for reason in misfits(needs, BEAT, offer())] == [
        "avoid",
        "specialization",
        "version",
        "labels",
    ]


def test_what_a_host_does_not_measure_is_not_taken_for_granted():
    unmeasured = Beat("h", "h-1", "shared")
    found = misfits(Needs(cpu=0.5, memory_mb=10), unmeasured, offer())
    assert found == [
        "cpu: its cores are not known, must have 0.5",
        "memory_mb: its free memory is not known, must be 10",
    ]
    assert shortage(Needs(), unmeasured, offer(cpu=64, memory_mb=64_000)) is None


def test_a_shortage_counts_the_attempts_that_no_beat_has_shown_yet():
    assert shortage(Needs(memory_mb=900), BEAT, offer()) is None
    assert shortage(Needs(memory_mb=900), BEAT, offer(), at_once=2) is None
    told = shortage(Needs(memory_mb=900), BEAT, offer(), at_once=3)
    assert told == "memory_mb: 2000 MB free, needs 900 for each of 3 attempts"
    assert shortage(Needs(cpu=3.5), BEAT, offer()) == "cpu: 3 cores free, needs 3.5"


def test_what_the_agent_declares_of_itself_counts_where_the_task_asks_for_nothing():
    assert shortage(Needs(), BEAT, offer(memory_mb=3000)) is not None
    assert shortage(Needs(memory_mb=100), BEAT, offer(memory_mb=3000)) is None


@pytest.mark.parametrize("version", ["abc", "1.2", "^1.2", ">=", ">=1 <2", ">=abc"])
def test_a_range_that_cannot_be_read_is_refused_at_the_door_by_its_field(version: str):
    with pytest.raises(BadInput) as caught:
        decode_post(b'{"needs": {"version": "%s"}}' % version.encode())
    assert caught.value.field == "needs.version"


def test_what_a_host_takes_to_run_a_task_does_not_make_the_next_one_wait():
    one_runs = Beat("h", "h-1", "shared", cpus=2.0, cpu=1.06, free_mb=2000.0)
    assert shortage(Needs(), one_runs, offer(cpu=1.0)) is None
    more = Beat("h", "h-1", "shared", cpus=2.0, cpu=1.2, free_mb=2000.0)
    assert shortage(Needs(), more, offer(cpu=1.0)) == "cpu: 0.8 cores free, needs 1"


def test_a_range_that_passes_the_door_and_cannot_be_read_fits_nobody_and_says_so():
    needs = Needs(version=">=1..2")
    assert not fits(needs, BEAT, offer(version="1.5"))
    with pytest.raises(BadInput, match=r"write it as in >=1\.2,<2"):
        check_needs(needs)
    check_needs(Needs(version=">=1,<2"))


_numbers = st.lists(st.integers(0, 20), min_size=1, max_size=4).map(
    lambda parts: ".".join(map(str, parts))
)
_ranges = st.lists(
    st.tuples(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), _numbers), max_size=3
).map(lambda parts: ",".join(op + version for op, version in parts))


@given(_ranges, _numbers)
def test_ranges_mean_what_pep_440_says(wanted: str, version: str):
    decode_post(b'{"needs": {"version": "%s"}}' % wanted.encode())
    expected = not wanted or version in SpecifierSet(wanted)
    assert fits(Needs(version=wanted), BEAT, offer(version=version)) == expected


_words = st.lists(st.sampled_from(["sql", "rust", "go"]), unique=True)
_labels = st.dictionaries(st.sampled_from(["zone", "gpu"]), st.sampled_from(["a", "b"]))


@given(_words, _labels, _words, _labels, st.sampled_from([None, 1.0, 3.0, 8.0]))
def test_a_host_fits_exactly_when_no_reason_is_given(
    wanted: list[str],
    labels: dict[str, str],
    had: list[str],
    having: dict[str, str],
    cpu: float | None,
):
    needs = Needs(specialization=wanted, labels=labels, cpu=cpu)
    found = Offer("review", 1, 1, specialization=had, labels=having)
    expected = set(wanted) <= set(had) and labels.items() <= having.items() and (cpu or 0) <= 4
    assert fits(needs, BEAT, found) == expected == (misfits(needs, BEAT, found) == [])
