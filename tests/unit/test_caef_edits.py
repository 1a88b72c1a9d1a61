"""Edits: each snippet exactly once, all or none, and every byte can be had back."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard_broker.errors import BadInput
from callboard_integrations.caef import ImplementAgent, restore
from callboard_integrations.caef.author import edits_in


def edit(file: str, old: str, new: str) -> dict[str, str]:
    return {"file": file, "original_snippet": old, "replacement_snippet": new}


def implemented(root: Path, *edits: dict[str, str], apply: bool | None = True) -> dict[str, Any]:
    (root.parent / "edits.json").write_text(json.dumps(edits))
    agent = ImplementAgent(root=root, backups=root.parent / "backups")
    return agent.run(root.parent / "edits.json", apply=apply)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.py").write_text("one = 1\ntwo = 2\nthree = 3\n")
    return folder


def picture(root: Path) -> dict[str, tuple[bytes, int] | None]:
    """Every file with its mode, and every folder."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        if path.is_file()
        else None
        for path in root.rglob("*")
    }


def reasons(done: dict[str, Any]) -> list[str]:
    return [one["reason"] for one in done["results"] if one["status"] == "refused"]


def test_by_default_nothing_is_written_and_the_diff_says_what_would_be(root: Path):
    before = picture(root)
    done = implemented(root, edit("a.py", "two = 2", "two = 22"), apply=None)
    assert set(done) == {"status", "results", "backups"}
    assert (done["status"], done["backups"]) == ("dry_run", [])
    (result,) = done["results"]
    assert (result["status"], result["line"]) == ("would_replace", 2)
    assert "-two = 2\n+two = 22" in result["diff"]
    assert picture(root) == before
    assert not (root.parent / "backups").exists()


def test_edits_of_one_file_are_made_one_after_the_other(root: Path):
    done = implemented(root, edit("a.py", "two = 2", "two = 5"), edit("a.py", "two = 5", "two = 6"))
    assert done["status"] == "applied"
    assert (root / "a.py").read_text() == "one = 1\ntwo = 6\nthree = 3\n"
    assert len(done["backups"]) == 1
    assert Path(done["backups"][0]).read_text() == "one = 1\ntwo = 2\nthree = 3\n"


def test_one_edit_that_does_not_fit_keeps_all_others_back(root: Path):
    before = picture(root)
    done = implemented(
        root, edit("a.py", "one = 1", "one = 9"), edit("new.py", "", "x"), edit("a.py", "four", "4")
    )
    assert done["status"] == "refused"
    assert [one["status"] for one in done["results"]] == ["replaced", "created", "refused"]
    assert picture(root) == before


@pytest.mark.parametrize(
    ("snippet", "said"),
    [
        (" = ", "stands 3 times, in lines 1, 2, 3"),
        ("one  = 1\n", "the nearest is line 1: 'one = 1'"),
        ("\tone = 1\n  two = 2", "at line 1 it is, with other white space"),
        ("completely other", "nothing like it"),
    ],
)
def test_a_snippet_that_does_not_stand_there_once_is_explained(root: Path, snippet: str, said: str):
    assert said in reasons(implemented(root, edit("a.py", snippet, "x")))[0]


def test_a_snippet_that_overlaps_with_itself_is_ambiguous(root: Path):
    (root / "a.py").write_text("xaaax\n")
    assert "stands 2 times" in reasons(implemented(root, edit("a.py", "aa", "b")))[0]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".git/config", "", "a\0b"])
def test_names_that_leave_the_folder_are_refused(root: Path, name: str):
    assert "not a file below" in reasons(implemented(root, edit(name, "", "x")))[0]
    assert not (root.parent / "x").exists()


def test_links_out_of_the_folder_are_refused(root: Path):
    (root.parent / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "up").symlink_to(root.parent)
    done = implemented(root, edit("link.txt", "secret", "x"), edit("up/secret.txt", "secret", "x"))
    assert len(reasons(done)) == 2
    assert (root.parent / "secret.txt").read_text() == "secret"


