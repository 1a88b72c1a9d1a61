"""The program that runs a project's tests and linter inside the sandbox.

It is given to the project's own interpreter as text, so it needs nothing but the standard library.
The project is copied into the sandbox's folder, which is all that tests can write to; what is asked
comes as JSON on standard input, and the report leaves as JSON on standard output.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

_SKIPPED = shutil.ignore_patterns(".git", ".callboard", "__pycache__", ".venv", "node_modules")
_TAIL = 4_000
_MAX_ERROR = 1_500
_MAX_SHOWN = 20
_PLACE = re.compile(r"^([^\s:<>\"']+\.py):\d+: ", re.MULTILINE)
_TESTS_DONE = (0, 1)
_NOTHING_FOUND = 5
_DIED = ", killed: perhaps for want of memory"


def main() -> None:
    asked = json.load(sys.stdin)
    tree = Path.cwd() / "tree"
    shutil.copytree(asked["folder"], tree, symlinks=True, ignore=_SKIPPED)
    report = {"tests": _tests(asked, tree), "lint": _lint(asked, tree)}
    json.dump(report, sys.stdout)


def _tests(asked: dict[str, Any], tree: Path) -> dict[str, Any]:
    results = tree.parent / "results.xml"
    words = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tree), "--tb=short"]
    words += ["-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={results}"]
    words += [f"--maxfail={asked['max_failures']}", "--", *asked["paths"]]
    code, output, seconds = _run(words, tree, asked["seconds"])
    summary: dict[str, Any] = {"output": output}
    if code is None:
        status = "timed_out"
    elif code == _NOTHING_FOUND:
        status = "none"
    else:
        try:
            summary |= _read(results, tree)
            green = code == 0 and not summary["failed"] + summary["errors"]  # a fork may say 0
            status = "passed" if green else "failed"
        except (OSError, ET.ParseError, ValueError):
            status = "broken"
        if code not in _TESTS_DONE and not summary.get("failures"):
            status = "broken"
            summary["output"] = f"pytest ended with {code}{_DIED if code < 0 else ''}\n{output}"
    return {"status": status, "summary": summary, "duration_sec": seconds}


def _lint(asked: dict[str, Any], tree: Path) -> dict[str, Any]:
    if not asked["linter"]:
        return {"status": "skipped"}
    name, *more = asked["linter"]
    beside = str(Path(sys.executable).parent)
    program = shutil.which(name, path=os.pathsep.join([beside, os.environ["PATH"]]))
    if program is None:
        return {"status": "missing", "output": f"there is no program {name} beside {beside}"}
    code, output, seconds = _run([program, *more], tree, asked["lint_seconds"])
    status = "timed_out" if code is None else "passed" if code == 0 else "failed"
    return {"status": status, "output": output, "duration_sec": seconds}


def _run(words: list[str], tree: Path, seconds: float) -> tuple[int | None, str, float]:
    """The exit code, the end of what was printed, and the seconds that it took; None: too many.

    Output goes into a file: whatever a test leaves running cannot hold a pipe open.
    """
    begun = time.monotonic()
    paths = [str(tree), str(tree / "src")]
    paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = tree.parent / "printed"
    with printed.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603  it is what this program is for
            words,
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=env,
        )
        try:
            code: int | None = process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    with printed.open("rb") as file:
        file.seek(max(0, printed.stat().st_size - _TAIL))
        output = file.read(_TAIL).decode("utf-8", "replace")
    return code, output.replace(str(tree), "."), round(time.monotonic() - begun, 3)


def _read(results: Path, tree: Path) -> dict[str, Any]:
    """The counts and failures of a JUnit file; it is read here, where a bomb in it harms nobody."""
    counts: dict[str, int] = dict.fromkeys(("passed", "failed", "errors", "skipped"), 0)
    kinds = {"failure": "failed", "error": "errors", "skipped": "skipped"}
    failures: list[dict[str, Any]] = []
    for case in ET.parse(results).iter("testcase"):  # noqa: S314  see above
        bad = next((child for child in case if child.tag in kinds), None)
        counts["passed" if bad is None else kinds[bad.tag]] += 1
        if bad is not None and bad.tag != "skipped" and len(failures) < _MAX_SHOWN:
            failures.append(_failure(case, bad, tree))
    return {**counts, "failures": failures}


def _failure(case: ET.Element, bad: ET.Element, tree: Path) -> dict[str, Any]:
    text = bad.text or ""
    name, holder = case.get("name", ""), case.get("classname", "")
    file = case.get("file", "")
    module = file.removesuffix(".py").replace("/", ".")
    if not file:  # a module that could not be imported: its name is all that there is
        file = (holder or name).replace(".", "/") + ".py"
        test = file if (tree / file).is_file() else holder or name
        file = file if (tree / file).is_file() else ""
    else:
        inner = [part for part in holder.removeprefix(module).split(".") if part]
        test = file if name == module else "::".join([file, *inner, name])
    message = bad.get("message", "")
    error = f"{message}\n{text}" if message not in text else text
    seen = [_relative(found, tree) for found in _PLACE.findall(text)]
    return {
        "test": test[:500],
        "file": file[:500],
        "error": error.replace(str(tree), ".").strip()[-_MAX_ERROR:],
        "suspects": [one for one in dict.fromkeys(seen) if one and one != file][:10],
    }


def _relative(name: str, tree: Path) -> str:
    """A file of the project by its name in it; nothing for those of Python and its packages."""
    path = Path(os.path.normpath(tree / name))
    return str(path.relative_to(tree)) if path.is_relative_to(tree) and path.is_file() else ""


if __name__ == "__main__":
    main()
