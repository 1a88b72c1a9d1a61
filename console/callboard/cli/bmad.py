"""`callboard bmad lint|list|plan|run|merge`: checks, shows and runs personas and workflows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from callboard.cli.bmad_merge import merge_run
from callboard.cli.bmad_run import Asked, run_plan
from callboard.cli.bmad_screen import show_findings, show_plan, show_roster
from callboard.cli.loop import run as run_coroutine
from callboard.cli.options import Json, Key, Nats, Prefix, Tenant, duration, new_app
from callboard.cli.reading import split_pair
from callboard.cli.runner_options import (
    Agents,
    Budget,
    Chat,
    Endpoint,
    Graph,
    KeyVariable,
    Line,
    Model,
    Wait,
)
from callboard.cli.screen import Screen
from callboard_broker.errors import BadInput
from callboard_integrations.bmad.choosing import RunnerChoice
from callboard_integrations.bmad.discovery import discover
from callboard_integrations.bmad.drawing import to_mermaid, to_svg
from callboard_integrations.bmad.flow import RunOptions
from callboard_integrations.bmad.persona import token
from callboard_integrations.bmad.plan import Plan, make_plan

__all__ = ["app"]

_STEP_SECONDS = 1800.0

app = new_app("Check, show and run the personas and workflows of a project.")

Project = Annotated[
    Path, typer.Argument(metavar="PATH", help="The project's folder, or one of its files.")
]
Named = Annotated[
    str | None,
    typer.Option(
        "--workflow",
        "-w",
        metavar="NAME",
        help="Its id or file; needed where there are several.",
        show_default=False,
    ),
]
Chosen = Annotated[
    str | None,
    typer.Option(
        "--sequence", metavar="NAME", help="If it has several; else the first.", show_default=False
    ),
]
Assigned = Annotated[
    list[str] | None,
    typer.Option(
        "--assign", metavar="STEP=PERSONA", help="Who does a step, or what an agent's name means."
    ),
]


@app.command(
    epilog="callboard bmad lint .\n\ncallboard bmad lint my-project --json | jq .diagnostics\n\n"
    "Exit code 1: a file gives nothing. What was only mended is a warning."
)
def lint(path: Project, *, json: Json = False) -> None:
    """Say what is wrong with the files, by line, and what that costs."""
    roster = discover(path)
    show_findings(Screen(json=json), roster)
    raise typer.Exit(1 if any(one.severity == "error" for one in roster.diagnostics) else 0)


@app.command(
    "list",
    epilog="callboard bmad list .\n\ncallboard bmad list . --json | jq -r '.personas[].capability'",
)
def list_(path: Project, *, json: Json = False) -> None:
    """List personas with their capabilities, teams and workflows."""
    show_roster(Screen(json=json), discover(path))


@app.command(
    epilog="callboard bmad plan . --workflow greenfield-service\n\n"
    "callboard bmad plan . -w greenfield-ui --format svg --output plan.svg\n\n"
    "callboard bmad plan . -w greenfield-ui --format mermaid\n\n"
    "Nothing runs. Exit code 1: nobody is there for a step."
)
def plan(
    path: Project,
    *,
    workflow: Named = None,
    sequence: Chosen = None,
    assign: Assigned = None,
    form: Annotated[
        Literal["text", "mermaid", "svg"], typer.Option("--format", help="How it is drawn.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where it goes.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show a workflow as a graph: its width, barriers, gates, and steps that nobody can do."""
    found = _planned(path, workflow, sequence, assign)
    screen = Screen(json=json)
    if form == "text":
        if output is not None:
            raise BadInput("output", "goes with --format mermaid or svg")
        show_plan(screen, found)
    else:
        drawn = to_svg(found) if form == "svg" else to_mermaid(found)
        if output is None:
            typer.echo(drawn, nl=False)
        else:
            _write(output, drawn)
    raise typer.Exit(1 if found.unresolved else 0)


