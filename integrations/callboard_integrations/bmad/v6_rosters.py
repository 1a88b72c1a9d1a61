"""Reads the lists in which generation 6 names its personas, and the order of its work.

A row of a list stands for a persona only where no file of its own does. The order of
`module-help.csv` becomes a workflow: each row a step, in the order of phases and numbers, or after
the skills that it names.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import Persona, text_of, texts_of, token
from callboard_integrations.bmad.source_text import lines_of
from callboard_integrations.bmad.workflow_file import (
    Artifact,
    WorkflowFile,
    WorkflowStep,
)
from callboard_integrations.bmad.workflow_file import Sequence as Steps

__all__ = ["personas_of_list", "read_order", "read_table"]

_MAX_ROWS = 1000
_MAX_CELL = 64 * 1024
_ANYTIME = ("anytime", "")
# The cycle of a story, by the codes and skills of the released modules.
_BEGINS = frozenset({"CS", "bmad-build"})
_FOLLOWS = frozenset({"VS", "DS", "QA", "CR", "bmad-code-review", "bmad-qa-generate-e2e-tests"})


def read_table(text: str, findings: Findings, *, needs: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its head; rows that do not fit are named."""
    rows: list[dict[str, str]] = []
    reader = csv.reader(io.StringIO(lines_of(text)), strict=True)
    head: list[str] = []
    try:
        for cells in reader:
            if not head:
                head = [cell.strip() for cell in cells]
                if missing := [name for name in needs if name not in head]:
                    findings.error("columns", f"its head has no {', '.join(missing)}", 1)
                    return []
                continue
            if not any(cells):
                continue
            if len(rows) >= _MAX_ROWS or max(map(len, cells)) > _MAX_CELL:
                findings.warning("too-many", f"more than {_MAX_ROWS} rows, or a huge cell")
                break
            if len(cells) > len(head) and any(cells[len(head) :]):
                findings.warning(
                    "cells", f"{len(cells)} cells under {len(head)} names", reader.line_num
                )
            filled = cells + [""] * (len(head) - len(cells))
            rows.append(dict(zip(head, filled, strict=False)))
    except csv.Error as error:
        findings.warning("csv", f"the row cannot be read: {error}", reader.line_num)
    return rows


def personas_of_list(
    rows: Sequence[Mapping[str, Any]], findings: Findings, *, pack: str
) -> list[Persona]:
    """Personas of which only the list tells: a row's own words are then its text."""
    found = []
    for row in rows:
        own = text_of(row.get("name") if "displayName" in row else row.get("code"))
        if not own:
            findings.warning("missing", "an agent without a name is left out")
            continue
        told = {str(name): text_of(value) for name, value in row.items() if text_of(value)}
        found.append(
            Persona(
                id=own,
                pack=text_of(row.get("module")) or pack,
                generation="v6 roster",
                path=findings.path,
                raw="".join(f"{name}: {value}\n" for name, value in told.items()),
                name=text_of(row.get("displayName") or row.get("name")),
                title=text_of(row.get("title")),
                icon=text_of(row.get("icon")),
                when_to_use=text_of(row.get("description")),
                role=text_of(row.get("role")),
                style=text_of(row.get("communicationStyle")),
                identity=text_of(row.get("identity")),
                principles=texts_of(row.get("principles")),
            )
        )
    return found


def read_order(
    text: str, findings: Findings, *, pack: str, personas: Sequence[Persona]
) -> WorkflowFile | None:
    """The workflow that a `module-help.csv` describes; None if nothing in it has an order."""
    rows = read_table(text, findings, needs=("module", "phase"))
    if not rows:
        return None
    by_skill = "skill" in rows[0]
    steps = _by_skill(rows, personas) if by_skill else _by_phase(rows)
    if not steps:
        findings.note("no-order", "nothing in it has a place in an order")
        return None
    own = f"{token(pack)}-order"
    return WorkflowFile(
        id=own,
        pack=pack,
        path=findings.path,
        name=f"The order of {pack}",
        description="What the module's help names, in its order",
        dialect="order",
        sequences=(Steps(name="order", steps=tuple(steps)),),
    )


def _by_phase(rows: list[dict[str, str]]) -> list[WorkflowStep]:
    """Up to 6.3: a phase such as `2-planning`, a number within it, and the agent."""

    def place(row: dict[str, str]) -> tuple[str, int]:
        number = re.search(r"\d+", row.get("sequence", ""))
        return row["phase"], int(number[0]) if number else _MAX_ROWS

    ordered = sorted((row for row in rows if row["phase"] not in _ANYTIME), key=place)
    return [
        WorkflowStep(
            name=token(row.get("name") or row.get("code") or "step"),
            agents=tuple(filter(None, (row.get("agent", "").strip(),))),
            action=row.get("name", ""),
            creates=_outputs(row),
            uses=row.get("workflow-file", "") or row.get("command", ""),
            is_optional=row.get("required", "").lower() != "true",
            repeats="for_each_story" if row.get("code") in _BEGINS else "",
            follows=row.get("code") in _FOLLOWS,
            notes=row.get("description", ""),
        )
        for row in ordered
    ]


def _by_skill(rows: list[dict[str, str]], personas: Sequence[Persona]) -> list[WorkflowStep]:
    """From 6.4: skills, each after those that it names; its agent is whose menu has the skill."""
    named = [row for row in rows if row["phase"] not in _ANYTIME and row.get("skill")]
    made = {row["skill"]: _outputs(row) for row in named}
    whose = {command.name: persona.id for persona in personas for command in persona.commands}
    steps = []
    for row in _after(named):
        before = [part.split(":")[0].strip() for part in row.get("preceded-by", "").split(",")]
        steps.append(
            WorkflowStep(
                name=token(row.get("display-name") or row["skill"]),
                agents=tuple(filter(None, (whose.get(row["skill"], row["skill"]),))),
                action=row.get("display-name", ""),
                creates=_outputs(row),
                requires=tuple(part for name in before for part in made.get(name, ())),
                uses=row["skill"],
                is_optional=row.get("required", "").lower() != "true",
                repeats="for_each_story" if row["skill"] in _BEGINS else "",
                follows=row["skill"] in _FOLLOWS,
                notes=row.get("description", ""),
            )
        )
    return steps


def _after(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows as they stand, but each after those of the skills that it names.

    Where they go in a circle, as they stand. What belongs to a story comes directly after it.
    """
    found: list[dict[str, str]] = []
    left = list(rows)
    while left:
        waiting = {row["skill"] for row in left}
        ready = (
            row
            for row in left
            if not any(
                part.split(":")[0].strip() in waiting - {row["skill"]}
                for part in row.get("preceded-by", "").split(",")
            )
        )
        found.append(next(ready, left[0]))
        left.remove(found[-1])
    begins = next((at for at, row in enumerate(found) if row["skill"] in _BEGINS), len(found))
    after = found[begins + 1 :]
    return [
        *found[: begins + 1],
        *(row for row in after if row["skill"] in _FOLLOWS),
        *(row for row in after if row["skill"] not in _FOLLOWS),
    ]


def _outputs(row: Mapping[str, str]) -> tuple[Artifact, ...]:
    said = row.get("outputs", "").strip()
    return tuple(Artifact(part.strip()) for part in said.split("|") if part.strip(" *"))
