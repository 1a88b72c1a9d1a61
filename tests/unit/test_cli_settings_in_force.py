"""The settings reach the parts: each one, changed, changes what its part is started with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callboard.cli.ledger import ledger_options
from callboard.cli.router import router_options
from callboard.connecting import Place, locate
from callboard.hosting import host_options
from callboard_broker.wire import Retry


@pytest.fixture(autouse=True)
def _away_from_the_settings_of_whoever_runs_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CALLBOARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def place(**given: object) -> Place:
    """A board with the settings `given`, as in `lease__beat_seconds=2.0`."""
    return locate(overrides={key.replace("__", "."): value for key, value in given.items()})


def test_a_host_is_started_with_its_settings():
    options = host_options(
        place(
            lease__beat_seconds=0.5,
            lease__lease_seconds=9.0,
            agents__drain_seconds=4.0,
            agents__slots_inline=7,
            agents__slots_thread=3,
            agents__timeout_seconds=11.0,
            payload__blob_bytes=5000,
        ),
        pool="gpu",
    )
    assert options.pool == "gpu"
    assert (options.beat_seconds, options.lease_seconds, options.drain_seconds) == (0.5, 9.0, 4.0)
    assert (options.slots_inline, options.slots_thread, options.timeout_seconds) == (7, 3, 11.0)
    assert options.blob_bytes == 5000


def test_a_router_is_started_with_its_settings():
    options = router_options(
        place(
            budgets__global_concurrency=50,
            budgets__tenant_concurrency=5,
            budgets__tenants__acme__concurrency=3,
            pools={"gpu": ["acme", "globex"]},
            lease__beat_seconds=0.5,
            lease__suspect_seconds=2.0,
            lease__lease_seconds=9.0,
            lease__start_seconds=6.0,
            lease__lost_limit=4,
            router__standby_seconds=1.5,
            router__unresolved_seconds=8.0,
            workflow__max_items=99,
            journal__replicas=3,
            queue__ageing_seconds=3.0,
            retry__attempts=4,
            retry__delay=0.5,
            retry__factor=3.0,
            retry__max_delay=60.0,
            score__load=5.0,
            rules=[{"capability": "review.*", "prefer": {"zone": "eu"}}],
        )
    )
    policy, timing = options.policy, options.policy.timing
    assert {key: limit.concurrency for key, limit in policy.limits.items()} == {
        "global": 50,
        "tenant": 5,
        "tenant/acme": 3,
    }
    assert policy.retry == Retry(attempts=4, delay=0.5, factor=3.0, max_delay=60.0)
    assert policy.ageing == 3.0
    assert policy.routing.weights.load == 5.0
    rule = policy.routing.rule("acme", "review.python")
    assert rule is not None
    assert rule.prefer == {"zone": "eu"}
    assert policy.pools == {"acme": "gpu", "globex": "gpu"}
    assert (timing.beat, timing.suspect, timing.lease, timing.start) == (0.5, 2.0, 9.0, 6.0)
    assert (policy.lost_limit, policy.standby, policy.unresolved) == (4, 1.5, 8.0)
    assert (policy.max_items, options.replicas) == (99, 3)


def test_a_ledger_is_started_with_its_settings(tmp_path: Path):
    changed = place(
        ledger__store=tmp_path, ledger__flush_seconds=0.2, ledger__batch=9, journal__replicas=3
    )
    options = ledger_options(changed)
    assert (options.store, options.flush_seconds, options.batch) == (tmp_path, 0.2, 9)
    assert options.replicas == 3
    assert ledger_options(changed, tmp_path / "own").store == tmp_path / "own"