def test_a_link_to_where_git_keeps_its_hooks_is_refused(root: Path):
    (root / ".git" / "hooks").mkdir(parents=True)
    (root / "tools").symlink_to(".git")
    assert "by a link" in reasons(implemented(root, edit("tools/hooks/pre-commit", "", "x")))[0]


def test_edits_of_one_file_by_two_of_its_names_are_made_one_after_the_other(root: Path):
    (root / "src").mkdir()
    (root / "lib").symlink_to("src")
    (root / "src" / "b.py").write_text("b = 1\n")
    edits = [
        edit("a.py", "one = 1", "one = 10"),
        edit("./a.py", "one = 10", "one = 11"),
        edit("src/b.py", "b = 1", "b = 2"),
        edit("lib/b.py", "b = 2", "b = 3"),
    ]
    assert implemented(root, *edits)["status"] == "applied"
    assert (root / "a.py").read_text().startswith("one = 11\n")
    assert (root / "src" / "b.py").read_text() == "b = 3\n"


def test_what_does_not_fit_a_file_of_many_lines_is_refused_without_a_long_search(root: Path):
    (root / "long.py").write_text(
        "".join(f"value_{number} = {number}\n" for number in range(60_000))
    )
    begun = time.process_time()
    (reason,) = reasons(implemented(root, edit("long.py", "valu_9 = 9\n", "")))
    assert reason == "the snippet is not there"
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "said",
    [
        "I made `rows` a list[str], see [1].\n\n```json\n{edits}\n```\nNow it is [done].",
        "{edits}",
        "\n[\n{edit}\n]\n(No [more] of it.)",
    ],
)
def test_an_answer_may_have_brackets_around_its_list(said: str):
    wanted = edit("a.py", "one = [1]", "one = [{1: 2}]")
    text = said.replace("{edits}", json.dumps([wanted])).replace("{edit}", json.dumps(wanted))
    assert [one.file for one in edits_in(text)] == ["a.py"]


def test_an_answer_that_was_cut_off_is_refused():
    text = json.dumps([edit("a.py", "rows = []", "rows = [{}]")])[:-9]
    with pytest.raises(BadInput, match="answer"):
        edits_in(text)


def test_an_edits_file_with_a_mark_and_carriage_returns_is_read(root: Path):
    text = json.dumps([edit("a.py", "one = 1", "one = 2")], indent=1).replace("\n", "\r\n")
    (root / "edits.json").write_text(text, encoding="utf-8-sig")
    assert ImplementAgent(root=root).run("edits.json")["status"] == "dry_run"


def test_what_is_no_regular_text_file_is_refused(root: Path):
    os.mkfifo(root / "pipe.txt")
    (root / "picture.bin").write_bytes(b"\xff\x00\xfe")
    (root / "folder.d").mkdir()
    names = ("pipe.txt", "picture.bin", "folder.d", "nowhere.py")
    done = implemented(root, *(edit(name, "a", "b") for name in names))
    assert len(reasons(done)) == 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a\r\nb\r\nc\r\n", b"a\r\nB\r\nB2\r\nc\r\n"),
        (b"a\nb\nc\n", b"a\nB\nB2\nc\n"),
        (b"\xef\xbb\xbfa\nb\nc", b"\xef\xbb\xbfa\nB\nB2\nc"),
        ("\ufeffa\nb\nc".encode("utf-16-le"), "\ufeffa\nB\nB2\nc".encode("utf-16-le")),
        ("\ufeffa\r\nb\r\nc".encode("utf-16-be"), "\ufeffa\r\nB\r\nB2\r\nc".encode("utf-16-be")),
        (b"# coding: latin-1\n\xe9\nb\nc", b"# coding: latin-1\n\xe9\nB\nB2\nc"),
    ],
)
def test_line_endings_encoding_and_mode_stay(root: Path, before: bytes, after: bytes):
    path = root / "a.py"
    path.write_bytes(before)
    path.chmod(0o751)
    assert implemented(root, edit("a.py", "b", "B\nB2"))["status"] == "applied"
    assert path.read_bytes() == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o751


def test_what_the_encoding_has_not_is_refused(root: Path):
    (root / "a.py").write_bytes(b"# coding: latin-1\n\xe9\n")
    assert "latin-1" in reasons(implemented(root, edit("a.py", "\xe9", "\u0416")))[0].replace(
        "iso-8859-1", "latin-1"
    )


