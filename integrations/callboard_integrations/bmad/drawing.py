"""Draws a plan: as Mermaid, or as an SVG picture that needs nothing else.

Only edges that no longer way implies are drawn. Boxes with a double line are decided by somebody
first, dashed ones do nothing themselves, red ones have nobody to do them; a bar above a box is a
barrier, and a loop has a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

from callboard_integrations.bmad.plan import Plan, PlanStep

__all__ = ["reduced", "to_mermaid", "to_svg"]

_BOX_WIDTH, _BOX_HEIGHT = 250, 58
_GAP_X, _GAP_Y = 24, 44
_MARGIN = 24
_TOP = 64
_MAX_LABEL = 34
_ARROW_HEAD = (
    '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z" fill="#667"/></marker></defs>'
)


def reduced(plan: Plan) -> dict[str, list[str]]:
    """What each step waits for, without what another of these waits for already."""
    above: dict[str, set[str]] = {}
    found: dict[str, list[str]] = {}
    for one in plan.steps:
        implied = {far for near in one.after for far in above[near]}
        found[one.id] = [name for name in one.after if name not in implied]
        above[one.id] = implied | set(one.after)
    return found


def to_mermaid(plan: Plan) -> str:
    """A flowchart for whoever shows Mermaid."""
    names = {one.id: f"s{number}" for number, one in enumerate(plan.steps)}
    lines = ["flowchart TD"]
    inside = {one.id for steps in plan.loops.values() for one in steps}
    lines += [f"  {_node(one, names)}" for one in plan.steps if one.id not in inside]
    for first, steps in plan.loops.items():
        over = _quoted(_over(plan, steps))
        lines.append(f'  subgraph loop_{names[first]}["{over}"]')
        lines += [f"    {_node(one, names)}" for one in steps]
        lines.append("  end")
    for own, before in reduced(plan).items():
        lines += [f"  {names[name]} --> {names[own]}" for name in before]
    lines.append("  classDef nobody fill:#fdd,stroke:#c00")
    lines += [f"  class {names[one.id]} nobody" for one in plan.unresolved]
    return "\n".join(lines) + "\n"


def _over(plan: Plan, steps: list[PlanStep]) -> str:
    """What a loop goes over, and whether somebody is asked between its items."""
    asked = " ? done_checkpoint" if "done_checkpoint" in plan.checkpoints else ""
    return steps[0].step.repeats + (asked if steps in plan.story_loops else "")


def _node(one: PlanStep, names: Mapping[str, str]) -> str:
    parts = [one.id, one.who, *(f"? {gate.name}" for gate in one.gates)]
    text = "<br/>".join(_quoted(part) for part in parts if part)
    opened, closed = ("{{", "}}") if one.gates else ("[", "]") if one.step.agents else ("(", ")")
    return f'{names[one.id]}{opened}"{text}"{closed}'


def _quoted(text: str) -> str:
    return escape(text, {'"': "#quot;"}).replace("`", "'")


def to_svg(plan: Plan) -> str:
    """A picture of the levels from top to bottom."""
    rows: dict[int, list[PlanStep]] = {}
    for one in plan.steps:
        rows.setdefault(plan.levels[one.id], []).append(one)
    most = max((len(row) for row in rows.values()), default=1)
    width = 2 * _MARGIN + most * (_BOX_WIDTH + _GAP_X) - _GAP_X
    height = _TOP + len(rows) * (_BOX_HEIGHT + _GAP_Y)
    places: dict[str, tuple[float, float]] = {}
    for level, row in rows.items():
        used = len(row) * (_BOX_WIDTH + _GAP_X) - _GAP_X
        for number, one in enumerate(row):
            x = (width - used) / 2 + number * (_BOX_WIDTH + _GAP_X)
            places[one.id] = (x, _TOP + (level - 1) * (_BOX_HEIGHT + _GAP_Y))
    title = f"{plan.workflow.name} · {plan.sequence}"
    facts = (
        f"{len(plan.steps)} steps · depth {plan.depth} · width {plan.width} · "
        f"{len(plan.barriers)} barriers · {len(plan.gates)} gates"
    )
    parts = [
        _head(width, height),
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        _ARROW_HEAD,
        f'<text x="{_MARGIN}" y="24" font-size="16" fill="#112">{escape(title)}</text>',
        f'<text x="{_MARGIN}" y="44" fill="#667">{escape(facts)}</text>',
    ]
    parts += [_frame(_over(plan, steps), steps, places) for steps in plan.loops.values()]
    for own, before in reduced(plan).items():
        parts += [_arrow(places[name], places[own]) for name in before]
    parts += [_box(one, places[one.id]) for one in plan.steps]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _head(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
    )


def _frame(over: str, steps: list[PlanStep], places: Mapping[str, tuple[float, float]]) -> str:
    xs = [places[one.id][0] for one in steps]
    ys = [places[one.id][1] for one in steps]
    x, y = min(xs) - 12, min(ys) - 22
    wide, high = max(xs) - x + _BOX_WIDTH + 12, max(ys) - y + _BOX_HEIGHT + 10
    return (
        f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="8" fill="#f2f6ff" '
        'stroke="#88a" stroke-dasharray="5 4"/>'
        f'<text x="{x + 8}" y="{y + 15}" font-size="11" fill="#446">'
        f"{escape(_short(over))}</text>"
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + _BOX_WIDTH / 2, start[1] + _BOX_HEIGHT
    x2, y2 = end[0] + _BOX_WIDTH / 2, end[1]
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}" fill="none" '
        'stroke="#667" stroke-width="1.4" marker-end="url(#to)"/>'
    )


def _box(one: PlanStep, place: tuple[float, float]) -> str:
    x, y = place
    nobody = bool(one.step.agents) and not one.personas
    fill = "#fdd" if nobody else "#fff6dd" if one.gates else "#e8f4ea" if one.personas else "#fff"
    dashed = "" if one.step.agents else ' stroke-dasharray="4 3"'
    who = f"{one.who} (nobody)" if nobody else one.who
    gate = ", ".join(f"? {gate.name}" for gate in one.gates)
    makes = ", ".join((*one.creates, *one.updates))
    rim = (
        f'<rect x="{x + 3}" y="{y + 3}" width="{_BOX_WIDTH - 6}" height="{_BOX_HEIGHT - 6}" '
        'rx="4" fill="none" stroke="#c93"/>'
        if one.gates
        else ""
    )
    bar = (
        f'<path d="M{x} {y - 6}h{_BOX_WIDTH}" stroke="#334" stroke-width="3"/>'
        if one.is_barrier
        else ""
    )
    texts = [(one.id, "#112", "bold"), (who, "#334", "normal"), (gate or makes, "#667", "normal")]
    lines = "".join(
        f'<text x="{x + 10}" y="{y + 18 + 16 * number}" fill="{colour}" font-weight="{weight}" '
        f'font-size="12">{escape(_short(text))}</text>'
        for number, (text, colour, weight) in enumerate(texts)
        if text
    )
    return (
        f"<g><title>{escape(one.id)}: {escape(makes or gate or 'nothing handed on')}</title>"
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="#778"{dashed}/>{rim}{bar}{lines}</g>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
