"""One seed: who takes part, what is posted, a time of faults, a time of calm, and the verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from callboard_router.decide import Policy
from callboard_router.liveness import Timing
from tests.simulation.checker import Checker
from tests.simulation.flows import CAPABILITIES
from tests.simulation.host import CLOCK_ERROR_MS, Host
from tests.simulation.posters import TENANTS, Poster, draw_post
from tests.simulation.router import Router
from tests.simulation.sent import Sent
from tests.simulation.server import Server
from tests.simulation.work import Serves
from tests.simulation.world import Process, Violation, World

__all__ = ["Report", "simulate"]

_FAULTS_UNTIL = 35.0
_POSTS_UNTIL = 30.0
_CALM = 500.0
_REST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened in one world.

    stored: messages by kind. calm: seconds from the last fault until all was done. overtakes:
    elements of a fan-out that began before the one before it was complete. repeats: dispatches
    handed over again by a restarted server. dead: tasks that failed since attempts were lost.
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
    dead: int
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
        self.checker = Checker(world, digests, lost_limit=3, clock_error_ms=CLOCK_ERROR_MS + 5)
        self.server = Server(world, self.checker.stored)
        self.sent: list[Sent] = []
        self.processes: list[Process] = [
            Router(world, self.server, f"r{number}", policies, digests)
            for number in range(rng.randint(1, 3))
        ]
        self._add_hosts(timing, pools)
        self.posters: list[Poster] = []
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
            self.posters.append(Poster(world, self.server, f"p{number}", plan))
        self.processes += self.posters

    def _policy(self, timing: Timing, pools: dict[str, str]) -> Policy:
        rng = self.world.rng
        limits = {"global": rng.randint(2, 10), "tenant": rng.randint(1, 6)}
        if rng.random() < 0.5:
            limits[f"tenant/{rng.choice(TENANTS)}"] = rng.randint(1, 3)
        return Policy(
            limits=limits,
            timing=timing,
            pools=pools,
            unresolved=rng.choice((3.0, 10.0)),
        )

    def _add_hosts(self, timing: Timing, pools: dict[str, str]) -> None:
        rng = self.world.rng
        served: list[tuple[str, tuple[str, ...]]] = [("shared", CAPABILITIES)]
        served += [
            ("shared", tuple(rng.sample(CAPABILITIES, rng.randint(1, 3))))
            for _ in range(rng.randint(1, 3))
        ]
        if pools:
            served.append(("coral", CAPABILITIES))
        for number, (pool, capabilities) in enumerate(served):
            serves = Serves(
                pool=pool,
                capabilities=capabilities,
                slots=rng.randint(1, 4),
                slow=rng.choice((1.0, 5.0, 30.0)),
                timing=timing,
            )
            self.processes.append(Host(self.world, self.server, f"h{number}", serves, self.checker))

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
            dead=sum(b'"type":"Lost"' in record.data for record in self.server.journal),
            calm=calm,
            struck=world.faults.struck,
        )

    def _is_over(self) -> bool:
        return self.checker.idle and not any(poster.open for poster in self.posters)


def _kind(subject: str) -> str:
    parts = subject.split(".")
    return parts[3] if parts[1] == "run" and len(parts) > 3 else parts[1]


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
