"""Released workflows run end to end on a real board, with a model behind a real HTTP endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from callboard.testing import live_board
from callboard_agents import Host, HostOptions
from callboard_broker.client import Board
from callboard_broker.handle import Handle
from callboard_integrations.bmad import (
    EndpointRunner,
    Plan,
    RunOptions,
    Workshop,
    agents_of,
    make_plan,
    to_workflow,
)
from callboard_integrations.bmad.assignment import gathered
from callboard_integrations.bmad.status_files import StatusFile, find_status_file
from tests.model_server import ModelServer, model_server, said
from tests.released_files import roster_of
from tests.servers import NatsServer

KINDS = ("brownfield", "greenfield")
PARTS = ("fullstack", "service", "ui")
CORE = [f"{kind}-{part}" for kind in KINDS for part in PARTS]
AT_ONCE, EPICS = 2, 2
STORIES = 6  # of the model, in `model_server`, three in each of two epics


@asynccontextmanager
async def working(plan: Plan, workshop: Workshop, url: str) -> AsyncIterator[None]:
    """The personas of a plan as one host, until the block ends."""
    personas = {one.capability: one for step in plan.steps for one in step.personas}
    host = Host(agents_of(workshop, list(personas.values())), HostOptions(url=url))
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run())
        await host.ready()
        try:
            yield
        finally:
            host.drain()


async def performed(
    board: Board, url: str, plan: Plan, model: ModelServer, project: Path, options: RunOptions
) -> Handle:
    workshop = Workshop(project, EndpointRunner(model.url, "local"))
    async with working(plan, workshop, url):
        handle = await board.run(to_workflow(plan, options))
        await handle.result(timeout=90)
    return handle


def prompts_of(model: ModelServer, plan: Plan) -> dict[str, list[tuple[str, str]]]:
    """What was asked, by the step that asked it; each step says its action first."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in plan.steps:
        start = f"Step: {one.step.action or one.id}\n"
        raws = {persona.raw for persona in one.personas}
        found[one.id] = [
            asked for asked in model.asked if asked[1].startswith(start) and asked[0] in raws
        ]
    return found


def check(model: ModelServer, plan: Plan) -> None:
    """Each persona was asked with its own bytes, and each artifact arrived further down."""
    asked = prompts_of(model, plan)
    for one in plan.steps:
        if one.personas:
            assert asked[one.id], f"{one.id} was never asked"
        for source in one.sources:
            writer = next(step for step in plan.steps if step.id == source)
            answers = [said(*question) for question in asked[source]]
            wanted = {*writer.creates, *writer.updates} & set(one.reads)
            if not wanted or not one.personas:
                continue
            for _, prompt in asked[one.id]:
                assert any(text in prompt for text in answers), f"{source} -> {one.id}"
    everyone = {persona.raw.encode() for one in plan.steps for persona in one.personas}
    assert {system.encode() for system, _ in model.asked} == everyone


async def test_every_core_workflow_of_v4_runs_end_to_end(nats: NatsServer, tmp_path: Path):
    roster = roster_of("v4.44.3")
    async with live_board(url=nats.url) as board:
        for name in CORE:
            plan = make_plan(roster, roster.workflow(f"core/{name}"))
            with model_server() as model:
                model.meet("Work on this one", AT_ONCE * EPICS)
                options = RunOptions(
                    run=name, other_answers=True, at_once=AT_ONCE, epics_at_once=EPICS, brief=name
                )
                project = tmp_path / name
                handle = await performed(board, nats.url, plan, model, project, options)
                check(model, plan)
                assert model.most_of_epic == {"1": AT_ONCE, "2": AT_ONCE}
                assert model.most == AT_ONCE * EPICS, "stories at once: the limit, and never more"
            result = await handle.result()
            made = gathered(result["artifacts"])
            assert sum(key.endswith("/story.md") for key in made) == STORIES
            statuses = StatusFile(find_status_file(project), project).read()
            assert list(statuses.values()) == ["done"] * STORIES


async def test_every_core_sequence_of_the_first_v4_release_runs_end_to_end(
    nats: NatsServer, tmp_path: Path
):
    roster = roster_of("v4.0.0")
    async with live_board(url=nats.url) as board:
        for name in CORE:
            workflow = roster.workflow(f"core/{name}")
            for sequence in workflow.sequences:
                plan = make_plan(roster, workflow, sequence.name)
                with model_server() as model:
                    options = RunOptions(
                        run=sequence.name.replace("_sequence", ""), other_answers=True
                    )
                    project = tmp_path / name
                    await performed(board, nats.url, plan, model, project, options)
                    check(model, plan)


async def test_the_orders_of_v6_run_from_the_first_idea_to_reviewed_stories(
    nats: NatsServer, tmp_path: Path
):
    async with live_board(url=nats.url) as board:
        for tag, nobodys in {"v6.0.0": {}, "v6.11.0": {"bmad-checkpoint-preview": "dev"}}.items():
            roster = roster_of(tag)
            plan = make_plan(roster, roster.workflow("bmm-order"), assign=nobodys)
            project = tmp_path / tag
            project.mkdir()
            (project / "sprint-status.yaml").write_text(
                "development_status:\n"
                "  epic-1: backlog\n  1-1-wheel: backlog\n  1-2-bell: backlog\n"
            )
            with model_server() as model:
                model.meet("Work on this one", 2)
                options = RunOptions(run=tag.replace(".", "-"), other_answers=True, at_once=2)
                handle = await performed(board, nats.url, plan, model, project, options)
                check(model, plan)
                assert model.most_of_epic == {"1": 2}
            begun = [prompt.partition("\n")[0] for _, prompt in model.asked]
            assert len(begun) == len(plan.steps) + len(plan.story_loops[0]), "each, of two stories"
            said = {one.id: f"Step: {one.step.action or one.id}" for one in plan.steps}
            loops = {one.id: one.loop for one in plan.steps}
            for one in plan.steps:
                for name in one.after:
                    together = loops[name] and loops[name] == one.loop
                    ends = begun.index(said[name])
                    if not together:
                        ends = len(begun) - 1 - begun[::-1].index(said[name])
                    assert ends < begun.index(said[one.id]), f"{name} before {one.id}"
            statuses = StatusFile(find_status_file(project), project).read()
            assert statuses == {"epic-1": "done", "1-1-wheel": "done", "1-2-bell": "done"}
            assert gathered((await handle.result())["artifacts"])
