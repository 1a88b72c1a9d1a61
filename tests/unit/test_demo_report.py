"""The demo plans what it can read, and its report can be read by anybody without harm."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from callboard.demo.findings import FileReview, Finding, Hotspot
from callboard.demo.planning import Plan, SourceFile, default_target, plan, read
from callboard.demo.report import Report, RunFigures, merge, to_markdown
from callboard_broker.errors import BadInput


def write(root: Path, name: str, content: str | bytes = "x = 1\n") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def names(found: Plan) -> list[str]:
    return [each.relative for each in found.files]


def reasons(found: Plan) -> dict[str, str]:
    return {each.relative: each.reason for each in found.skipped}


def test_the_default_target_is_a_package_worth_reviewing():
    found = plan(default_target())
    assert len(found.files) >= 10
    assert found.package == default_target().name


def test_a_plan_is_sorted_and_leaves_out_what_is_not_source(tmp_path: Path):
    for name in ("b.py", "a.py", "pkg/__init__.py", "pkg/inner/mod.py", "notes.txt"):
        write(tmp_path, name)
    for name in (".hidden/x.py", "__pycache__/x.py", "vendor/x.py", "env/x.py", ".x.py"):
        write(tmp_path, name)
    write(tmp_path, "env/pyvenv.cfg")
    found = plan(tmp_path)
    assert names(found) == ["a.py", "b.py", "pkg/__init__.py", "pkg/inner/mod.py"]
    assert found.packages == ["pkg"]
    assert reasons(found) == {
        ".hidden": "hidden",
        ".x.py": "hidden",
        "__pycache__": "a cache",
        "env": "a virtual environment",
        "vendor": "vendored code",
    }
    assert plan(tmp_path) == found


def test_no_symbolic_link_leads_out_of_the_tree(tmp_path: Path):
    outside = write(tmp_path, "outside/secret.py")
    write(tmp_path, "tree/a.py")
    (tmp_path / "tree/link.py").symlink_to(outside)
    (tmp_path / "tree/loop").symlink_to(tmp_path / "tree")
    (tmp_path / "tree/gone.py").symlink_to(tmp_path / "nowhere")
    found = plan(tmp_path / "tree")
    assert names(found) == ["a.py"]
    assert set(reasons(found).values()) == {"a symbolic link"}


def test_what_cannot_be_read_is_skipped_with_its_reason(tmp_path: Path):
    write(tmp_path, "good.py", "# coding: latin-1\nname = '\xe9'\n".encode("latin-1"))
    write(tmp_path, "binary.py", b"\xff\xfe\x00x")
    write(tmp_path, "unknown.py", "# coding: no-such-thing\n")
    write(tmp_path, "puny.py", "# coding: punycode\nx\n")
    write(tmp_path, "rot.py", "# coding: rot13\nk = 1\n")
    write(tmp_path, "large.py", "#" * 200)
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / os.fsdecode(b"odd\xff.py")).write_text("x = 1\n")
    found = plan(tmp_path, max_bytes=100)
    assert names(found) == ["good.py"]
    assert "é" in read(found.files[0])
    assert reasons(found)["large.py"] == "200 bytes: over the limit of 100"
    assert reasons(found)["pipe.py"] == "not a regular file"
    assert reasons(found)["odd\\udcff.py"] == "its name is not UTF-8"
    assert {"binary.py", "unknown.py", "puny.py", "rot.py"} <= set(reasons(found))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Plan) == found


def test_files_over_the_limit_are_counted_and_not_listed_without_end(tmp_path: Path):
    for number in range(230):
        write(tmp_path, f"m{number:03}.py")
    found = plan(tmp_path, limit=5)
    assert names(found) == ["m000.py", "m001.py", "m002.py", "m003.py", "m004.py"]
    assert (len(found.skipped), found.skipped_more) == (200, 25)


def test_a_single_file_can_be_reviewed(tmp_path: Path):
    found = plan(write(tmp_path, "one.py", "a\nb"))
    assert names(found) == ["one.py"]
    assert found.files[0].lines == 2


@pytest.mark.parametrize("name", ["nowhere", "empty", "notes.txt", "bad\0name"])
def test_a_path_without_source_says_what_to_do(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    write(tmp_path, "notes.txt")
    with pytest.raises(BadInput) as refused:
        plan(tmp_path / name)
    assert refused.value.field == "path"
    assert isinstance(refused.value, ValueError)
    if "\0" not in name:
        assert "name a" in str(refused.value)


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path):
    path = write(tmp_path, "a.py")
    (file,) = plan(tmp_path).files
    path.write_text("x = 2\n")
    with pytest.raises(BadInput, match="changed since"):
        read(file)
    path.unlink()
    with pytest.raises(BadInput, match="plan again"):
        read(file)


def reviewed(file: str, specialist: str, *findings: Finding, process: str = "host 1") -> FileReview:
    return FileReview(
        file=file,
        specialist=specialist,
        findings=list(findings),
        facts={"source_lines": 10, "functions": 1} if specialist == "structure" else {},
        process=process,
    )


BUG = Finding("mutable-default", "medium", "a.py", 3, "the default of `into` is shared")
HOLE = Finding("dynamic-code", "high", "b.py", 7, "`eval` runs text as code")
BROKEN = Finding("syntax-error", "high", "c.py", 1, "does not parse: invalid syntax")
REVIEWS = [
    reviewed("a.py", "defects", BUG),
    reviewed("b.py", "defects", process="host 2"),
    reviewed("b.py", "security", HOLE, process="host 2"),
    reviewed("c.py", "defects", BROKEN),
    reviewed("c.py", "security", BROKEN),
]


def test_a_report_is_the_same_in_whatever_order_the_reviews_come():
    report = merge(REVIEWS)
    assert merge(reversed(REVIEWS)) == report
    assert merge([*REVIEWS, REVIEWS[0]]) == report
    assert report.findings == [HOLE, BROKEN, BUG]
    assert report.by_severity == {"high": 2, "medium": 1, "low": 0, "info": 0}
    assert report.by_specialist == {"defects": 2, "security": 1}
    assert report.processes == {"host 1": 3, "host 2": 2}
    assert [each.file for each in report.files] == ["b.py", "c.py", "a.py"]
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_ten_hardest_functions_of_all_files_are_the_hotspots():
    def structure(file: str, start: int) -> FileReview:
        spots = [Hotspot(f"f{n}", file, n, n, 0, 0, 1) for n in range(start, start + 8)]
        return msgspec.structs.replace(reviewed(file, "structure"), hotspots=spots)

    report = merge([structure("a.py", 1), structure("b.py", 5)])
    assert [each.complexity for each in report.hotspots] == [12, 11, 10, 9, 8, 8, 7, 7, 6, 6]
    assert report.totals["source_lines"] == 20


def test_a_review_that_never_came_is_missing_in_the_report():
    files = [SourceFile(f"/t/{each}.py", f"{each}.py", 1, 1, "0") for each in "abc"]
    planned = Plan(root="/t", package="", files=files, packages=[], skipped=[])
    report = merge(REVIEWS, plan=planned)
    assert report.missing == ["security: a.py"]
    assert "`security: a.py`" in to_markdown(report)


def test_the_markdown_tells_what_a_reader_wants_to_know():
    run = RunFigures(
        tasks=31,
        parallelism=8,
        handoff_p50_ms=1.04,
        handoff_p99_ms=3.96,
        budget_high_water=8,
        budget_limit=8,
        attempts_lost=1,
        audit_verified=True,
        seconds=1.234,
        processes=["host 1", "host 2"],
    )
    text = to_markdown(merge(REVIEWS), run)
    assert "**3 findings**, 2 high and 1 medium" in text
    assert "in 1.2 s" in text
    assert "| `b.py:7` | dynamic-code | `eval` runs text as code |" in text
    assert "| Budget in use, at most | 8 of 8 |" in text
    assert "| Audit log | verified |" in text
    assert "| `host 1` | 3 |" in text
    assert text.index("## High") < text.index("## Medium")
    broken = to_markdown(merge(REVIEWS), msgspec.structs.replace(run, audit_verified=False))
    assert "**does not verify**" in broken


def test_a_report_without_findings_says_so():
    assert "Nothing needs attention at once" in to_markdown(merge([reviewed("a.py", "defects")]))
    assert "0 files" in to_markdown(merge([]))


def test_where_not_all_fit_the_rare_findings_are_shown():
    many = [Finding("long-function", "low", "a.py", n, "long") for n in range(1, 200)]
    rare = Finding("unused-import", "low", "z.py", 1, "`os` is imported and never used")
    text = to_markdown(merge([reviewed("a.py", "structure", *many), reviewed("z.py", "x", rare)]))
    assert "`z.py:1`" in text
    assert "… and 180 more" in text


def test_hostile_names_and_messages_cannot_break_out_of_the_table():
    token = "ghp_" + "aZ3kQ9xW2vB7nM4tR8yL1pC6sD5fG0hJqKeU"
    file = "a|b`c\x1b[31m\n<img src=x>\u202e.py"
    message = f"x | y\n## Injected `code|\x07` <script> [link](http://x) {token} " + "z" * 5_000
    finding = Finding("rule|odd", "high", file, 1, message)
    text = to_markdown(merge([reviewed(file, "defects", finding, process="h|`\x1b")]))
    assert not [each for each in text if ord(each) < 32 and each != "\n"]
    assert "\u202e" not in text
    assert "<script>" not in text
    assert "[link](" not in text
    assert token[-12:] not in text
    assert "GitHub token" in text
    assert not [line for line in text.splitlines() if line.startswith("## Injected")]
    high = text[text.index("## High") :].splitlines()
    row = high[4].replace("\\|", "")
    assert row.count("|") == 4
    assert len(row) < 2_000
