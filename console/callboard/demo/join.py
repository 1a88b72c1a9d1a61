"""The join: all reviews of all files become one report.

Reviews may come in any order, twice (a redelivery) or not at all (a lost agent): the report is the
same for the same set of reviews, and says which are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from callboard.demo.cycles import cycles
from callboard.demo.findings import SEVERITIES, FileReview, Finding, Hotspot
from callboard.demo.planning import Plan, Skipped

__all__ = ["FileFigures", "Report", "merge"]

_HOTSPOTS = 10
_TOTALS = ("lines", "source_lines", "functions", "classes", "public_names", "documented_names")


class FileFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One file in numbers: its findings by severity, its size and its hardest function."""

    file: str
    high: int
    medium: int
    low: int
    info: int
    source_lines: int
    functions: int
    max_complexity: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found, in an order that depends on the reviews alone.

    files: the worst first. hotspots: the ten hardest functions. processes: how many reviews each
    did. missing: planned reviews that never came, as "specialist: file".
    """

    root: str
    findings: list[Finding]
    by_severity: dict[str, int]
    by_specialist: dict[str, int]
    by_rule: dict[str, int]
    files: list[FileFigures]
    hotspots: list[Hotspot]
    totals: dict[str, int]
    processes: dict[str, int]
    reviews: int
    missing: list[str] = msgspec.field(default_factory=list)
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    skipped_more: int = 0


def merge(reviews: Iterable[FileReview], *, plan: Plan | None = None) -> Report:
    """Join the reviews. With the `plan` the report also knows what is missing and was skipped."""
    first: dict[tuple[str, str], FileReview] = {}
    for review in sorted(reviews, key=lambda each: (each.file, each.specialist, each.process)):
        first.setdefault((review.file, review.specialist), review)
    kept = list(first.values())
    circles = cycles(kept, package=plan.package if plan else "")
    credited: dict[Finding, str] = {}
    for review in kept:
        for finding in review.findings:
            # A file that does not parse is one finding, though every specialist says so.
            credited.setdefault(finding, review.specialist)
    credited.update(dict.fromkeys(circles, "imports"))
    findings = sorted(credited, key=_urgency)
    specialists = sorted({each.specialist for each in kept})
    severities = Counter(each.severity for each in findings)
    by_specialist = Counter(credited.values())
    return Report(
        root=plan.root if plan else "",
        findings=findings,
        by_severity={each: severities[each] for each in SEVERITIES},
        by_specialist={each: by_specialist[each] for each in specialists},
        by_rule=_ranked(Counter(each.rule for each in findings)),
        files=_figures(kept, findings),
        hotspots=sorted((each for one in kept for each in one.hotspots), key=_hardness)[:_HOTSPOTS],
        totals={each: int(sum(one.facts.get(each, 0) for one in kept)) for each in _TOTALS},
        processes=dict(sorted(Counter(each.process for each in kept if each.process).items())),
        reviews=len(kept),
        missing=[
            f"{specialist}: {file.relative}"
            for file in (plan.files if plan else ())
            for specialist in specialists
            if (file.relative, specialist) not in first
        ],
        skipped=plan.skipped if plan else [],
        skipped_more=plan.skipped_more if plan else 0,
    )


def _urgency(finding: Finding) -> tuple[int, str, int, str, str]:
    rank = SEVERITIES.index(finding.severity)
    return rank, finding.file, finding.line, finding.rule, finding.message


def _hardness(spot: Hotspot) -> tuple[int, int, str, int]:
    return -spot.complexity, -spot.cognitive, spot.file, spot.line


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def _figures(reviews: list[FileReview], findings: list[Finding]) -> list[FileFigures]:
    facts: dict[str, dict[str, int | float]] = {}
    for review in reviews:
        facts.setdefault(review.file, {}).update(review.facts)
    counts = Counter((each.file, each.severity) for each in findings)
    figures = [
        FileFigures(
            file=file,
            high=counts[file, "high"],
            medium=counts[file, "medium"],
            low=counts[file, "low"],
            info=counts[file, "info"],
            source_lines=int(known.get("source_lines", 0)),
            functions=int(known.get("functions", 0)),
            max_complexity=int(known.get("max_complexity", 0)),
        )
        for file, known in facts.items()
    ]
    return sorted(
        figures, key=lambda each: (-each.high, -each.medium, -each.low, -each.info, each.file)
    )
