"""What a user of the module's public names is told: docstrings, and whether they are true.

Public is what `__all__` names, or, without it, what does not begin with an underscore. A docstring
is compared with the signature and with the exceptions that the code raises by name.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

from callboard.demo.docstring import described
from callboard.demo.findings import FileReview, Finding
from callboard.demo.syntax import (
    Function,
    Syntax,
    clip,
    collect,
    is_test_file,
    parse,
    unparsed,
    walk,
)

__all__ = ["declared_names", "review"]

_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_EXEMPT_DECORATORS = {"overload", "override", "setter", "deleter", "getter"}


@dataclass(frozen=True, slots=True)
class _Export:
    """One name of `__all__` and the node that states it."""

    name: str
    where: ast.AST


def review(source: str, file: str) -> FileReview:
    """Compare docstrings and `__all__` with the code."""
    syntax = parse(source, file)
    if isinstance(syntax, Finding):
        return unparsed("documentation", syntax)
    public = [] if is_test_file(file) else list(_public(syntax))
    documented = sum(ast.get_docstring(each, clean=False) is not None for each in public)
    functions = [each for each in public if isinstance(each, Function)]
    return FileReview(
        file=file,
        specialist="documentation",
        findings=collect(syntax, [_undocumented, _untrue, _exports]),
        facts={
            "annotated_functions": sum(each.returns is not None for each in functions),
            "documented_names": documented,
            "exported_names": len(_exported(syntax) or ()),
            "public_names": len(public),
            "public_functions": len(functions),
        },
    )


def _public(syntax: Syntax) -> Iterator[_Documented]:
    """The public functions, classes and methods."""
    exports = _exported(syntax)
    names = None if exports is None else {each.name for each in exports}
    for node in [*syntax.functions, *syntax.of(ast.ClassDef)]:
        if node.name.startswith("_") or _exempt(node):
            continue
        scope = syntax.scope(node)
        outer = [each for each in syntax.enclosing(node) if isinstance(each, _Documented)]
        if not all(isinstance(each, ast.ClassDef) for each in outer):
            continue
        top = outer[-1].name if outer else node.name
        shown = not any(each.name.startswith("_") for each in outer)
        if shown and (names is None or top in names) and not isinstance(scope, ast.Lambda):
            yield node


def _exempt(node: _Documented) -> bool:
    """An overload, an override and a property's setter say nothing of their own."""
    names = {
        each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "")
        for each in node.decorator_list
    }
    return not names.isdisjoint(_EXEMPT_DECORATORS)


def _undocumented(syntax: Syntax) -> Iterator[Finding]:
    stem = PurePosixPath(syntax.file).stem
    if is_test_file(syntax.file) or (stem.startswith("_") and not stem.startswith("__")):
        return
    if syntax.tree.body and ast.get_docstring(syntax.tree, clean=False) is None:
        yield syntax.finding("undocumented-module", "info", 1, "the module has no docstring")
    for node in _public(syntax):
        if ast.get_docstring(node, clean=False) is not None:
            continue
        if isinstance(node, ast.ClassDef):
            kind = "class"
        else:
            kind = "method" if isinstance(syntax.scope(node), ast.ClassDef) else "function"
        yield syntax.finding(
            f"undocumented-{kind}",
            "info" if kind == "method" else "low",
            node,
            f"public {kind} `{syntax.qualname(node)}` has no docstring",
        )


def _untrue(syntax: Syntax) -> Iterator[Finding]:
    """What docstrings say of parameters and exceptions, against the code."""
    for node in [*syntax.functions, *syntax.of(ast.ClassDef)]:
        docstring = ast.get_docstring(node)
        function = _constructor(node) if isinstance(node, ast.ClassDef) else node
        if docstring is None or function is None:
            continue
        says = described(docstring)
        if says.parameters:
            yield from _parameters(syntax, node, function, says.parameters)
        if says.raises is not None:
            for error in sorted(_raised(function) - says.raises):
                yield syntax.finding(
                    "undocumented-raise",
                    "info",
                    node,
                    f"`{syntax.qualname(node)}` lists what it raises, but not `{clip(error)}`",
                )


