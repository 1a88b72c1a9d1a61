"""Replaces snippets in files: each must stand in its file exactly once, or nothing is written.

All edits of a list are worked out in memory first, those of one file one after the other, and only
if every one of them fits are files written, each replaced at once. Line endings, encoding and mode
of a file stay. Names that leave the folder, or lead out of it by a link, are refused.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import io
import stat
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from callboard_broker.bounds import check_document
from callboard_broker.errors import BadInput
from callboard_integrations.bmad.project_files import inside
from callboard_integrations.caef.records import Edit, EditResult, EditStatus

__all__ = ["FileChange", "digest_of", "parse_edits", "read_edits", "worked_out"]

_MAX_FILE = 4 * 1024 * 1024
_MAX_EDITS = 500
_MAX_NAME = 1_000
_MAX_DIFF = 16 * 1024
_NEAR = 0.6
_MAX_HINTED = 5_000  # lines of a file that are compared with those of a snippet
_MAX_WANTED = 200
_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SUBJECTS = {"original_snippet": "the snippet ", "replacement_snippet": "the replacement "}
_DONE: dict[tuple[bool, bool], EditStatus] = {
    (False, True): "replaced",
    (False, False): "would_replace",
    (True, True): "created",
    (True, False): "would_create",
}
"""By whether the file is new, and whether it is written."""

_decode = msgspec.json.Decoder(list[Edit]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file, before and after; before: None if it is made. name: relative to the folder."""

    name: str
    before: bytes | None
    after: bytes
    mode: int


def read_edits(path: Path) -> list[Edit] | None:
    """The edits of a file; None if there is no file, or nothing in it. Raises `BadInput`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput("edits_file", f"{path} cannot be read: {error.strerror}") from error
    return parse_edits(data, str(path)) or None if data.strip() else None


def parse_edits(data: bytes, source: str) -> list[Edit]:
    """A JSON list of edits. source: for messages. Raises `BadInput`."""
    if len(data) > _MAX_FILE:
        raise BadInput("edits_file", f"{source} is larger than {_MAX_FILE // 2**20} MiB")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        check_document(data, field="edits_file")
        edits = _decode(data)
    except msgspec.MsgspecError as error:
        wanted = "a JSON list of {file, original_snippet, replacement_snippet}"
        raise BadInput("edits_file", f"{source} is not {wanted}: {error}") from error
    except UnicodeDecodeError as error:
        raise BadInput("edits_file", f"{source} is not UTF-8 text") from error
    if len(edits) > _MAX_EDITS:
        raise BadInput("edits_file", f"{source}: {len(edits)} edits; at most {_MAX_EDITS}")
    return edits


def digest_of(edits: Sequence[Edit]) -> str:
    """The same for the same edits in the same order."""
    return hashlib.sha256(msgspec.json.encode(edits)).hexdigest()[:16]


def worked_out(
    root: Path, edits: Sequence[Edit], *, apply: bool
) -> tuple[list[EditResult], list[FileChange]]:
    """What each edit does, and the files as they would be; none if one edit is refused.

    apply: only for the words of the results; nothing is written here.
    """
    texts: dict[Path, _Text] = {}  # a file may have several names: `./a`, or by a link to a folder
    results: list[EditResult] = []
    for edit in edits:
        try:
            path = inside(root, edit.file)
            place = path.parent.resolve() / path.name
            text = texts.get(place) or _read(path, edit)
            before = text.text
            line = text.replace(edit)
            texts[place] = text
        except BadInput as error:
            why = f"{_SUBJECTS.get(error.field, '')}{error.reason}"
            results.append(EditResult(file=edit.file[:_MAX_NAME], status="refused", reason=why))
            continue
        new = edit.original_snippet == ""
        diff = _diff(edit.file, before, text.text, new=new)
        results.append(EditResult(file=edit.file, status=_DONE[new, apply], line=line, diff=diff))
    if any(one.status == "refused" for one in results):
        return results, []
    return results, [text.change() for text in texts.values()]


class _Text:
    """A file's text while edits are made to it, with its line endings and encoding.

    mark: its byte order mark, which stays in front.
    """

    def __init__(self, name: str, data: bytes | None, mode: int) -> None:
        self._name = name
        self._data = data
        self._mode = mode
        self._mark, self._encoding = (b"", "utf-8") if data is None else _encoding(data)
        self.text = "" if data is None else data[len(self._mark) :].decode(self._encoding)
        crlf = self.text.count("\r\n")
        self._crlf = crlf > 0 and crlf == self.text.count("\n")
        self._lf = crlf == 0

    def replace(self, edit: Edit) -> int:
        """Make one edit; the line that it begins at. Raises `BadInput`."""
        if edit.original_snippet == "":
            if self._data is not None or self.text:
                raise BadInput(
                    "original_snippet",
                    "is empty, which makes a new file, but there is one; name what is replaced",
                )
            return self._become(edit.replacement_snippet, 0)
        old, new = self._ended(edit.original_snippet), self._ended(edit.replacement_snippet)
        places = _places(self.text, old)
        if len(places) != 1:
            raise BadInput("original_snippet", self._why(places, old, new))
        at = places[0]
        return self._become(self.text[:at] + new + self.text[at + len(old) :], at)

    def change(self) -> FileChange:
        after = self._mark + self.text.encode(self._encoding)
        return FileChange(name=self._name, before=self._data, after=after, mode=self._mode)

    def _become(self, text: str, at: int) -> int:
        try:
            size = len(text.encode(self._encoding))
        except UnicodeEncodeError as error:
            why = f"has what {self._encoding}, the file's encoding, has not: {error.reason}"
            raise BadInput("replacement_snippet", why) from error
        if size > _MAX_FILE:
            raise BadInput("file", f"it would be larger than {_MAX_FILE // 2**20} MiB")
        self.text = text
        return text.count("\n", 0, at) + 1

    def _ended(self, snippet: str) -> str:
        """A snippet with the file's line endings; where those are mixed, as it is."""
        if self._crlf:
            return snippet.replace("\r\n", "\n").replace("\n", "\r\n")
        return snippet.replace("\r\n", "\n") if self._lf else snippet

    def _why(self, places: list[int], old: str, new: str) -> str:
        if places:
            lines = ", ".join(str(self.text.count("\n", 0, place) + 1) for place in places[:10])
            return f"stands {len(places)} times, in lines {lines}; add lines around it"
        if new and new in self.text:
            return "is not there, but the replacement is: it seems to be done already"
        return f"is not there{_hint(self.text, old)}"


