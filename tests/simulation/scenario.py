"""One seed: who takes part, what is posted, a time of faults, a time of calm, and the verdict."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from callboard_broker.wire import Limit, Quota
from callboard_router.desk import Policy
from callboard_router.liveness import Timing
from tests.simulation.checker import Checker
from tests.simulation.drawing import TENANTS, draw_flood, draw_post
from tests.simulation.host import CLOCK_ERROR_MS, Host
from tests.simulation.posters import Operator, Poster
from tests.simulation.router import Router
from tests.simulation.sent import Sent
from tests.simulation.server import Server, Stored
from tests.simulation.specs import CAPABILITIES
from tests.simulation.work import Serves
from tests.simulation.world import Process, Violation, World

__all__ = ["Report", "journal_of", "simulate"]

_FAULTS_UNTIL = 35.0
_POSTS_UNTIL = 30.0
_CALM = 500.0
_REST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened in one world.

    stored: messages by kind. calm: seconds from the last fault until all was done. overtakes:
    elements of a fan-out that began before the one before it was complete. repeats: dispatches
    handed over again by a restarted server. lost: messages to mailboxes and stop requests that
    came nowhere. dead: tasks that failed since attempts were lost. restored: starts of a router
    from a snapshot. seen: what happened how often (`Checker.seen`).
    """

    seed: int
    stored: Counter[str]
    ended: int
    starts: int
    overtakes: int
    crashes: int
    refusals: int
    blobs: int
    repeats: int
    lost: int
    dead: int
    restored: int
    seen: Counter[str]
    calm: float
    struck: Counter[tuple[str, str]]