def _parameters(
    syntax: Syntax, node: _Documented, function: Function, says: frozenset[str]
) -> Iterator[Finding]:
    spec = function.args
    plain = [each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    rest = [each.arg for each in (spec.vararg, spec.kwarg) if each is not None]
    known = {*plain, *rest}
    name = syntax.qualname(node)
    if spec.kwarg is None:
        for unknown in sorted(says - known):
            yield syntax.finding(
                "docstring-unknown-parameter",
                "medium",
                node,
                f"the docstring of `{name}` describes `{clip(unknown)}`, which it does not take",
            )
    wanted = {each for each in plain if each not in {"self", "cls"} and not each.startswith("_")}
    if says & known and (missing := sorted(wanted - says)):
        listed = ", ".join(f"`{clip(each)}`" for each in missing)
        yield syntax.finding(
            "docstring-missing-parameter",
            "low",
            node,
            f"the docstring of `{name}` describes some parameters, but not {listed}",
        )


def _constructor(node: ast.ClassDef) -> Function | None:
    return next(
        (each for each in node.body if isinstance(each, Function) and each.name == "__init__"),
        None,
    )


def _raised(function: Function) -> set[str]:
    """The exceptions that this function's own code raises by name."""
    names: set[str] = set()
    for node in walk(function, into_scopes=False):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            called = node.exc.func
            if isinstance(called, ast.Name) and called.id[:1].isupper():
                names.add(called.id)
            elif isinstance(called, ast.Attribute) and called.attr[:1].isupper():
                names.add(called.attr)
    return names - {"NotImplementedError", "AssertionError"}


def _exported(syntax: Syntax) -> list[_Export] | None:
    """The names that `__all__` states; None if the module has none that can be read."""
    found: list[_Export] = []
    stated = False
    for node in syntax.tree.body:
        value = _value_of_all(node)
        if value is None:
            continue
        stated = True
        for part in ast.walk(value):
            if isinstance(part, ast.List | ast.Tuple | ast.Set):
                for each in part.elts:
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        found.append(_Export(each.value, each))
                    else:
                        return None
            elif isinstance(part, ast.Call | ast.ListComp | ast.Starred | ast.Name | ast.Attribute):
                return None  # put together at run time, or from another module's names
    return found if stated else None


def _value_of_all(node: ast.stmt) -> ast.expr | None:
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in {"append", "extend"}
        and len(node.value.args) == 1
    ):
        argument = node.value.args[0]
        one = node.value.func.attr == "append"
        wrapped = ast.List(elts=[argument], ctx=ast.Load()) if one else argument
        return wrapped if _is_all(node.value.func.value) else None
    else:
        return None
    return node.value if any(_is_all(each) for each in targets) else None


def _is_all(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "__all__"


def declared_names(syntax: Syntax) -> frozenset[str]:
    """The names in any `__all__`, as far as they can be read: they are used from outside."""
    names = (_value_of_all(each) for each in ast.walk(syntax.tree) if isinstance(each, ast.stmt))
    parts = chain.from_iterable(ast.walk(each) for each in names if each is not None)
    return frozenset(
        each.value
        for each in parts
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    )


def _exports(syntax: Syntax) -> Iterator[Finding]:
    exports = _exported(syntax) or []
    for name, count in sorted(Counter(each.name for each in exports).items()):
        if count > 1:
            where = [each.where for each in exports if each.name == name]
            yield syntax.finding(
                "all-duplicate-name", "low", where[1], f"`__all__` names `{clip(name)}` twice"
            )
    # A package's `__all__` may name its submodules, and these cannot be seen from one file.
    if PurePosixPath(syntax.file).name == "__init__.py":
        return
    defined = _defined(syntax)
    if defined is None:
        return
    for each in exports:
        if each.name not in defined:
            yield syntax.finding(
                "all-unknown-name",
                "high",
                each.where,
                f"`__all__` names `{clip(each.name)}`, which the module does not define: "
                "`from module import *` will fail",
            )


def _defined(syntax: Syntax) -> set[str] | None:
    """The names bound at the top of the module; None if they cannot be known from its text."""
    names: set[str] = {"__doc__", "__file__", "__name__"}
    for node in walk(syntax.tree, into_scopes=False):
        if isinstance(node, _Documented):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
    names.update(chain.from_iterable(each.names for each in syntax.of(ast.Global)))
    called = {each.func.id for each in syntax.of(ast.Call) if isinstance(each.func, ast.Name)}
    unknowable = names & {"*", "__getattr__"} or called & {"globals", "exec", "vars", "locals"}
    return None if unknowable else names
