"""Stories on a whole board: rounds until the tests pass, in parallel, through a host's death."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard import Board, Context, connect
from callboard_agents.failures import GiveUp
from callboard_broker.errors import BadInput
from callboard_integrations.bmad import Answer, CommandRunner, Request
from callboard_integrations.caef import StoryOptions, StoryShop, agents_of, to_workflow
from callboard_integrations.caef.records import ImplementWanted, Planned, PlanWanted
from tests.board import Processes, started_processes
from tests.caef_project import CaefProject, caef_project, edit, story_text
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(180)

STORIES = 12
SETTINGS = {
    "LEASE__BEAT_SECONDS": 0.5,
    "LEASE__SUSPECT_SECONDS": 1.5,
    "LEASE__LEASE_SECONDS": 4,
    "LEASE__LOST_LIMIT": 5,
}
BROKEN = "def answer() -> int:\n    return 0\n"
TESTED = (
    "from {name} import answer\n\n\ndef test_{name}() -> None:\n    assert answer() == {right}\n"
)


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[CaefProject]:
    with caef_project() as found:
        monkeypatch.setenv("CAEF_PROJECT", str(found.root))  # for `caef_agents.py`
        monkeypatch.setenv("CAEF_AUTHOR", found.command)
        yield found


def story_of(name: str, right: int) -> dict[str, str]:
    """A broken module, the test that it fails, and the story about it."""
    return {
        f"src/{name}.py": BROKEN,
        f"tests/test_{name}.py": TESTED.format(name=name, right=right),
        f"docs/{name}.md": story_text(name, f"src/{name}.py", f"tests/test_{name}.py"),
    }


def answer_to(name: str, before: int, after: int) -> dict[str, str]:
    return edit(f"src/{name}.py", f"    return {before}\n", f"    return {after}\n")


def listed(*names: str, edits: bool = False) -> list[dict[str, Any]]:
    return [
        {"id": name, "story": f"docs/{name}.md", "edits": [f"docs/{name}.json"] if edits else []}
        for name in names
    ]


@asynccontextmanager
async def opened(
    nats: NatsServer, folder: Path, hosts: int = 1
) -> AsyncIterator[tuple[Board, Processes]]:
    with started_processes(nats, folder, **SETTINGS) as processes:
        processes.router("router")
        processes.ledger()
        for number in range(hosts):
            processes.host(f"host-{number}", "caef_agents.py")
        for number in range(hosts):
            await processes.says("is ready", f"host-{number}")
        async with connect(nats.url, prefix=nats.prefix) as board:
            yield board, processes


def options_of(project: CaefProject, run: str = "run", **fields: Any) -> StoryOptions:
    profile = StoryShop(project.root).settings.profile("quick")
    return StoryOptions(run=run, profile_name="quick", profile=profile, at_once=16, **fields)


async def run_to_end(
    board: Board, project: CaefProject, stories: list[dict[str, Any]], run: str = "run"
) -> dict[str, dict[str, Any]]:
    handle = await board.run(to_workflow(stories, options_of(project, run)))
    return {one["id"]: one for one in await handle.result(120)}


def checkout(project: CaefProject) -> dict[str, str]:
    """The user's own files by their contents, and what git says of them."""
    found = {
        str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in project.root.rglob("*")
        if path.is_file() and not {".git", ".callboard"} & set(path.parts)
    }
    return found | {"HEAD": project.git("rev-parse", "HEAD"), "?": project.git("status", "-s")}


async def test_twelve_stories_at_once_touch_neither_each_other_nor_the_users_checkout(
    nats: NatsServer, tmp_path: Path, project: CaefProject
) -> None:
    names = [f"m{number}" for number in range(STORIES)]
    files: dict[str, str] = {"shared.txt": "owner: nobody\n"}
    for number, name in enumerate(names):
        files |= story_of(name, 40 + number)
        project.answers(
            name,
            [answer_to(name, 0, 40 + number), edit("shared.txt", "nobody", name)],
        )
    project.write(files)
    before = checkout(project)
    async with opened(nats, tmp_path, hosts=2) as (board, _):
        found = await run_to_end(board, project, listed(*names))
    assert {one["verdict"] for one in found.values()} == {"passed"}, found
    assert checkout(project) == before
    base = project.git("rev-parse", "HEAD")
    for name in names:
        branch = found[name]["branch"]
        assert branch == f"callboard/run/{name}"
        changed = project.git("diff", "--name-only", base, branch).splitlines()
        assert changed == ["shared.txt", f"src/{name}.py"]
        assert project.git("show", f"{branch}:shared.txt") == f"owner: {name}"
        assert project.git("rev-list", "--count", f"{base}..{branch}") == "1"
        assert len(project.asked(name)) == 1


