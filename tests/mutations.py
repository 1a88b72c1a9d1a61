"""Does anything notice when the router's rules are wrong? `python -m tests.mutations [PART...]`

Each mutation changes one place of the shipped code in a copy that is thrown away, and the tests
of `JUDGES` and some seeds of the simulation run against the copy. A mutation that all of them let
pass is printed, and so is one that no longer finds its place. PART: only mutations of files whose
path has it in it. Exit code 1 if fewer than nine in ten are caught, 2 if the tests fail anyway.
Takes about fifteen minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTATIONS", "Mutation", "main"]

ROOT = Path(__file__).resolve().parent.parent
JUDGES = (
    "tests/unit/test_accounts.py",
    "tests/unit/test_budget.py",
    "tests/unit/test_queueing.py",
    "tests/unit/test_fold.py",
    "tests/unit/test_fold_workflows.py",
    "tests/unit/test_checkpoints.py",
    "tests/unit/test_commands.py",
    "tests/unit/test_properties_core.py",
    "tests/unit/test_workflow_joins.py",
    "tests/unit/test_workflow_control.py",
    "tests/unit/test_workflow_decisions.py",
    "tests/unit/test_workflow_recovery.py",
    "tests/unit/test_simulation.py::test_every_invariant_holds_in_worlds_full_of_faults",
)
_SEEDS = 40
_PATIENCE_S = 300  # a mutation may make an endless loop: that is noticed, too
_ENOUGH = 0.9


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `before` (which stands there once) becomes `after`."""

    file: str
    before: str
    after: str


def _of(file: str, *changes: tuple[str, str]) -> list[Mutation]:
    return [Mutation(file, before, after) for before, after in changes]


_ROUTER = "router/callboard_router"
_CURRENT = '"""\n    if life.state != "running" or event.attempt != life.attempt'
_PROVEN = "event.secret != life.secret"

