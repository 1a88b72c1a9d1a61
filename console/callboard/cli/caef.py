"""`callboard caef plan|run STORY...`: plans stories, and works on them until their tests pass."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from callboard.cli.caef_run import AskedStories, rehearse_stories, run_stories
from callboard.cli.caef_screen import show_plans
from callboard.cli.loop import run as run_coroutine
from callboard.cli.options import Json, Key, Nats, Prefix, Tenant, new_app
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
from callboard_integrations.bmad.choosing import RunnerChoice, chosen_runner
from callboard_integrations.bmad.persona import token
from callboard_integrations.bmad.runner import Runner
from callboard_integrations.caef.flow import StoryOptions
from callboard_integrations.caef.settings import load_settings
from callboard_integrations.caef.stage_agents import StoryShop
from callboard_integrations.caef.trio import plan_for

__all__ = ["app"]

app = new_app("Work on stories in rounds of plan, implement and test, within budgets.")

Stories = Annotated[
    list[Path], typer.Argument(metavar="STORY...", help="Story files, or folders of them.")
]
Project = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH", help="Else the repository that STORY lies in.", show_default=False
    ),
]
Named = Annotated[
    str, typer.Option("--profile", metavar="NAME", help="Of budgets: quick, full, or your own.")
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Of a plan, at most; else as the profile says.", show_default=False),
]


@app.command(
    epilog="callboard caef plan docs/stories/1.1.story.md\n\n"
    "callboard caef plan docs/stories --profile full --json | jq '.[].plan.steps'\n\n"
    "Nothing runs, and no board is needed."
)
def plan(
    stories: Stories,
    *,
    project: Project = None,
    profile: Named = "quick",
    max_steps: Steps = None,
    json: Json = False,
) -> None:
    """Show what is to be done for each story, and how one sees that it is."""
    root = _root(project, stories)
    settings = load_settings(root)
    found = {
        one["story"]: plan_for(profile, settings, root / one["story"], root, max_steps=max_steps)
        for one in _listed(root, stories, None)
    }
    show_plans(Screen(json=json), found)


_RUN_EPILOG = """callboard caef run docs/stories/1.1.story.md

callboard caef run docs/stories/1.1.story.md --apply

callboard caef run docs/stories --apply --command 'my-tool --system {system}' --at-once 8

callboard caef run docs/stories --apply --endpoint http://127.0.0.1:8000/v1 --model local \
--profile full

The edits of docs/1.1.md are in docs/1.1.edits.json; without one the author is asked, who is named \
by --command, --endpoint, --chat or --graph. Without --apply nothing is changed, and no board is \
needed. With it, each story has a branch callboard/RUN/STORY; your own checkout is not touched.

Exit code 1: a story is not green, or without --apply an edit does not fit."""


@app.command(epilog=_RUN_EPILOG)
def run(  # noqa: PLR0913  each is an option of the command
    stories: Stories,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Change files, on the stories' branches.")
    ] = False,
    project: Project = None,
    profile: Named = "quick",
    edits: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Of one story; again: for its next round."),
    ] = None,
    endpoint: Endpoint = None,
    model: Model = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    command: Line = None,
    chat: Chat = None,
    graph: Graph = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="NAME", help="Of its branches; else a new one.", show_default=False
        ),
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, max=1000, help="Stories at the same time.")] = 4,
    lint_gate: Annotated[
        bool, typer.Option("--lint-gate/--no-lint-gate", help="The linter must be content, too.")
    ] = True,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Reserved for each answer, and its most.", metavar="N"),
    ] = None,
    budget: Budget = None,
    agents: Agents = True,
    wait: Wait = True,
    tenant: Tenant = "default",
    key: Key = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Work on stories until their tests pass; without --apply, show what would be changed."""
    if agents and not wait:
        raise BadInput("--no-wait", "the agents end with this command; give --no-agents, too")
    root = _root(project, stories)
    listed = _listed(root, stories, edits)
    choice = RunnerChoice(
        endpoint=endpoint,
        model=model,
        command=command,
        chat=chat,
        graph=graph,
        key_variable=key_variable,
    )
    shop = StoryShop(root, _author(choice, listed, needed=agents or not apply))
    options = StoryOptions(
        run=token(name) if name else _new_name(),
        profile_name=profile,
        profile=shop.settings.profile(profile),
        at_once=at_once,
        lint_gate=lint_gate,
        tokens=tokens,
        budgets=budget or (),
    )
    screen = Screen(json=json)
    if not apply:
        raise typer.Exit(run_coroutine(rehearse_stories(shop, listed, options, screen)))
    asked = AskedStories(
        shop=shop,
        stories=listed,
        options=options,
        agents=agents,
        tenant=tenant,
        key=key,
        nats=nats,
        prefix=prefix,
        wait=wait,
    )
    raise typer.Exit(run_coroutine(run_stories(asked, screen)))


def _author(choice: RunnerChoice, listed: list[dict[str, Any]], *, needed: bool) -> Runner | None:
    """Who was named; None where every story has its edits, or the work is done elsewhere."""
    named = (choice.endpoint, choice.command, choice.chat, choice.graph)
    if any(named):
        return chosen_runner(choice)
    bare = [one["story"] for one in listed if not one["edits"]]
    if bare and needed:
        raise BadInput(
            "edits",
            f"{bare[0]} has no edits file beside it: name one with --edits FILE, or who writes "
            "edits: one of --endpoint URL --model NAME, --command LINE, --chat or --graph "
            "MODULE:NAME",
        )
    return None


def _new_name() -> str:
    """Unlike that of any other run, so that no branch is another one's."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _root(project: Path | None, stories: list[Path]) -> Path:
    """The project: as it was named, else the repository that the first story lies in."""
    if project is not None:
        if not project.is_dir():
            raise BadInput("project", f"there is no folder {project}")
        return project.resolve()
    first = stories[0].resolve()
    for folder in (first, *first.parents):
        if (folder / ".git").exists():
            return folder
    raise BadInput("project", f"{stories[0]} lies in no git repository; name it with --project")


def _listed(root: Path, stories: list[Path], edits: list[Path] | None) -> list[dict[str, Any]]:
    """The stories as a workflow has them, each with its edits files."""
    files: list[Path] = []
    for path in stories:
        found = sorted(path.glob("*.md")) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise BadInput("story", f"there is no story {path}")
        files += found
    if edits and len(files) > 1:
        raise BadInput("--edits", "goes with one story; those of several lie beside them")
    return [
        {
            "id": token(path.name.removesuffix(".md").removesuffix(".story")),
            "story": _within(root, path),
            "edits": [_within(root, one) for one in edits or _beside(path)],
        }
        for path in files
    ]


def _beside(story: Path) -> list[Path]:
    """`1.1.edits.json`, then those of further rounds: `1.1.edits.2.json`."""
    stem = story.name.removesuffix(".md")
    first = story.with_name(f"{stem}.edits.json")
    found = [first] if first.is_file() else []
    while found and (more := story.with_name(f"{stem}.edits.{len(found) + 1}.json")).is_file():
        found.append(more)
    return found


def _within(root: Path, path: Path) -> str:
    whole = path.resolve()
    if not whole.is_relative_to(root):
        raise BadInput("story", f"{path} does not lie in the project {root}")
    return str(whole.relative_to(root))
