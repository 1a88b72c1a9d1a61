"""The router's core alone: events applied and decided a second, and what waiting costs.

    python benchmarks/core.py [--events N] [--waiting 10000] [--tenants 50] [--profile] [--json]

A virtual world without I/O drives the real `Engine`: what it decides is stored and folded at once,
hosts finish attempts as fast as the router hands them out, and tenants post so that the number of
waiting tasks stays what it is. Encoding of the router's own events and of what comes from outside
is not counted: the first is the shell's, the second is done before the clock starts. The time is
that of this process on its CPU.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import math
import pstats
import statistics
import time
from collections import deque
from itertools import count
from typing import Any

import msgspec

from callboard_broker.subjects import SHARED_POOL, Subjects
from callboard_broker.wire import Beat, Dispatch, Limit, Offer, Outcome, encode
from callboard_router.desk import Policy
from callboard_router.engine import ROUTERS, Engine

SIZES = (100, 316, 1_000, 3_162, 10_000, 31_623, 100_000)
CAPABILITIES = ("plan", "build", "review.python", "test", "write")
AT_ONCE = 200
BATCH = 64
TICK_STEPS = 100


class World:
    """An engine that leads, a host, and a journal that only counts. waiting: tasks that wait.

    spent: seconds of CPU in the engine; decision: of them, in the last decision.
    """

    def __init__(self, waiting: int, tenants: int) -> None:
        most = Limit(concurrency=AT_ONCE)
        numbers = count(1)
        policy = Policy(limits={"global": most, "tenant": most})
        self.engine = Engine("r", Subjects(), policy, secret=lambda: f"s{next(numbers)}")
        self.now = 100.0
        self.seq = 0
        self.spent = 0.0
        self.decision = 0.0
        self.events = 0
        self.running: deque[tuple[str, bytes]] = deque()
        self.tenants = [f"tenant{n:04}" for n in range(tenants)]
        self.body = b'{"payload":{"files":["a.py","b.py"],"depth":3},"priority":5,"shard":7}'
        self._turn = 0
        self._steps = 0
        self._lead()
        self._store(self.posts(waiting + AT_ONCE))
        self.decide()

    def _lead(self) -> None:
        self._beat()
        self.engine.tenure.start(self.now)
        for name in CAPABILITIES:
            self.engine.queue_is_ready((SHARED_POOL, name))
        for _ in range(3):
            self.decide()

    def _beat(self) -> None:
        self.engine.heard(Beat("r", "r", ROUTERS), at=self.now)
        offers = [Offer(name, AT_ONCE, AT_ONCE) for name in CAPABILITIES]
        self.engine.heard(Beat("h", "h-1", SHARED_POOL, offers), at=self.now)

    def _store(self, messages: list[tuple[str, bytes]]) -> None:
        """Fold what is stored; this is what the router does for each message."""
        seq, now, at_ms, record = self.seq, self.now, self.at_ms, self.engine.record
        before = time.process_time()
        for subject, data in messages:
            seq += 1
            record(seq, at_ms, subject, data, now=now)
        self.spent += time.process_time() - before
        self.seq = seq
        self.events += len(messages)

    @property
    def at_ms(self) -> int:
        return int(self.now * 1000)

    def posts(self, number: int) -> list[tuple[str, bytes]]:
        """The next posts: each tenant's tasks go over all capabilities."""
        found = []
        for _ in range(number):
            lap, place = divmod(self._turn, len(self.tenants))
            capability = CAPABILITIES[(lap + place) % len(CAPABILITIES)]
            found.append((f"cb.task.{self.tenants[place]}.{capability}", self.body))
            self._turn += 1
        return found

    def decide(self, *, timers: bool = True) -> int:
        """Decide, and store what was decided; returns how much that was."""
        before = time.process_time()
        proposals = self.engine.decide(self.now, self.at_ms, timers=timers)
        self.decision = time.process_time() - before
        self.spent += self.decision
        self._store([(proposal.subject, proposal.data()) for proposal in proposals])
        for proposal in proposals:
            event = proposal.event
            if isinstance(event, Dispatch):
                tenant = proposal.subject.split(".")[2]
                result = msgspec.Raw(b'{"ok":true}')
                at = self.at_ms
                outcome = Outcome(event.task, event.attempt, event.secret, "h", at, at + 5, result)
                self.running.append((f"cb.run.{tenant}.outcome.7", encode(outcome)))
        return len(proposals)

    def step(self, number: int = BATCH) -> int:
        """Some attempts end, as many are posted, and the router decides; 1 ms passes."""
        ended = [self.running.popleft() for _ in range(min(number, len(self.running)))]
        self._store(ended + self.posts(len(ended)))
        self.now += 0.001
        self._steps += 1
        ticks = self._steps % TICK_STEPS == 0
        if ticks:
            self._beat()
        return self.decide(timers=ticks)

    def reset(self) -> None:
        self.spent, self.events = 0.0, 0


def measure(world: World, events: int) -> dict[str, float]:
    """Events a second of fold and policy together, and microseconds a decision costs."""
    gc.collect()
    gc.freeze()
    for _ in range(20):
        world.step()
    world.reset()
    while world.events < events:
        world.step()
    gc.unfreeze()
    return {
        "events_per_second": world.events / world.spent,
        "us_per_event": world.spent / world.events * 1e6,
        "events": world.events,
    }


def decision_us(waiting: int, tenants: int, rounds: int) -> float:
    """The median microseconds of deciding who gets a token that became free."""
    world = World(waiting, tenants)
    gc.collect()
    gc.freeze()
    found = []
    for _ in range(rounds):
        decided = world.step(1)
        if decided == 1:
            found.append(world.decision)
    gc.unfreeze()
    return statistics.median(found) * 1e6


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through the logarithms: 0 if it does not grow, 1 if it grows in proportion."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(y) for _, y in points]
    return statistics.linear_regression(xs, ys).slope


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2_000, help="decisions a size")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    world = World(options.waiting, options.tenants)
    if options.profile:
        with cProfile.Profile() as profile:
            measure(world, options.events)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        return
    found: dict[str, Any] = {"waiting": options.waiting, "tenants": options.tenants}
    found |= measure(world, options.events)
    del world
    by_size = [(size, decision_us(size, options.tenants, options.rounds)) for size in SIZES]
    by_tenants = [(n, decision_us(10_000, n, options.rounds)) for n in (10, 100, 1_000)]
    found["decision_us_by_waiting"] = dict(by_size)
    found["decision_us_by_tenants"] = dict(by_tenants)
    found["slope_waiting"] = slope([(float(x), y) for x, y in by_size])
    found["slope_tenants"] = slope([(float(x), y) for x, y in by_tenants])
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['events_per_second']:,.0f} events/s ({found['us_per_event']:.1f} us each) with "
        f"{options.waiting:,} waiting over {options.tenants} tenants"
    )
    for name, points in (("waiting", by_size), ("tenants", by_tenants)):
        told = ", ".join(f"{n:,}: {us:.1f}" for n, us in points)
        print(f"us a decision by {name}: {told}; log-log slope {found[f'slope_{name}']:+.3f}")


if __name__ == "__main__":
    main()
