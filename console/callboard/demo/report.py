"""The joined report as Markdown, for a terminal, a pull request or a browser.

Whatever came from the reviewed files is escaped, and masked once more: a secret never shows whole,
even where it is the name of a function.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from callboard.demo.findings import SEVERITIES, Severity
from callboard.demo.join import FileFigures, Report, merge
from callboard.demo.markdown import code, plain, table
from callboard.demo.secrets import mask

__all__ = ["FileFigures", "Report", "RunFigures", "merge", "to_markdown"]

_MAX_FILES = 20
_MAX_SHOWN: dict[Severity, int] = {"high": 100, "medium": 60, "low": 20, "info": 0}
_MEANING: dict[Severity, str] = {
    "high": "a bug or an open door",
    "medium": "probably wrong",
    "low": "hard to read or to keep",
    "info": "good to know",
}


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How the run went: what the journal says, not what the reviewers say.

    parallelism: the most attempts at work at the same time. handoff_*_ms: from an agent's outcome
    to the next agent's start. budget_high_water: the most of the budget that was ever in use.
    audit_verified: None if the audit log was not checked.
    """

    tasks: int
    parallelism: int
    handoff_p50_ms: float
    handoff_p99_ms: float
    budget_high_water: int
    budget_limit: int
    attempts_lost: int
    audit_verified: bool | None
    seconds: float
    processes: list[str]


def to_markdown(report: Report, run: RunFigures | None = None) -> str:
    """The report for people; with `run` it also says how the agents did their work."""
    lines = [*_summary(report, run)]
    if run is not None:
        lines.extend(_run(run))
    lines.extend(_counts(report))
    for severity in SEVERITIES:
        lines.extend(_listed(report, severity))
    lines.extend(_hotspots(report))
    lines.extend(_files(report))
    lines.extend(_work(report))
    lines.extend(_absent(report))
    return "\n".join(lines).rstrip() + "\n"


def _summary(report: Report, run: RunFigures | None) -> Iterator[str]:
    yield f"# Review of {code(report.root) or 'the reviewed files'}"
    yield ""
    high, medium = report.by_severity["high"], report.by_severity["medium"]
    took = f" in {run.seconds:.1f} s" if run else ""
    yield (
        f"{_many(len(report.files), 'file')} with {report.totals['source_lines']:,} lines of code "
        f"and {report.totals['functions']:,} functions, read by "
        f"{_many(len(report.by_specialist), 'specialist')}{took}: "
        f"**{_many(len(report.findings), 'finding')}**, {high} high and {medium} medium."
    )
    yield ""
    if not high:
        yield "Nothing needs attention at once."
        yield ""


def _run(run: RunFigures) -> Iterator[str]:
    audit = {None: "not checked", True: "verified", False: "**does not verify**"}
    yield "## The run"
    yield ""
    yield from table(
        ("Figure", "Value"),
        [
            ("Tasks", f"{run.tasks:,}"),
            ("At work at once, at most", str(run.parallelism)),
            ("Budget in use, at most", f"{run.budget_high_water} of {run.budget_limit}"),
            ("Hand-over, median", f"{run.handoff_p50_ms:.1f} ms"),
            ("Hand-over, 99th percentile", f"{run.handoff_p99_ms:.1f} ms"),
            ("Attempts lost and repeated", str(run.attempts_lost)),
            ("Audit log", audit[run.audit_verified]),
            ("Seconds", f"{run.seconds:.2f}"),
            ("Processes", str(len(run.processes))),
        ],
        right="Value",
    )


def _counts(report: Report) -> Iterator[str]:
    yield "## What was found"
    yield ""
    yield from table(
        ("Severity", "Findings", "Meaning"),
        [(each, str(report.by_severity[each]), _MEANING[each]) for each in SEVERITIES],
        right="Findings",
    )
    yield from table(
        ("Specialist", "Findings"),
        [(plain(each), str(count)) for each, count in report.by_specialist.items()],
        right="Findings",
    )
    if report.by_rule:
        yield from table(
            ("Rule", "Findings"),
            [(plain(each), str(count)) for each, count in report.by_rule.items()],
            right="Findings",
        )


def _listed(report: Report, severity: Severity) -> Iterator[str]:
    found = [each for each in report.findings if each.severity == severity]
    # Where not all fit, the rare ones say more than the fortieth of a kind.
    rare = sorted(found, key=lambda each: report.by_rule[each.rule])[: _MAX_SHOWN[severity]]
    shown = sorted(rare, key=found.index)
    if not shown:
        return
    yield f"## {severity.capitalize()}"
    yield ""
    yield from table(
        ("Where", "Rule", "What"),
        [
            (code(mask(f"{each.file}:{each.line}")), plain(each.rule), plain(mask(each.message)))
            for each in shown
        ],
    )
    if len(found) > len(shown):
        yield f"… and {len(found) - len(shown):,} more; `--json` has them all."
        yield ""


def _hotspots(report: Report) -> Iterator[str]:
    if not report.hotspots:
        return
    yield "## Hardest functions"
    yield ""
    yield from table(
        ("Function", "Where", "Complexity", "Cognitive", "Nesting", "Lines"),
        [
            (
                code(mask(each.function)),
                code(mask(f"{each.file}:{each.line}")),
                *map(str, (each.complexity, each.cognitive, each.nesting, each.lines)),
            )
            for each in report.hotspots
        ],
        right="Complexity Cognitive Nesting Lines",
    )


def _files(report: Report) -> Iterator[str]:
    if not report.files:
        return
    yield "## Files"
    yield ""
    yield from table(
        ("File", "High", "Medium", "Low", "Info", "Code", "Functions", "Hardest"),
        [
            (
                code(mask(each.file)),
                *map(str, (each.high, each.medium, each.low, each.info)),
                *map(str, (each.source_lines, each.functions, each.max_complexity)),
            )
            for each in report.files[:_MAX_FILES]
        ],
        right="High Medium Low Info Code Functions Hardest",
    )
    if (more := len(report.files) - _MAX_FILES) > 0:
        yield f"… and {_many(more, 'file')} with fewer findings."
        yield ""


def _work(report: Report) -> Iterator[str]:
    if not report.processes:
        return
    yield "## Who did the work"
    yield ""
    yield from table(
        ("Process", "Reviews"),
        [(code(each), str(count)) for each, count in report.processes.items()],
        right="Reviews",
    )


def _absent(report: Report) -> Iterator[str]:
    if report.missing:
        yield "## Missing"
        yield ""
        yield "These reviews never came; the report says nothing about them."
        yield ""
        yield from (f"- {code(mask(each))}" for each in report.missing[:_MAX_FILES])
        if (more := len(report.missing) - _MAX_FILES) > 0:
            yield f"- … and {more} more"
        yield ""
    if report.skipped:
        yield "## Not reviewed"
        yield ""
        yield from table(
            ("Path", "Reason"),
            [(code(each.relative), plain(each.reason)) for each in report.skipped[:_MAX_FILES]],
        )
        if (more := len(report.skipped) + report.skipped_more - _MAX_FILES) > 0:
            yield f"… and {more} more."
            yield ""


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
