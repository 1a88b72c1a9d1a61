"""Comparisons, conditions and literals that do not do what they seem to say."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from callboard.demo.findings import Finding
from callboard.demo.syntax import Rule, Syntax, same

__all__ = ["RULES"]

_IDENTITY = ast.Is | ast.IsNot
_EQUALITY = ast.Eq | ast.NotEq
_DISPLAYS = ast.List | ast.Tuple | ast.Dict | ast.Set | ast.JoinedStr


def _comparisons(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.Compare):
        operands = [node.left, *node.comparators]
        if all(isinstance(each, ast.Constant) for each in operands):
            yield syntax.finding(
                "constant-comparison", "medium", node, "compares constants: the answer never varies"
            )
            continue
        if isinstance(syntax.parents.get(node), ast.Expr):
            yield syntax.finding(
                "unused-comparison",
                "medium",
                node,
                "the result of this comparison is thrown away; was an assignment meant?",
            )
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            yield from _pair(syntax, operator, left, right)


def _pair(
    syntax: Syntax, operator: ast.cmpop, left: ast.expr, right: ast.expr
) -> Iterator[Finding]:
    if isinstance(operator, _EQUALITY) and (_is_none(left) or _is_none(right)):
        yield syntax.finding(
            "none-comparison", "low", left, "compares with None by equality; use `is`"
        )
    if isinstance(operator, _IDENTITY) and (_is_literal(left) or _is_literal(right)):
        yield syntax.finding(
            "is-literal",
            "medium",
            left,
            "compares a literal by identity: whether two equal values are one object is chance; "
            "use `==`",
        )
    if _is_plain(left) and same(left, right):
        yield syntax.finding(
            "self-comparison",
            # `x != x` is how a NaN is found without a call.
            "low" if isinstance(operator, ast.NotEq) else "medium",
            left,
            "compares a value with itself (to find a NaN, say math.isnan)",
        )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes | int | float | complex) and not isinstance(
            node.value, bool
        )
    return isinstance(node, _DISPLAYS)


def _is_plain(node: ast.expr) -> bool:
    """A name, or attributes of one: reading it twice gives the same."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _self_assignments(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.Assign):
        target = node.targets[0]
        # In a class body `name = name` publishes the outer name as an attribute.
        plain_name = isinstance(target, ast.Name)
        if plain_name and isinstance(syntax.scope(node), ast.ClassDef):
            continue
        if (
            isinstance(target, ast.Name | ast.Attribute)
            and _is_plain(target)
            and _path(target) == _path(node.value)
        ):
            yield syntax.finding("self-assignment", "low", node, "assigns a value to itself")


def _path(node: ast.expr) -> tuple[str, ...]:
    """The names of `a.b.c`, inside out; empty for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (*names, node.id) if isinstance(node, ast.Name) else ()


def _constant_conditions(syntax: Syntax) -> Iterator[Finding]:
    """`if x == "a" or "b"`: the second operand is always true."""
    for node in syntax.of(ast.BoolOp):
        if not isinstance(node.op, ast.Or) or not _is_condition(syntax, node):
            continue
        compared = False
        for each in node.values:
            if compared and isinstance(each, ast.Constant) and each.value:
                yield syntax.finding(
                    "constant-condition",
                    "high",
                    each,
                    "this operand is always true, and so is the condition; compare with `in`",
                )
                break
            compared = compared or isinstance(each, ast.Compare)


def _is_condition(syntax: Syntax, node: ast.expr) -> bool:
    parent = syntax.parents.get(node)
    return isinstance(parent, ast.If | ast.While | ast.IfExp | ast.Assert) and parent.test is node


def _tuple_assertions(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.Assert):
        if isinstance(node.test, ast.Tuple) and node.test.elts:
            yield syntax.finding(
                "assert-tuple",
                "high",
                node,
                "asserts a tuple, which is always true; drop the parentheses",
            )


def _duplicate_keys(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.Dict):
        first: dict[tuple[bool, object], int] = {}
        for key in node.keys:
            if not isinstance(key, ast.Constant):
                continue
            # Bytes apart: with -b Python warns about comparing them with text.
            value = (isinstance(key.value, bytes), key.value)
            if value in first:
                yield syntax.finding(
                    "duplicate-key",
                    "medium",
                    key,
                    f"this key already stands in line {first[value]}; the last value wins",
                )
            first.setdefault(value, key.lineno)


def _empty_fstrings(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.JoinedStr):
        # The format of a placeholder is a JoinedStr too, and needs none of its own.
        if isinstance(syntax.parents.get(node), ast.FormattedValue):
            continue
        if not any(isinstance(each, ast.FormattedValue) for each in node.values):
            yield syntax.finding(
                "empty-fstring", "low", node, "an f-string without a placeholder; drop the f"
            )


def _escapes(syntax: Syntax) -> Iterator[Finding]:
    for line in syntax.escapes:
        yield syntax.finding(
            "invalid-escape",
            "low",
            line,
            "a backslash escape Python does not know, soon an error; double it or use a raw string",
        )


RULES: tuple[Rule, ...] = (
    _comparisons,
    _constant_conditions,
    _duplicate_keys,
    _empty_fstrings,
    _escapes,
    _self_assignments,
    _tuple_assertions,
)