class _Scenario:
    def __init__(self, seed: int, *, storm: bool) -> None:
        self.world = world = World(seed, storm=storm)
        rng = world.rng
        timing = Timing(
            lease=rng.choice((5.0, 8.0, 20.0)),
            start=rng.choice((1.5, 3.0, 5.0)),
        )
        pools = {"coral": "coral"} if rng.random() < 0.4 else {}
        policies = [self._policy(timing, pools)]
        if rng.random() < 0.3:
            policies.append(self._policy(timing, pools))
        digests: dict[int, str] = {}
        self.checker = Checker(
            world, digests, pools=pools, lost_limit=3, clock_error_ms=CLOCK_ERROR_MS + 5
        )
        self.server = Server(world, self.checker.stored)
        self.sent: list[Sent] = []
        self.routers = [
            Router(world, self.server, f"r{number}", policies, digests, self.checker.allowed)
            for number in range(rng.randint(1, 3))
        ]
        self.processes: list[Process] = [*self.routers]
        self._add_hosts(timing, pools)
        self.posters: list[Poster] = []
        floods = random.Random(seed)
        for number in range(2):
            plan = []
            bursts = [rng.uniform(0, _POSTS_UNTIL) for _ in range(3)]
            for _ in range(rng.randint(8, 60)):
                sent = draw_post(rng, len(self.sent))
                self.sent.append(sent)
                when = rng.choice(bursts) if rng.random() < 0.5 else rng.uniform(0, _POSTS_UNTIL)
                plan.append((when, sent))
                if rng.random() < 0.05:  # another process posts the very same
                    plan.append((plan[-1][0] + rng.choice((0, 0.001, 1.0)), sent))
            if floods.random() < 0.15:
                begins = floods.uniform(0, _POSTS_UNTIL)
                flood = draw_flood(floods, len(self.sent))
                self.sent += [sent for _, sent in flood]
                plan += [(begins + after, sent) for after, sent in flood]
            self.posters.append(Poster(self.server, f"p{number}", plan, self.checker))
        self.processes += self.posters
        self.operator = Operator(world, self.server, self.checker, self.sent)
        self.processes.append(self.operator)

    def _policy(self, timing: Timing, pools: dict[str, str]) -> Policy:
        rng = self.world.rng
        limits = {
            "global": Limit(concurrency=rng.randint(2, 10)),
            "tenant": Limit(concurrency=rng.randint(1, 6)),
            "key/openai": Limit(concurrency=rng.randint(1, 3)),
        }
        if rng.random() < 0.5:
            limits[f"tenant/{rng.choice(TENANTS)}"] = Limit(
                concurrency=rng.randint(1, 3),
                weight=rng.choice((0.5, 1.0, 4.0)),
                guaranteed=rng.randint(0, 2),
            )
        if rng.random() < 0.4:
            burst = rng.choice((None, 1.0, 5.0))
            rate = Limit(rate=rng.choice((4.0, 15.0)), burst=burst)
            limits[rng.choice(("capability/plan", "tenant/blue", "key/gpu"))] = rate
        if rng.random() < 0.5:
            tokens = Quota(rng.choice((60.0, 150.0)), rng.choice((1.0, 4.0)))
            limits[rng.choice(("key/openai", "tenant/acme", "global"))] = Limit(
                concurrency=rng.randint(2, 6), units={"tokens": tokens}
            )
        if rng.random() < 0.2:
            limits["tenant/acme"] = Limit(waiting=rng.randint(2, 12))
        if rng.random() < 0.3:
            limits["capability/work"] = Limit(concurrency=rng.randint(1, 3))
        return Policy(
            limits=limits,
            timing=timing,
            pools=pools,
            unresolved=rng.choice((3.0, 10.0)),
        )

    def _add_hosts(self, timing: Timing, pools: dict[str, str]) -> None:
        """Of each pool, every capability and every label has a host; `work.fast` perhaps not."""
        rng = self.world.rng
        known = CAPABILITIES if rng.random() < 0.7 else tuple(set(CAPABILITIES) - {"work.fast"})
        known = tuple(sorted(known))
        served = [("shared", known, "ssd"), ("shared", known, "hdd")]
        for _ in range(rng.randint(0, 2)):
            some = tuple(rng.sample(known, rng.randint(1, 3)))
            served.append(("shared", some, rng.choice(("ssd", "hdd"))))
        served += [(pool, known, disk) for pool in pools.values() for disk in ("ssd", "hdd")]
        for number, (pool, capabilities, disk) in enumerate(served):
            serves = Serves(
                pool=pool,
                capabilities=capabilities,
                slots=rng.randint(1, 4),
                slow=rng.choice((1.0, 5.0, 30.0)),
                disk=disk,
                timing=timing,
            )
            name = f"h{number}"
            self.checker.places.hosts[name] = serves
            self.processes.append(Host(self.world, self.server, name, serves, self.checker))

    def run(self) -> Report:
        world = self.world
        for process in self.processes:
            world.after(world.rng.uniform(0, 1), process.start)
        for _ in range(world.rng.choice((0, 0, 1, 4))):
            world.after(world.rng.uniform(3, _FAULTS_UNTIL - 2), self.server.crash)
        world.run(_FAULTS_UNTIL)
        world.note("world", "is calm from here on")
        world.faults.active = False
        for process in self.processes:
            process.wake()
        world.run(_FAULTS_UNTIL + _CALM, self._is_over)
        calm = world.now - _FAULTS_UNTIL
        world.run(world.now + _REST)
        self.checker.finish(self.sent, self.server.journal)
        return Report(
            seed=world.seed,
            stored=Counter(_kind(record.subject) for record in self.server.journal),
            ended=self.checker.ends.total(),
            starts=len(self.checker.starts),
            overtakes=self.checker.overtakes,
            crashes=self.server.crashes,
            refusals=self.server.refusals,
            blobs=len(self.server.blobs),
            repeats=self.server.repeats,
            lost=self.server.lost,
            restored=sum(router.restored for router in self.routers),
            seen=self.checker.seen,
            dead=sum(b'"type":"Lost"' in record.data for record in self.server.journal),
            calm=calm,
            struck=world.faults.struck,
        )

    def _is_over(self) -> bool:
        at_rest = self.operator.rests and not any(poster.open for poster in self.posters)
        return at_rest and self.checker.idle


def _kind(subject: str) -> str:
    parts = subject.split(".")
    return parts[3] if parts[1] == "run" and len(parts) > 3 else parts[1]


def journal_of(seed: int) -> list[Stored]:
    """The journal that one seed leaves."""
    scenario = _Scenario(seed, storm=False)
    scenario.run()
    return scenario.server.journal


def simulate(seed: int, *, storm: bool = False) -> Report:
    """Run one seed; storm: see `Faults`.

    Raises `Violation` with the trace; `I8` if a component breaks.
    """
    scenario = _Scenario(seed, storm=storm)
    try:
        return scenario.run()
    except Exception as error:
        found = error
        if not isinstance(error, Violation):
            found = Violation("I8", f"a component broke: {error!r}")
        what = f"simulate({seed}, storm={storm})"
        found.add_note(f"{what}; the last that happened:\n{scenario.world.trace()}")
        if found is error:
            raise
        raise found from error