MUTATIONS = [
    *_of(
        f"{_ROUTER}/accounts.py",
        ("in_use[key] += 1", "in_use[key] += 2"),
        ("left = in_use[key] - 1", "left = in_use[key]"),
        ("drawn + amount - bucket.capacity", "drawn - bucket.capacity"),
        ("amount - reserved.get(unit, 0.0)", "amount"),
        ("max(0.0, meter.drawn + amount)", "meter.drawn + abs(amount)"),
        ("if self._metered:\n            self._draw(need, at_ms)", "if False:\n            pass"),
        ("over(self.changed.get(name), self.base.get(name))", "self.base.get(name) or Limit()"),
        ("held = _over(limit, default)", "held = limit"),
        ("self.changed.pop(key, None)", "pass"),
        ("yield key, RATE, 1.0", "yield key, RATE, 0.5"),
    ),
    *_of(
        f"{_ROUTER}/metering.py",
        ("limit.rate / 1000", "limit.rate / 500"),
        ("elapsed * bucket.per_ms", "2 * elapsed * bucket.per_ms"),
        ("max(0.0, self.drawn - elapsed", "(self.drawn - elapsed"),
        ("quota.limit / (quota.per * 1000)", "quota.limit / 1000"),
    ),
    *_of(
        f"{_ROUTER}/budget.py",
        ("counts.get(key, 0) >= rule.concurrency", "counts.get(key, 0) > rule.concurrency"),
        ("in_use.get(key, 0) + counts.get(key, 0) >= rule", "in_use.get(key, 0) >= rule"),
        ("amount + pending, at_ms)\n                if", "amount, at_ms)\n                if"),
        (
            "found[0] > _ENOUGH:\n                    return",
            "found[0] > 1:\n                    return",
        ),
        ("rule = accounts.default", "rule = None"),
        ("counts[key] = left", "counts[key] = left + 1"),
    ),
    *_of(
        f"{_ROUTER}/queueing.py",
        ("task.since - task.priority", "task.since + task.priority"),
        ("parking.take_due(at_ms)", "pass"),
        ("if tenant.has_less():", "if False:"),
        ("lane.row.tenant.turn = self._turn", "pass"),
        ("if name in self._inside:\n            return", "if False:\n            return"),
    ),
    *_of(
        f"{_ROUTER}/lanes.py",
        ("return in_flight >= self.guaranteed, in", "return in_flight < self.guaranteed, in"),
        ("in_flight / self.weight", "in_flight * self.weight"),
    ),
    *_of(
        f"{_ROUTER}/dispatching.py",
        ("or not agenda.may_start(task)", "or False"),
        ("name in proposed", "False"),
        ("waiting.set_aside(lane)", "waiting.take(lane, served=False)"),
    ),
    *_of(
        f"{_ROUTER}/joining.py",
        ("if tally.won >= wanted:", "if tally.won + 1 >= wanted:"),
        ('if join == "all" or tally.over == sources:', "if True:"),
        ("if tally.left:\n        return", "if tally.left > 1:\n        return"),
        ("possible = tally.expected - tally.failed", "possible = tally.expected"),
        ('"failed" if tally.failed else "skipped"', '"skipped"'),
        ("_release(state, flow, node, work)\n    elif", "pass\n    elif"),
        ("return bool(step.begun) and chosen", "return bool(step.begun)"),
        ("not flow.graph.nodes[name].tolerated and flow.ending", "flow.ending"),
    ),
    *_of(
        f"{_ROUTER}/workflow.py",
        ("if not released and not flow.graph.nodes[name].tolerated", "if not released"),
    ),
    *_of(
        f"{_ROUTER}/compensation.py",
        ("in sorted(found)]", "in sorted(found, reverse=True)]"),
        ("if flow.open:\n        return", "if flow.open > 1:\n        return"),
    ),
    *_of(
        f"{_ROUTER}/ends.py",
        ("task.life.errors + 1 >= retry.attempts", "task.life.errors >= retry.attempts"),
        ("hopeless = failure.final or", "hopeless ="),
        ("or failure.type in retry.not_on", ""),
        ("retry.factor**growth", "retry.factor * growth"),
        ("retry.factor**growth, retry.max_delay", "retry.factor**growth, 1e9"),
        ("at = max(at, at_ms + int(1000 * wanted))", "pass"),
        ("deadline is not None and deadline <= at_ms", "deadline is not None"),
        ("return most * (int", "return (int"),
        ("int(1000 * backoff(", "int(backoff("),
        ("retry.elsewhere and known", "False and known"),
        ("if due and not busy else 0", "if due else 0"),
    ),
    *_of(
        f"{_ROUTER}/agenda.py",
        ("task.life.lost >= self.lost", "task.life.lost > self.lost"),
        ("and task.not_before <= self.now_ms\n", "\n"),
        ("and not task.paused\n", "\n"),
        ("timeouts.queue is None or begun", "timeouts.queue is None"),
        ("max(task.since, task.not_before) + int", "task.since + int"),
    ),
    *_of(
        "broker/callboard_broker/rule.py",
        ("event.attempt != life.attempt + 1", "event.attempt <= life.attempt"),
        ("life.failure is not None or event.attempt", "event.attempt"),
        ("not life.checkpoints < event.number <=", "not event.number <="),
        (f"exactly here.{_CURRENT} or {_PROVEN}:", f"exactly here.{_CURRENT}:"),
        (f"changes nothing.{_CURRENT} or {_PROVEN}:", f"changes nothing.{_CURRENT}:"),
        ("life.errors += 1", "pass"),
        ("life.lost += 1", "life.lost += 2"),
        ("life.lost = life.unstarted = life.errors = 0", "life.unstarted = 0"),
        ("life.failure = None\n    life.errors", "life.errors"),
    ),
]


def _caught(mutation: Mutation, place: Path) -> str:
    """By which test; empty if by none, `stale` if the place in the code is gone."""
    text = (ROOT / mutation.file).read_text()
    if text.count(mutation.before) != 1:
        return "stale"
    for source in ("router", "broker"):
        shutil.copytree(ROOT / source, place / source, ignore=shutil.ignore_patterns("__pycache__"))
    (place / mutation.file).write_text(text.replace(mutation.before, mutation.after))
    return _failure([place / "router", place / "broker", ROOT])


def _failure(paths: list[Path]) -> str:
    """The first test that fails with the packages in these folders; empty if none does."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CALLBOARD_SIM_SEEDS": str(_SEEDS),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [f"--timeout={_PATIENCE_S}", *JUDGES]  # a busy machine is no defect
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "patience"
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0][:150] if failed else done.stdout[-300:]


def main(parts: list[str]) -> int:
    """Print what became of each mutation; returns the exit code."""
    chosen = [m for m in MUTATIONS if not parts or any(part in m.file for part in parts)]
    caught, begun = 0, time.monotonic()
    broken = _failure([ROOT])
    if broken:
        print(f"the judges must pass before anything is changed: {broken}")
        return 2
    for mutation in chosen:
        with tempfile.TemporaryDirectory() as place:
            found = _caught(mutation, Path(place))
        shown = f"{Path(mutation.file).name}: {mutation.before!r} -> {mutation.after!r}"
        if found and found != "stale":
            caught += 1
            print(f"caught   {shown}\n         {found}", flush=True)
        else:
            print(f"{'STALE' if found else 'MISSED':8} {shown}", flush=True)
    seconds = time.monotonic() - begun
    print(f"{caught} of {len(chosen)} mutations caught, in {seconds:.0f} s")
    return 0 if caught >= _ENOUGH * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
