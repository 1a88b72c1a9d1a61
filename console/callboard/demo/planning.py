"""Chooses the files of a source tree that the agents review, and says why it left the others out.

The walk is sorted, so the same tree gives the same plan. It reads regular files only and follows
no symbolic link, so it neither leaves the tree nor waits on a pipe.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import stat
import tokenize
from collections.abc import Iterator
from pathlib import Path

import msgspec

from callboard_broker.errors import BadInput

__all__ = ["Plan", "Skipped", "SourceFile", "default_target", "plan", "read"]

_MIB = 1024 * 1024
_MAX_ENTRIES = 50_000
_MAX_SKIPPED = 200
_STANDARD = ("email", "asyncio", "http", "json")
_LEFT_OUT = {
    "__pycache__": "a cache",
    "_vendor": "vendored code",
    "build": "build output",
    "dist": "build output",
    "node_modules": "vendored code",
    "site-packages": "installed packages",
    "third_party": "vendored code",
    "vendor": "vendored code",
    "vendored": "vendored code",
    "venv": "a virtual environment",
}
# Python accepts these in a coding comment; nobody writes source in them, and decoding punycode
# takes time that grows with the square of its length.
_ODD_ENCODINGS = {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"}


class SourceFile(msgspec.Struct, frozen=True):
    """One file to review. `digest` is the SHA-256 of its bytes in hexadecimal."""

    path: str
    relative: str
    bytes_: int = msgspec.field(name="bytes")
    lines: int
    digest: str


class Skipped(msgspec.Struct, frozen=True):
    """A file or folder that is not reviewed, and why."""

    relative: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be reviewed.

    package: the dotted name of the package that `root` itself is, else empty. packages: those
    found inside. skipped: at most 200; `skipped_more` counts the rest.
    """

    root: str
    package: str
    files: list[SourceFile]
    packages: list[str]
    skipped: list[Skipped]
    skipped_more: int = 0


def default_target() -> Path:
    """The folder of a package of the standard library, of some twenty files."""
    for name in _STANDARD:
        spec = importlib.util.find_spec(name)
        for location in (spec and spec.submodule_search_locations) or ():
            if Path(location).is_dir():
                return Path(location)
    raise BadInput("path", "this Python has no standard library on disk; name a folder to review")


def plan(root: Path, *, limit: int = 200, max_bytes: int = _MIB) -> Plan:
    """The Python files below `root` (or `root` itself, if it is a file), at most `limit` of them.

    Files over `max_bytes` bytes are skipped. Raises `BadInput` if there is nothing to review.
    """
    if limit < 1:
        raise BadInput("limit", "must be at least 1 file")
    where = _existing(root)
    base = where if where.is_dir() else where.parent
    files: list[SourceFile] = []
    skipped: list[Skipped] = []
    for relative, reason in _walk(base) if where.is_dir() else [(where.name, "")]:
        found = reason or _look(base / relative, relative, max_bytes)
        if isinstance(found, SourceFile) and len(files) < limit:
            files.append(found)
        elif isinstance(found, SourceFile):
            skipped.append(Skipped(relative, f"over the limit of {limit} files"))
        else:
            skipped.append(Skipped(_printable(relative), found))
    if not files:
        reasons = "; ".join(f"{each.relative}: {each.reason}" for each in skipped[:3])
        raise BadInput(
            "path",
            f"nothing to review in {where}: it has no Python file that can be read"
            + (f" ({reasons})" if reasons else "")
            + "; name a folder that holds .py files, or leave the path out to review a package "
            "of the standard library",
        )
    package = _package(base)
    folders = sorted({each.relative.rpartition("/")[0] for each in files if _is_init(each)})
    return Plan(
        root=str(where),
        package=package,
        files=files,
        packages=[".".join(filter(None, (package, *each.split("/")))) for each in folders],
        skipped=skipped[:_MAX_SKIPPED],
        skipped_more=max(len(skipped) - _MAX_SKIPPED, 0),
    )


