"""One parsed source file, indexed once: the nodes by kind, and each node's parent.

Source comes from anywhere, so nothing here recurses over the tree: a file that is broken, or
nested deeper than the interpreter can follow, becomes a finding and never an exception.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from threading import Lock
from typing import TypeVar, cast

from callboard.demo.findings import SEVERITIES, FileReview, Finding, Severity

__all__ = [
    "MAX_FINDINGS",
    "SCOPES",
    "Function",
    "Rule",
    "Syntax",
    "broken",
    "clip",
    "collect",
    "is_test_file",
    "parse",
    "quiet",
    "same",
    "unparsed",
    "walk",
]

Function = ast.FunctionDef | ast.AsyncFunctionDef
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

# A review travels as one message: a hostile file must not make it grow without bound.
MAX_FINDINGS = 200
_MAX_MESSAGE = 300
_MAX_NAME = 60
_REVIEWED = "<reviewed>"
_N = TypeVar("_N", bound=ast.AST)
_TEST_FOLDERS = {"test", "tests", "testing", "fixtures"}
_SHARED = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
_BLOCKS = ("body", "orelse", "finalbody")

# catch_warnings swaps state of the whole process; plain agents run in threads, so one at a time.
_PARSING = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """A file that parsed. `escapes` are the lines with an escape Python does not know."""

    file: str
    source: str
    tree: ast.Module
    nodes: dict[type[ast.AST], list[ast.AST]]
    parents: dict[ast.AST, ast.AST]
    escapes: Sequence[int]

    def of(self, kind: type[_N]) -> list[_N]:
        """Every node of exactly this kind, in the order of the source."""
        return cast("list[_N]", self.nodes.get(kind, []))

    @property
    def functions(self) -> list[Function]:
        """Every `def` and `async def`, nested ones and methods too."""
        return [*self.of(ast.FunctionDef), *self.of(ast.AsyncFunctionDef)]

    def blocks(self) -> Iterator[list[ast.stmt]]:
        """Every list of statements that run one after the other."""
        for nodes in self.nodes.values():
            for field in _BLOCKS:
                if not isinstance(getattr(nodes[0], field, None), list):
                    continue
                for node in nodes:
                    if block := cast("list[ast.stmt]", getattr(node, field)):
                        yield block

    def enclosing(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around `node`, from the inside out."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class, lambda or module in which `node` stands."""
        return next((each for each in self.enclosing(node) if isinstance(each, SCOPES)), self.tree)

    def qualname(self, node: ast.AST) -> str:
        """The dotted name of a function or class within its module."""
        names = [
            each.name
            for each in (node, *self.enclosing(node))
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        return clip(".".join(reversed(names)), _MAX_NAME)

    def finding(self, rule: str, severity: Severity, where: ast.AST | int, message: str) -> Finding:
        """A finding in this file; the message is cut to a length that fits a table."""
        line = where if isinstance(where, int) else int(getattr(where, "lineno", 1))
        return Finding(rule, severity, self.file, max(line, 1), clip(message, _MAX_MESSAGE))


Rule = Callable[[Syntax], Iterable[Finding]]
"""One check: reads a parsed file, yields what it found."""


def parse(source: str, file: str) -> Syntax | Finding:
    """Parse `source`; a finding instead of an exception says why it cannot be parsed."""
    try:
        with quiet() as caught:
            tree = ast.parse(source, filename=_REVIEWED)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as why:
        return broken(why, file)
    escapes = {
        each.lineno
        for each in caught
        if each.filename == _REVIEWED and "escape" in str(each.message)
    }
    nodes: dict[type[ast.AST], list[ast.AST]] = {}
    parents: dict[ast.AST, ast.AST] = {}
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        nodes.setdefault(type(node), []).append(node)
        # Operators and contexts are singletons shared by the whole tree: they have no parent.
        children = [each for each in ast.iter_child_nodes(node) if not isinstance(each, _SHARED)]
        for child in children:
            parents[child] = node
        stack.extend(reversed(children))
    return Syntax(
        file=file,
        source=source,
        tree=tree,
        nodes=nodes,
        parents=parents,
        escapes=sorted(escapes),
    )


@contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings that parsing raises, instead of showing them to the demo's user."""
    with _PARSING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def broken(why: BaseException, file: str) -> Finding:
    """The finding for a file that could not be parsed."""
    if isinstance(why, RecursionError | MemoryError):
        return Finding(
            "too-deep", "high", file, 1, "nested too deeply, or too large, to be analysed"
        )
    line = why.lineno if isinstance(why, SyntaxError) and why.lineno else 1
    reason = why.msg if isinstance(why, SyntaxError) else str(why)
    message = f"does not parse: {reason}"
    return Finding("syntax-error", "high", file, max(line, 1), clip(message, _MAX_MESSAGE))


def unparsed(specialist: str, finding: Finding) -> FileReview:
    """The review of a file that could not be parsed: that one finding, and no facts."""
    return FileReview(file=finding.file, specialist=specialist, findings=[finding], facts={})


def collect(syntax: Syntax, rules: Iterable[Rule]) -> list[Finding]:
    """Apply every rule; the worst `MAX_FINDINGS`, in the order of the source."""
    found: set[Finding] = set()
    for rule in rules:
        try:
            found.update(islice(rule(syntax), 10 * MAX_FINDINGS))
        except (RecursionError, MemoryError) as why:
            found.add(broken(why, syntax.file))
    worst = sorted(found, key=lambda each: (SEVERITIES.index(each.severity), each.line, each.rule))
    return sorted(worst[:MAX_FINDINGS], key=lambda each: (each.line, each.rule, each.message))


def walk(root: ast.AST, *, into_scopes: bool = True) -> Iterator[ast.AST]:
    """The nodes below `root` in source order; without `into_scopes` only those of its own scope."""
    stack = list(ast.iter_child_nodes(root))[::-1]
    while stack:
        node = stack.pop()
        yield node
        if into_scopes or not isinstance(node, SCOPES):
            stack.extend(list(ast.iter_child_nodes(node))[::-1])


def same(left: object, right: object) -> bool:
    """Whether two pieces of code are alike, wherever they stand."""
    pairs: list[tuple[object, object]] = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        if type(one) is not type(other):
            return False
        if isinstance(one, ast.AST):
            pairs.extend((getattr(one, each, 0), getattr(other, each, 0)) for each in one._fields)
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pairs.extend(zip(one, other, strict=True))
        elif one != other:
            return False
    return True


def clip(text: str, length: int = _MAX_NAME) -> str:
    """`text`, cut to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def is_test_file(file: str) -> bool:
    """Whether a relative path looks like a test, where odd code and dummy secrets are wanted."""
    parts = PurePosixPath(file.lower()).parts
    name = parts[-1] if parts else ""
    return (
        not _TEST_FOLDERS.isdisjoint(parts[:-1])
        or name.startswith("test_")
        or name.endswith("_test.py")
        or name == "conftest.py"
    )