async def test_what_fails_is_told_to_the_next_round_circles_begin_anew_and_end(
    nats: NatsServer, tmp_path: Path, project: CaefProject
) -> None:
    """One board for several stories, each with an author who behaves in a way of its own."""
    files: dict[str, str] = {}
    for name in ("learns", "circles", "misses", "given", "slow"):
        files |= story_of(name, 42)
    files["docs/given.json"] = '[{"file": "src/given.py", "original_snippet": "    return 0\\n", '
    files["docs/given.json"] += '"replacement_snippet": "    return 42\\n"}]'
    files["docs/slow.md"] = story_text("slow", "src/slow.py", "tests/test_slow.py")
    files["tests/test_slow.py"] = "import time\n\n\ndef test_slow() -> None:\n    time.sleep(60)\n"
    quick = {"iterations": 6, "restarts": 1, "test_seconds": 3}
    project.write(files, profiles={"quick": quick})
    project.answers("learns", [answer_to("learns", 0, 41)], [answer_to("learns", 41, 42)])
    back_and_forth = [[answer_to("circles", 0, 1)], [answer_to("circles", 1, 0)]]
    project.answers("circles", *back_and_forth, *back_and_forth)
    project.answers("misses", [answer_to("misses", 7, 42)], [answer_to("misses", 0, 42)])
    project.answers("slow", [answer_to("slow", 0, 1)])
    async with opened(nats, tmp_path) as (board, _):
        stories = listed("learns", "circles", "misses", "slow") + listed("given", edits=True)
        found = await run_to_end(board, project, stories)
        again = await run_to_end(board, project, listed("learns"))
    verdicts = {name: one["verdict"] for name, one in found.items()}
    assert verdicts == {
        "learns": "passed",
        "circles": "oscillating",
        "misses": "passed",
        "slow": "timed_out",
        "given": "passed",
    }, found
    assert found["learns"]["iteration"] == 2
    _, second = project.asked("learns")
    assert "mend what fails in tests/test_learns.py" in second
    assert "assert 41 == 42" in second
    assert "return 41" in second  # the file as the first round has left it
    assert found["circles"]["generation"] == 1
    assert found["circles"]["branch"] == "callboard/run/circles_again-1"
    assert found["circles"]["iteration"] == 4
    third = project.asked("circles")[2]
    assert "Avoid what has led nowhere" in third
    assert "return 0" in third  # a fresh worktree
    assert "the snippet is not there; the nearest is line" in project.asked("misses")[1]
    assert found["slow"]["reason"] == "no restarts are left after 2 iterations"
    assert project.asked("given") == []
    assert (again["learns"]["verdict"], again["learns"]["branch"]) == ("failed", "")


async def test_a_story_survives_the_death_of_its_host_and_is_changed_once(
    nats: NatsServer, tmp_path: Path, project: CaefProject
) -> None:
    project.write(story_of("alone", 42))
    project.answers("alone", [answer_to("alone", 0, 42), edit("log.txt", "", "once\n")])
    project.hold("alone")
    async with opened(nats, tmp_path) as (board, processes):
        handle = await board.run(to_workflow(listed("alone"), options_of(project)))
        gate = await asyncio.to_thread(project.meet, "alone")
        processes.kill("host-0")
        project.let_go("alone", gate)
        processes.host("host-1", "caef_agents.py")
        (found,) = await handle.result(120)
    assert found["verdict"] == "passed", found
    branch = found["branch"]
    assert project.git("show", f"{branch}:log.txt") == "once"
    assert project.git("show", f"{branch}:src/alone.py").count("42") == 1
    assert project.git("rev-list", "--count", f"HEAD..{branch}") == "1"