def test_a_new_file_is_made_and_taken_away_with_its_folders(root: Path):
    before = picture(root)
    done = implemented(root, edit("src/deep/new.py", "", "x = 1\n"), edit("a.py", "one = 1", "1"))
    assert (root / "src/deep/new.py").read_text() == "x = 1\n"
    assert restore(Path(done["backups"][0])) == ["src/deep/new.py", "a.py"]
    assert picture(root) == before
    assert "there is one" in reasons(implemented(root, edit("a.py", "", "x")))[0]
    (kept,) = implemented(root, edit("only.py", "", "x"))["backups"]
    restore(Path(kept))
    assert picture(root) == before


def test_edits_that_were_made_before_are_not_made_twice(root: Path):
    wrap = edit("a.py", "one = 1", "one = 1\none = 1 + one")
    assert implemented(root, wrap)["status"] == "applied"
    once = picture(root)
    again = implemented(root, wrap)
    assert again["status"] == "already"
    assert picture(root) == once
    restore(Path(again["backups"][0]))
    assert (root / "a.py").read_text() == "one = 1\ntwo = 2\nthree = 3\n"


def test_after_a_crash_between_two_files_the_same_edits_begin_anew(root: Path):
    (root / "b.py").write_text("b = 1\n")
    edits = [edit("a.py", "one = 1", "one = 1 + 0"), edit("b.py", "b = 1", "b = 1 + 0")]
    implemented(root, *edits)
    whole = picture(root)
    (root / "b.py").write_text("b = 1\n")  # as if it had not been written yet
    assert implemented(root, *edits)["status"] == "applied"
    assert picture(root) == whole


def test_what_somebody_has_changed_since_is_not_overwritten(root: Path):
    done = implemented(root, edit("a.py", "one = 1", "one = 2"))
    (root / "a.py").write_text("mine\n")
    with pytest.raises(BadInput, match=r"a\.py was changed since"):
        restore(Path(done["backups"][0]))
    assert (root / "a.py").read_text() == "mine\n"


def test_without_edits_it_is_skipped_and_says_why(root: Path):
    agent = ImplementAgent(root=root)
    (root / "empty.json").write_text(" \n")
    (root / "none.json").write_text("[]")
    for name in (None, "nowhere.json", "empty.json", "none.json"):
        done = agent.run(name)
        assert done["status"] == "skipped"
        assert set(done) == {"status", "reason"}


@pytest.mark.parametrize(
    "text", ["{}", "[1]", '[{"file": "a.py"}]', "[" * 100_000, '[{"file": 1}]', "no json"]
)
def test_a_file_that_is_no_list_of_edits_is_refused_by_name(root: Path, text: str):
    (root / "edits.json").write_text(text)
    with pytest.raises(BadInput, match="edits"):
        ImplementAgent(root=root).run("edits.json")


TEXTS = st.text(st.sampled_from("ab \n\t\r\N{LATIN SMALL LETTER E WITH ACUTE}"), max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_applying_and_restoring_gives_every_byte_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder: Path = tmp_path_factory.mktemp("edits")
    root = folder / "project"
    root.mkdir()
    names = [f"f{number}.txt" for number in range(3)]
    for name in names:
        (root / name).write_bytes(data.draw(TEXTS).encode())
    edits = []
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from([*names, "new/one.txt"]))
        text = (root / name).read_bytes().decode() if (root / name).exists() else ""
        start = data.draw(st.integers(0, max(len(text) - 1, 0)))
        old = text[start : start + data.draw(st.integers(1, 8))]
        edits.append(edit(name, old, data.draw(TEXTS)))
    before = picture(root)
    assert implemented(root, *edits, apply=False)["status"] in ("dry_run", "refused")
    assert picture(root) == before
    done = implemented(root, *edits)
    if done["status"] == "refused":
        assert picture(root) == before
        return
    assert done["status"] == "applied"
    (kept,) = (folder / "backups").iterdir()
    restore(kept)
    assert picture(root) == before
