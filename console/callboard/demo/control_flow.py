"""Code that cannot run, errors that vanish, and branches that repeat each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from callboard.demo.findings import Finding
from callboard.demo.syntax import SCOPES, Function, Rule, Syntax, same, walk

__all__ = ["RULES"]

_LEAVES = ast.Return | ast.Raise | ast.Continue | ast.Break
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_BROAD = {"BaseException", "Exception"}
_OPENERS = {"open", "io.open", "codecs.open", "os.fdopen", "socket.socket"}
_CLOSES = {"close", "detach", "makefile"}
_IMPURE = (ast.Call, ast.Await, ast.NamedExpr, ast.Yield, ast.YieldFrom)


def _handlers(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.ExceptHandler):
        raises = any(isinstance(each, ast.Raise) for each in walk(node, into_scopes=False))
        if node.type is None and not raises:
            yield syntax.finding(
                "bare-except",
                "medium",
                node,
                "catches everything, KeyboardInterrupt and SystemExit too; name the exceptions",
            )
        broad = node.type is None or not _BROAD.isdisjoint(_caught(node.type))
        if broad and all(_is_idle(each) for each in node.body):
            yield syntax.finding(
                "swallowed-exception",
                "medium",
                node,
                "drops any error without a trace; name the expected ones, or log it",
            )
        if isinstance(node.type, ast.BoolOp):
            yield syntax.finding(
                "except-or",
                "high",
                node,
                "`except A or B` catches only A; use a tuple: `except (A, B)`",
            )


def _caught(node: ast.expr) -> set[str]:
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {each.id for each in parts if isinstance(each, ast.Name)}


def _is_idle(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def _unreachable(syntax: Syntax) -> Iterator[Finding]:
    for block in syntax.blocks():
        for node, after in pairwise(block):
            if not isinstance(node, _LEAVES):
                continue
            # A yield after a raise is how a function that never yields is made a generator.
            yields = isinstance(after, ast.Expr) and isinstance(
                after.value, ast.Yield | ast.YieldFrom
            )
            if not yields:
                word = type(node).__name__.lower()
                yield syntax.finding(
                    "unreachable-code",
                    "medium",
                    after,
                    f"never runs: it follows the {word} of line {node.lineno}",
                )
            break


def _finally(syntax: Syntax) -> Iterator[Finding]:
    guarded: list[ast.Try | ast.TryStar] = [*syntax.of(ast.Try), *syntax.of(ast.TryStar)]
    for node in guarded:
        stack: list[tuple[ast.AST, bool]] = [(each, False) for each in node.finalbody]
        while stack:
            each, in_loop = stack.pop()
            if isinstance(each, SCOPES):
                continue
            leaves = isinstance(each, ast.Break | ast.Continue) and not in_loop
            if leaves or isinstance(each, ast.Return):
                word = type(each).__name__.lower()
                yield syntax.finding(
                    f"{word}-in-finally",
                    "medium",
                    each,
                    f"a {word} in `finally` discards the exception that is on its way",
                )
            inside = in_loop or isinstance(each, _LOOPS)
            stack.extend((child, inside) for child in ast.iter_child_nodes(each))


def _branches(syntax: Syntax) -> Iterator[Finding]:
    """Each if/elif chain once: a condition asked twice, neighbours that do the same."""
    for first in syntax.of(ast.If):
        parent = syntax.parents.get(first)
        if isinstance(parent, ast.If) and parent.orelse == [first]:
            continue
        chain = [first]
        while len(chain[-1].orelse) == 1 and isinstance(chain[-1].orelse[0], ast.If):
            chain.append(chain[-1].orelse[0])
        yield from _conditions(syntax, chain)
        for one, other in pairwise(chain):
            if _is_work(one.body) and same(one.body, other.body):
                yield syntax.finding(
                    "duplicate-branch",
                    "low",
                    other,
                    f"does the same as the branch of line {one.lineno}; join the conditions",
                )
        last = chain[-1]
        if last.orelse and _is_work(last.body) and same(last.body, last.orelse):
            yield syntax.finding(
                "duplicate-branch",
                "low",
                last.orelse[0],
                f"the else does the same as the branch of line {last.lineno}",
            )


def _conditions(syntax: Syntax, chain: list[ast.If]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for each in chain:
        if any(isinstance(part, _IMPURE) for part in ast.walk(each.test)):
            first.clear()  # a call may change what the earlier conditions saw
            continue
        shape = ast.dump(each.test)
        if shape in first:
            yield syntax.finding(
                "duplicate-condition",
                "high",
                each,
                f"the condition of line {first[shape]} again: this branch never runs",
            )
        first.setdefault(shape, each.lineno)


def _is_work(body: list[ast.stmt]) -> bool:
    return not all(_is_idle(each) or isinstance(each, _LEAVES) for each in body)


def _resources(syntax: Syntax) -> Iterator[Finding]:
    """Files and sockets that only the garbage collector closes."""
    kept: dict[ast.AST, set[str]] = {}
    for node in syntax.of(ast.Call):
        if _name(node.func) not in _OPENERS:
            continue
        parent = syntax.parents.get(node)
        chained = isinstance(parent, ast.Attribute) and parent.attr != "close"
        leaked = chained or isinstance(parent, ast.Expr)
        if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
            scope = syntax.scope(node)
            if isinstance(scope, Function):
                if scope not in kept:
                    kept[scope] = _kept(syntax, scope)
                leaked = parent.targets[0].id not in kept[scope]
        if leaked:
            yield syntax.finding(
                "unclosed-resource",
                "low",
                node,
                f"nothing closes what `{_name(node.func)}` opened when an error comes; use `with`",
            )


def _kept(syntax: Syntax, function: Function) -> set[str]:
    """The names that a function closes, hands on, or shares with others."""
    names: set[str] = set()
    for each in walk(function):
        if isinstance(each, ast.Global | ast.Nonlocal):
            names.update(each.names)
        if not isinstance(each, ast.Name) or isinstance(each.ctx, ast.Store):
            continue
        user = syntax.parents.get(each)
        closes = isinstance(user, ast.Attribute) and user.attr in _CLOSES
        if closes or not isinstance(
            user, ast.Attribute | ast.For | ast.comprehension | ast.Compare
        ):
            names.add(each.id)
    return names


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _not_implemented(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(raised, ast.Name) and raised.id == "NotImplemented":
            yield syntax.finding(
                "raise-not-implemented",
                "high",
                node,
                "NotImplemented is not an exception; raise NotImplementedError",
            )


RULES: tuple[Rule, ...] = (
    _branches,
    _finally,
    _handlers,
    _not_implemented,
    _resources,
    _unreachable,
)