class Counted(CommandRunner):
    """It says what its answers cost, as an endpoint does."""

    async def run(self, request: Request) -> Answer:
        return Answer(text=(await super().run(request)).text, tokens=42)


async def test_an_iteration_that_is_repeated_over_a_half_written_tree_gives_the_same_tree(
    project: CaefProject,
) -> None:
    project.write(story_of("half", 42))
    project.answers("half", [answer_to("half", 0, 42)], [answer_to("half", 42, 43)])
    shop = StoryShop(project.root, Counted(project.command))
    agents = {one.capability: one for one in agents_of(shop)}
    planned: Planned = await agents["caef.plan"](PlanWanted(story="docs/half.md"))
    wanted = ImplementWanted(run="run", item="half", story="docs/half.md", planned=planned)
    ctx = Context(task="1")
    first = await agents["caef.implement"](wanted, ctx)
    assert (first.tokens, ctx.used) == (42, {"tokens": 42.0})
    tree = project.root / ".callboard" / "worktrees" / "run" / "half"
    (tree / "src/half.py").write_text("torn")
    (tree / "left.tmp").write_text("over")
    ctx = Context(task="1", attempt=2)
    again = await agents["caef.implement"](wanted, ctx)
    assert (again.tokens, ctx.used) == (0, {"tokens": 0.0})
    assert (again.status, again.tree) == ("applied", first.tree)
    assert len(project.asked("half")) == 1, "the author was asked twice for one iteration"
    assert not (tree / "left.tmp").exists()
    standing = {"base": planned.standing.base, "began": planned.standing.began, "iteration": 1}
    later = {**standing, "commit": again.commit}
    more = await agents["caef.implement"](_standing_at(wanted, later), Context(task="2"))
    assert more.status == "applied"
    with pytest.raises(GiveUp, match="iteration 2 of callboard/run/half has begun"):
        await agents["caef.implement"](wanted, Context(task="1", attempt=3))
    assert (tree / "src/half.py").read_text().count("43") == 1
    with pytest.raises(BadInput, match="another run's"):
        await agents["caef.implement"](
            _standing_at(wanted, {**later, "began": 7}), Context(task="9")
        )


def _standing_at(wanted: ImplementWanted, standing: dict[str, Any]) -> ImplementWanted:
    planned = msgspec.to_builtins(wanted.planned)
    return msgspec.convert(
        {**msgspec.to_builtins(wanted), "planned": {**planned, "standing": standing}},
        ImplementWanted,
    )


async def test_a_story_may_name_files_that_cannot_be_and_those_that_are_there_are_tested(
    project: CaefProject,
) -> None:
    files = story_of("odd", 42)
    names = ("tests/test_odd.py", f"tests/test_{'x' * 300}.py", "../test_out.py")
    project.write({**files, "docs/odd.md": story_text("odd", *names)})
    project.answers("odd", [answer_to("odd", 0, 42)])
    agents = {
        one.capability: one
        for one in agents_of(StoryShop(project.root, CommandRunner(project.command)))
    }
    planned: Planned = await agents["caef.plan"](PlanWanted(story="docs/odd.md"))
    wanted = ImplementWanted(run="run", item="odd", story="docs/odd.md", planned=planned)
    change = await agents["caef.implement"](wanted, Context(task="1"))
    assert change.test is not None
    assert change.test.paths == ["tests/test_odd.py"]


async def test_an_author_who_does_not_answer_in_time_is_stopped_and_told_apart(
    project: CaefProject,
) -> None:
    project.write(story_of("late", 42), profiles={"quick": {"iteration_seconds": 1.5}})
    project.answers("late", [answer_to("late", 0, 42)])
    project.hold("late")
    shop = StoryShop(project.root, CommandRunner(project.command))
    agents = {one.capability: one for one in agents_of(shop)}
    planned: Planned = await agents["caef.plan"](PlanWanted(story="docs/late.md"))
    wanted = ImplementWanted(run="run", item="late", story="docs/late.md", planned=planned)
    change = await agents["caef.implement"](wanted, Context(task="1"))
    assert (change.status, change.test) == ("timed_out", None)
    assert "within 1.5 s" in change.reason
