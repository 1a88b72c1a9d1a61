"""`callboard stats`: how agents and capabilities perform."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from callboard.cli.asking import ask_figures
from callboard.cli.loop import run
from callboard.cli.options import Capability, Follow, Json, Nats, Prefix, Since, Whose, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import Cell, Screen, clock_time
from callboard.cli.watching import watch
from callboard_ledger.figures import FigureView, Spread

__all__ = ["app"]

app = new_app()


class By(StrEnum):
    """What figures are grouped by."""

    hour = "hour"
    tenant = "tenant"
    capability = "capability"
    agent = "agent"
    version = "version"


_EPILOG = """callboard stats

callboard stats --by agent --since 1h

callboard stats --by hour --by capability --capability review.python

callboard stats --follow

callboard stats --json | jq '.items[] | {capability, p99: .run.p99}'

Attempts by how they ended, and the times that 50, 95 and 99 % of them did not exceed: wait, from \
when a task could run to its dispatch; handoff, from there to the handler's start; run, the handler.
Units, such as tokens and cost, are what agents have settled. Kept for ninety days, by the hour."""


@app.command(epilog=_EPILOG)
def stats(  # noqa: PLR0913  each is an option of the command
    *,
    by: Annotated[
        list[By] | None,
        typer.Option(help="Group by this; may be repeated. [default: capability]"),
    ] = None,
    since: Since = None,
    capability: Capability = None,
    follow: Follow = False,
    tenant: Whose = "all",
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show how capabilities, agents or tenants perform: success, times, tokens and cost."""
    groups = [each.value for each in by or [By.capability]]
    question: dict[str, Any] = {"by": groups}
    if since is not None:
        question["since"] = int((time.time() - since) * 1000)
    if capability is not None:
        question["capability"] = capability

    async def work() -> None:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard stats") as board:

            async def show() -> bool:
                found = await ask_figures(board, question, tenant)
                if json:
                    screen.document(found)
                elif found.items:
                    _show(screen, found.items)
                else:
                    screen.note("no attempt has ended" + (" since" if since else ""))
                return True

            await watch(screen, show, follow=follow)

    run(work())


def _show(screen: Screen, items: list[FigureView]) -> None:
    names = [
        name
        for name in ("hour", "tenant", "capability", "agent", "version")
        if getattr(items[0], name) is not None
    ]
    units = sorted({unit for item in items for unit in item.used})
    columns = [
        *names,
        "attempts#",
        "ok#",
        "lost#",
        "wait ms#",
        "handoff ms#",
        "run ms#",
        *(f"{unit}#" for unit in units),
    ]
    screen.table(columns, [_row(item, names, units) for item in items], fold=names[-1])
    screen.note("times: p50 / p95 / p99")


def _row(item: FigureView, names: list[str], units: list[str]) -> list[Cell]:
    group = [
        clock_time(item.hour) if name == "hour" else str(getattr(item, name)) for name in names
    ]
    rate = item.success_rate
    return [
        *group,
        item.attempts,
        "" if rate is None else f"{100 * rate:.4g} %",
        item.lost,
        *(_times(spread) for spread in (item.wait, item.handoff, item.run)),
        *(f"{item.used.get(unit, 0):,.6g}" for unit in units),
    ]


def _times(spread: Spread) -> str:
    if spread.p50 is None:
        return ""
    return " / ".join(
        f"{value:,.0f}" for value in (spread.p50, spread.p95, spread.p99) if value is not None
    )