def _read(path: Path, edit: Edit) -> _Text:
    try:
        found = path.lstat()
    except FileNotFoundError:
        if edit.original_snippet:
            raise BadInput("file", "there is no such file") from None
        return _Text(edit.file, None, 0o644)
    except (OSError, ValueError) as error:
        raise BadInput("file", f"it cannot be reached: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise BadInput("file", "it is no regular file")
    if found.st_size > _MAX_FILE:
        raise BadInput("file", f"it is larger than {_MAX_FILE // 2**20} MiB")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput("file", f"it cannot be read: {error.strerror}") from error
    return _Text(edit.file, data, stat.S_IMODE(found.st_mode))


def _encoding(data: bytes) -> tuple[bytes, str]:
    """The byte order mark and the encoding: by the mark, or as Python reads a cookie; else UTF-8.

    Raises `BadInput` if it would not give the same bytes again.
    """
    mark = next((known for known in _MARKS if data.startswith(known)), b"")
    try:
        found = _MARKS.get(mark) or tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        again = data[len(mark) :].decode(found).encode(found)
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise BadInput("file", "it is no text in UTF-8, nor in what it says that it is") from error
    if mark + again != data:
        raise BadInput("file", f"it is not plain {found}: its bytes would change")
    return mark, found


def _places(text: str, snippet: str) -> list[int]:
    """Where it stands, also where it overlaps with itself."""
    found = [text.find(snippet)]
    while found[-1] >= 0 and len(found) <= _MAX_EDITS:
        found.append(text.find(snippet, found[-1] + 1))
    return [place for place in found if place >= 0]


def _hint(text: str, snippet: str) -> str:
    """Whether only white space differs, else the line that is most like its first one."""
    lines = text.splitlines()
    wanted = [line.strip() for line in snippet.splitlines() if line.strip()]
    if not wanted:
        return ""
    bare = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if len(bare) > _MAX_HINTED or len(wanted) > _MAX_WANTED:
        return ""
    for start in range(len(bare) - len(wanted) + 1):
        if [line for _, line in bare[start : start + len(wanted)]] == wanted:
            return f"; at line {bare[start][0]} it is, with other white space: copy it exactly"
    near = difflib.get_close_matches(wanted[0], [line for _, line in bare], 1, _NEAR)
    if not near:
        return "; nothing like it is, either"
    number = next(number for number, line in bare if line == near[0])
    return f"; the nearest is line {number}: {near[0][:80]!r}"


def _diff(name: str, before: str, after: str, *, new: bool) -> str:
    """A unified diff with the line endings that are shown."""
    found = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        "/dev/null" if new else f"a/{name}",
        f"b/{name}",
        lineterm="",
    )
    text = "\n".join(found)
    return text if len(text) <= _MAX_DIFF else f"{text[:_MAX_DIFF]}\n... (cut)"
