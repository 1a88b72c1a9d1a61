"""Budgets by themselves: what is taken comes back, rates hold in the long run, limits add up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from callboard_broker.wire import Budget, Limit, Quota, Terms
from callboard_router.budget import (
    Accounts,
    Need,
    Reserved,
    blocked,
    is_impossible,
    need_of,
    ready_at,
)


def accounts_of(**limits: Limit) -> Accounts:
    """`__` stands for `/` in a key."""
    found = Accounts()
    base = {key.replace("__", "/"): limit for key, limit in limits.items()}
    found.change(Budget(1, base=base), 0)
    return found


def waits_for(accounts: Accounts, need: Need, at_ms: int = 0) -> str | None:
    return blocked(accounts, Reserved(), need, at_ms)


PLAIN = need_of("acme", "plan", None)


def tokens(amount: float, *names: str) -> Need:
    return need_of("acme", "plan", Terms(budgets=list(names), units={"tokens": amount}))


def test_a_task_draws_on_each_level_and_on_what_it_names_once():
    need = need_of("acme", "plan", Terms(budgets=["x", "y", "x"]), flow_keys=("flow/7",))
    assert need.keys == (
        *("global", "tenant/acme", "capability/plan", "tenant/acme/plan"),
        *("key/x", "key/y", "flow/7"),
    )
    assert need_of("acme", "plan", None) is PLAIN
    assert need_of("acme", "plan", Terms()) is PLAIN


@pytest.mark.parametrize("key", ["global", "tenant/acme", "capability/plan", "tenant/acme/plan"])
def test_every_level_can_be_the_one_without_room(key: str):
    accounts = Accounts()
    accounts.change(Budget(1, base={key: Limit(concurrency=1)}), 0)
    assert waits_for(accounts, PLAIN) is None
    accounts.take(PLAIN, 0)
    assert waits_for(accounts, PLAIN) == key
    accounts.give_back(PLAIN, None, 0)
    assert waits_for(accounts, PLAIN) is None


def test_what_is_under_way_counts_like_what_runs():
    accounts, reserved = accounts_of(**{"global": Limit(concurrency=1)}), Reserved()
    reserved.open(PLAIN)
    assert blocked(accounts, reserved, PLAIN, 0) == "global"
    reserved.close(PLAIN)
    assert blocked(accounts, reserved, PLAIN, 0) is None


def test_what_a_tenant_does_not_say_is_as_for_every_tenant():
    default = Limit(concurrency=3, weight=2.0, waiting=9)
    accounts = accounts_of(tenant=default, tenant__acme=Limit(weight=5.0))
    assert accounts.limit_of("acme") == Limit(concurrency=3, weight=5.0, waiting=9, guaranteed=0)
    assert accounts.limit_of("blue").weight == 2.0
    assert Accounts().limit_of("blue") == Limit(weight=1.0, guaranteed=0)
    for _ in range(3):
        accounts.take(PLAIN, 0)
    assert waits_for(accounts, PLAIN) == "tenant/acme"


def test_what_was_set_comes_before_the_settings_field_by_field_until_it_is_taken_back():
    accounts = accounts_of(
        key__x=Limit(concurrency=5, units={"tokens": Quota(10), "usd": Quota(1)})
    )
    accounts.change(Budget(1, changed={"key/x": Limit(rate=2)}), 0)
    accounts.change(Budget(1, changed={"key/x": Limit(units={"usd": Quota(7)})}), 0)
    assert accounts.limits["key/x"] == Limit(
        concurrency=5, rate=2, units={"tokens": Quota(10), "usd": Quota(7)}
    )
    accounts.change(Budget(1, base={"key/x": Limit(concurrency=4)}), 0)
    assert accounts.limits["key/x"] == Limit(concurrency=4, rate=2, units={"usd": Quota(7)})
    accounts.change(Budget(1, changed={"key/x": None}), 0)
    assert accounts.limits == {"key/x": Limit(concurrency=4)}


def test_a_rate_lets_a_burst_go_and_then_one_at_a_time():
    accounts = accounts_of(tenant=Limit(rate=2, burst=3))
    for _ in range(3):
        assert waits_for(accounts, PLAIN) is None
        accounts.take(PLAIN, 0)
    reason = waits_for(accounts, PLAIN)
    assert reason == "rate of tenant/acme"
    assert ready_at(accounts, reason, 0) == 500
    assert waits_for(accounts, PLAIN, 499) == reason
    assert waits_for(accounts, PLAIN, 500) is None
    assert waits_for(accounts, need_of("blue", "plan", None)) is None, "each tenant has its own"
    accounts.give_back(PLAIN, None, 1)
    assert waits_for(accounts, PLAIN, 1) == reason, "an end gives no rate back"


def test_what_was_dispatched_too_early_is_a_debt():
    accounts = accounts_of(**{"global": Limit(rate=1, burst=1)})
    accounts.take(PLAIN, 0)
    accounts.take(PLAIN, 900)
    assert waits_for(accounts, PLAIN, 1000) == "rate of global"
    assert ready_at(accounts, "rate of global", 1000) == 2000


def test_units_are_reserved_before_and_settled_after():
    accounts = accounts_of(key__llm=Limit(units={"tokens": Quota(1000)}))
    need = tokens(600, "llm")
    accounts.take(need, 0)
    assert waits_for(accounts, need) == "units tokens of key/llm"
    assert ready_at(accounts, "units tokens of key/llm", 0, need=need) is None
    accounts.give_back(need, {"tokens": 100}, 1)
    assert waits_for(accounts, tokens(900, "llm"), 1) is None
    accounts.take(need, 2)
    accounts.give_back(need, {"tokens": 1500}, 3)
    assert waits_for(accounts, tokens(1, "llm"), 3) == "units tokens of key/llm"
    assert waits_for(accounts, PLAIN, 3) is None, "who needs none of them is not held up"


@pytest.mark.parametrize("used", [None, {}, {"usd": 3.0}])
def test_without_a_word_of_what_was_used_the_reservation_is_the_cost(used: dict[str, float] | None):
    accounts = accounts_of(**{"global": Limit(units={"tokens": Quota(1000)})})
    accounts.take(tokens(600), 0)
    accounts.give_back(tokens(600), used, 1)
    assert waits_for(accounts, tokens(401), 1) == "units tokens of global"
    assert waits_for(accounts, tokens(400), 1) is None
    accounts.correct(tokens(600), {"tokens": 50})
    assert waits_for(accounts, tokens(950), 1) is None


def test_units_refill_and_nobody_waits_for_more_than_there_ever_is():
    accounts = accounts_of(**{"global": Limit(units={"tokens": Quota(600, 60)})})
    accounts.take(tokens(600), 0)
    reason = "units tokens of global"
    assert ready_at(accounts, reason, 0, need=tokens(10)) == 1000
    assert ready_at(accounts, reason, 0, need=tokens(601)) is None
    assert is_impossible(accounts, reason, tokens(601))
    assert not is_impossible(accounts, reason, tokens(600))


def test_a_new_limit_counts_what_is_reserved_already_and_a_higher_one_helps_at_once():
    accounts = Accounts()
    accounts.take(tokens(600), 0)
    accounts.change(Budget(1, base={"global": Limit(units={"tokens": Quota(1000)})}), 5)
    assert waits_for(accounts, tokens(500), 5) == "units tokens of global"
    accounts.change(Budget(1, changed={"global": Limit(units={"tokens": Quota(1100)})}), 6)
    assert waits_for(accounts, tokens(500), 6) is None
    accounts.give_back(tokens(600), {"tokens": 0}, 7)
    assert waits_for(accounts, tokens(1100), 7) is None


def test_a_workflow_limits_itself_as_long_as_it_lives():
    accounts, need = Accounts(), need_of("acme", "plan", None, flow_keys=("flow/7",))
    accounts.bound("flow/7", 1)
    accounts.take(need, 0)
    assert waits_for(accounts, need) == "flow/7"
    accounts.change(Budget(1, base={}), 0)
    assert waits_for(accounts, need) == "flow/7", "the settings do not touch it"
    accounts.unbound("flow/7")
    assert waits_for(accounts, need) is None


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.5, 50),
    st.floats(1, 20),
    st.lists(st.integers(0, 2000), min_size=1, max_size=60),
)
def test_no_window_of_time_gets_more_than_the_burst_and_its_rate(
    rate: float, burst: float, waits: list[int]
):
    accounts = accounts_of(**{"global": Limit(rate=rate, burst=burst)})
    at_ms, taken = 0, []
    for wait in waits:
        at_ms += wait
        while waits_for(accounts, PLAIN, at_ms) is None:
            accounts.take(PLAIN, at_ms)
            taken.append(at_ms)
        due = ready_at(accounts, "rate of global", at_ms)
        assert due is not None
        assert waits_for(accounts, PLAIN, due) is None
        assert waits_for(accounts, PLAIN, due - 1) is not None
    for first, begin in enumerate(taken):
        for last, end in enumerate(taken[first:], first):
            assert last - first + 1 <= burst + rate * (end - begin) / 1000 + 1e-3


NEEDS = [PLAIN, tokens(4, "x"), tokens(2, "x", "y"), need_of("blue", "plan", None)]
LIMITS = st.builds(
    Limit,
    concurrency=st.one_of(st.none(), st.integers(0, 3)),
    rate=st.sampled_from((None, 1.0, 10.0)),
    units=st.sampled_from(({}, {"tokens": Quota(10.0, 1.0)}, {"tokens": Quota(50.0)})),
)
KEYS = st.sampled_from(("global", "tenant", "tenant/acme", "capability/plan", "key/x", "key/y"))


class Budgets(RuleBasedStateMachine):
    """The router's way with budgets: it asks, proposes, and reads back what it proposed."""

    @initialize(base=st.dictionaries(KEYS, LIMITS))
    def begin(self, base: dict[str, Limit]):
        self.accounts, self.reserved, self.at_ms = Accounts(), Reserved(), 0
        self.under_way: list[Need] = []
        self.running: list[Need] = []
        self.lost: list[Need] = []
        self.accounts.change(Budget(1, base=base), 0)

    @rule(need=st.sampled_from(NEEDS))
    def propose(self, need: Need):
        if blocked(self.accounts, self.reserved, need, self.at_ms) is None:
            self.reserved.open(need)
            self.under_way.append(need)

    @rule(stored=st.booleans())
    def read_back(self, *, stored: bool):
        if self.under_way:
            need = self.under_way.pop(0)
            self.reserved.close(need)
            if stored:
                self.accounts.take(need, self.at_ms)
                self.running.append(need)
                self.within_the_limits(need)

    def within_the_limits(self, need: Need):
        for key in need.keys:
            rule = self.accounts.rule(key)
            if rule is not None and not self.lowered:
                assert self.accounts.in_use[key] <= rule.concurrency
                for unit, bucket in rule.buckets.items():
                    found = self.accounts.missing(key, unit, 0.0, self.at_ms)
                    assert found is not None
                    assert found[0] <= 1e-6, (key, unit, bucket)

    lowered = False

    @rule(used=st.sampled_from((None, {}, {"tokens": 0.0}, {"tokens": 2.0})))
    def end(self, used: dict[str, float] | None):
        if self.running:
            need = self.running.pop(0)
            self.accounts.give_back(need, used, self.at_ms)
            if used is None:
                self.lost.append(need)

    @rule()
    def hear_late(self):
        if self.lost:
            self.accounts.correct(self.lost.pop(), {"tokens": 1.0})

    @rule(ms=st.integers(1, 5000))
    def pass_time(self, ms: int):
        self.at_ms += ms

    @rule(key=KEYS, limit=st.one_of(st.none(), LIMITS))
    def change(self, key: str, limit: Limit | None):
        self.lowered = True  # from here on more may be in use than is allowed
        self.accounts.change(Budget(1, changed={key: limit}), self.at_ms)

    @invariant()
    def what_is_in_use_is_what_runs(self):
        if hasattr(self, "accounts"):
            keys = [key for need in self.running for key in need.keys]
            assert self.accounts.in_use == {key: keys.count(key) for key in keys}
            open_keys = [key for need in self.under_way for key in need.keys]
            assert self.reserved.counts == {key: open_keys.count(key) for key in open_keys}

    @invariant()
    def a_copy_is_the_same(self):
        if hasattr(self, "accounts"):
            packed = msgspec.msgpack.encode(self.accounts.dump())
            copy = Accounts()
            copy.load(msgspec.msgpack.decode(packed))
            assert msgspec.msgpack.encode(copy.dump()) == packed
            for need in NEEDS:
                asked = blocked(self.accounts, self.reserved, need, self.at_ms)
                assert blocked(copy, self.reserved, need, self.at_ms) == asked

    @invariant()
    def what_time_frees_is_free_then_and_not_before(self):
        if hasattr(self, "accounts"):
            for need in NEEDS:
                reason = blocked(self.accounts, self.reserved, need, self.at_ms)
                if reason is not None:
                    due = ready_at(
                        self.accounts, reason, self.at_ms, need=need, reserved=self.reserved
                    )
                    if due is not None:
                        assert due > self.at_ms
                        later = blocked(self.accounts, self.reserved, need, due)
                        assert later != reason or self.under_way  # its time has not begun


Budgets.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBudgets = Budgets.TestCase