_RUN_EPILOG = """callboard bmad run . -w greenfield-service --endpoint http://127.0.0.1:8000/v1 \
--model local

callboard bmad run . -w greenfield-ui --command 'my-tool --system {system}' --at-once 3

callboard bmad run . -w greenfield-ui --chat company.models:writer --yes user_wants_story_review

callboard bmad run . -w greenfield-ui --no-agents --no-wait

A condition or choice that is not answered waits: callboard signal ID NAME true. The same --run \
again goes on where it ended: what is finished is not asked of the model again."""


@app.command(epilog=_RUN_EPILOG)
def run(  # noqa: PLR0913  each is an option of the command
    path: Project,
    *,
    workflow: Named = None,
    sequence: Chosen = None,
    assign: Assigned = None,
    endpoint: Endpoint = None,
    model: Model = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    command: Line = None,
    chat: Chat = None,
    graph: Graph = None,
    name: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="Else the workflow's.", show_default=False),
    ] = None,
    brief: Annotated[str, typer.Option(metavar="TEXT", help="What it is about.")] = "",
    at_once: Annotated[
        int, typer.Option(min=1, max=1000, help="Stories of one epic at the same time.")
    ] = 4,
    epics_at_once: Annotated[
        int, typer.Option(min=1, max=256, help="Epics at the same time, each with its stories.")
    ] = 1,
    item: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What its loops go over.")
    ] = None,
    yes: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Answer a condition or choice.")
    ] = None,
    no: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Answer it with no.")] = None,
    others: Annotated[
        Literal["ask", "yes", "no"], typer.Option(help="All other conditions and choices.")
    ] = "ask",
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Reserved for each step, and its answer's most.", metavar="N"),
    ] = None,
    budget: Budget = None,
    timeout: Annotated[float | None, duration("For one step: 90, 45m. [default: 30m]")] = None,
    agents: Agents = True,
    wait: Wait = True,
    tenant: Tenant = "default",
    key: Key = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Run a workflow on the board: a task for each step, done by the personas."""
    if agents and not wait:
        raise BadInput("--no-wait", "the agents end with this command; give --no-agents, too")
    found = _planned(path, workflow, sequence, assign)
    seconds = _STEP_SECONDS if timeout is None else timeout
    choice = RunnerChoice(
        endpoint=endpoint,
        model=model,
        command=command,
        chat=chat,
        graph=graph,
        key_variable=key_variable,
        timeout=seconds,
    )
    options = RunOptions(
        run=token(name or found.workflow.id),
        at_once=at_once,
        epics_at_once=epics_at_once,
        answers=dict.fromkeys(no or (), False) | dict.fromkeys(yes or (), True),
        other_answers={"ask": None, "yes": True, "no": False}[others],
        items=item or (),
        brief=brief,
        tokens=tokens,
        budgets=budget or (),
    )
    asked = Asked(
        project=path if path.is_dir() else path.parent,
        plan=found,
        options=options,
        choice=choice if agents else None,
        timeout=seconds,
        tenant=tenant,
        key=key,
        nats=nats,
        prefix=prefix,
        wait=wait,
    )
    raise typer.Exit(run_coroutine(run_plan(asked, Screen(json=json))))


@app.command(
    epilog="callboard bmad merge . --run greenfield-service\n\n"
    "callboard bmad merge . --run greenfield-service --all --json\n\n"
    "Your own checkout is not touched: take the branch with git merge. Exit code 1: a branch is in "
    "conflict, and left out."
)
def merge(
    path: Project,
    *,
    name: Annotated[
        str, typer.Option("--run", metavar="NAME", help="The run's name; else the workflow's id.")
    ],
    everything: Annotated[
        bool, typer.Option("--all", help="Also stories that are not done.")
    ] = False,
    json: Json = False,
) -> None:
    """Merge the branches of the stories that are done into one, callboard/RUN/_merged."""
    asked = merge_run(path.resolve(), token(name), Screen(json=json), everything=everything)
    raise typer.Exit(run_coroutine(asked))


def _planned(
    path: Path, workflow: str | None, sequence: str | None, assign: list[str] | None
) -> Plan:
    roster = discover(path)
    assigned = dict(split_pair(text, "--assign") for text in assign or ())
    return make_plan(roster, roster.workflow(workflow), sequence, assign=assigned)


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput("output", f"{output} cannot be written: {error.strerror}") from error