def read(file: SourceFile) -> str:
    """The text of a planned file, decoded as Python would (PEP 263).

    Raises `BadInput` if it is gone or has other bytes than when it was planned.
    """
    try:
        data = Path(file.path).read_bytes()
    except OSError as why:
        raise BadInput("path", f"{file.path} cannot be read ({why.strerror}); plan again") from why
    if hashlib.sha256(data).hexdigest() != file.digest:
        raise BadInput("path", f"{file.path} changed since the review was planned; start it again")
    text = _decode(data)
    if text is None:
        raise BadInput("path", f"{file.path} is not text in the encoding it declares")
    return text


def _existing(root: Path) -> Path:
    try:
        where = root.expanduser().resolve(strict=True)
        str(where).encode()
    except FileNotFoundError as why:
        raise BadInput(
            "path",
            f"{root} does not exist; name a folder or a .py file, or leave the path out to review "
            "a package of the standard library",
        ) from why
    except (OSError, RuntimeError, ValueError) as why:
        raise BadInput("path", f"{str(root)!r} cannot be used: {why}") from why
    if where.is_file() and where.suffix != ".py":
        raise BadInput("path", f"{where} is not a .py file; name a folder or a .py file")
    return where


def _walk(base: Path) -> Iterator[tuple[str, str]]:
    """(relative path, reason to skip it or "") of every Python file, sorted within each folder."""
    seen = 0
    stack = [""]
    while stack:
        folder = stack.pop()
        try:
            entries = sorted(os.scandir(base / folder), key=lambda each: each.name)
        except OSError as why:
            yield folder or ".", f"cannot be listed ({why.strerror})"
            continue
        folders: list[str] = []
        for entry in entries:
            seen += 1
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if seen > _MAX_ENTRIES:
                yield relative, f"the walk ended here, after {_MAX_ENTRIES} entries"
                return
            if entry.is_symlink():
                if entry.name.endswith(".py") or entry.is_dir():
                    yield relative, "a symbolic link"
            elif entry.is_dir():
                if reason := _reason(entry):
                    yield relative, reason
                else:
                    folders.append(relative)
            elif entry.name.endswith(".py"):
                yield relative, "hidden" if entry.name.startswith(".") else ""
        stack.extend(reversed(folders))


def _reason(folder: os.DirEntry[str]) -> str:
    if folder.name.startswith("."):
        return "hidden"
    if (Path(folder.path) / "pyvenv.cfg").exists():
        return "a virtual environment"
    if folder.name in {"build", "dist"} and (Path(folder.path) / "__init__.py").exists():
        return ""
    return _LEFT_OUT.get(folder.name, "")


def _look(path: Path, relative: str, max_bytes: int) -> SourceFile | str:
    """The file, or why it is not reviewed."""
    if _printable(relative) != relative:
        return "its name is not UTF-8"
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size > max_bytes:
            return f"{status.st_size} bytes: over the limit of {max_bytes}"
        data = path.read_bytes()
    except OSError as why:
        return f"cannot be read ({why.strerror})"
    text = _decode(data)
    if text is None:
        return "not text in the encoding it declares (UTF-8 if it declares none)"
    return SourceFile(
        path=str(path),
        relative=relative,
        bytes_=len(data),
        lines=text.count("\n") + (not text.endswith("\n") and bool(text)),
        digest=hashlib.sha256(data).hexdigest(),
    )


def _decode(data: bytes) -> str | None:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        if encoding.replace("-", "_").lower() in _ODD_ENCODINGS:
            return None
        with io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline=None) as text:
            return text.read()
    except (SyntaxError, ValueError, LookupError):
        return None


def _printable(relative: str) -> str:
    return relative.encode("utf-8", "backslashreplace").decode()


def _is_init(file: SourceFile) -> bool:
    return file.relative.rpartition("/")[2] == "__init__.py"


def _package(base: Path) -> str:
    """The dotted name of the package that `base` is; empty if it is a plain folder."""
    names: list[str] = []
    while (base / "__init__.py").is_file() and base.name:
        names.append(base.name)
        base = base.parent
    return ".".join(reversed(names))
