"""Names: bound and never read, bound too late, bound over, or bound to something shared."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from callboard.demo.findings import Finding
from callboard.demo.syntax import SCOPES, Function, Rule, Syntax, clip, walk

__all__ = ["RULES"]

_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MAKERS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter"}
_CHANGES = {"add", "append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault"}
_CHANGES |= {"appendleft", "discard", "popleft", "sort", "reverse", "update"}
# Names that only an interactive session has, or whose shadow misleads nobody.
_HARMLESS = {"copyright", "credits", "exit", "help", "license", "quit", "_"}
_BUILTINS = {each for each in dir(builtins) if not each.startswith("_")} - _HARMLESS
_READS_ALL = {"locals", "vars", "eval", "exec"}
# These call the function they are given before they return: the loop has not moved on by then.
_AT_ONCE = {
    "all",
    "any",
    "filter",
    "map",
    "max",
    "min",
    "next",
    "reduce",
    "sort",
    "sorted",
    "sub",
    "sum",
}


def _mutable_defaults(syntax: Syntax) -> Iterator[Finding]:
    for function in (*syntax.functions, *syntax.of(ast.Lambda)):
        spec = function.args
        plain = [*spec.posonlyargs, *spec.args]
        given = [
            *zip(plain[len(plain) - len(spec.defaults) :], spec.defaults, strict=True),
            *zip(spec.kwonlyargs, spec.kw_defaults, strict=True),
        ]
        for argument, default in given:
            if default is None or not _is_mutable(default):
                continue
            changed = _is_changed(syntax, function, argument.arg)
            yield syntax.finding(
                "mutable-default",
                "medium" if changed else "low",
                default,
                f"the default of `{clip(argument.arg)}` is made once and shared by all calls"
                + (", and this function changes or hands it on" if changed else "")
                + "; use None and make it inside",
            )


def _is_mutable(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return _calls(node) in _MAKERS
    return isinstance(node, _MUTABLE)


def _is_changed(syntax: Syntax, function: Function | ast.Lambda, name: str) -> bool:
    """Whether what one call does to the default can be seen by the next."""
    for node in walk(function):
        if not isinstance(node, ast.Name) or node.id != name:
            continue
        parent = syntax.parents.get(node)
        if isinstance(parent, ast.Attribute) and parent.attr in _CHANGES:
            return True
        if isinstance(parent, ast.Subscript) and not isinstance(parent.ctx, ast.Load):
            return parent.value is node
        if isinstance(parent, ast.AugAssign | ast.Return | ast.Yield):
            return True
        if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Attribute):
            return True
    return False


def _unused(syntax: Syntax) -> Iterator[Finding]:
    for function in syntax.functions:
        read: set[str] = set()
        exempt: set[str] = set()
        for node in walk(function):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                read.add(node.id)
            elif isinstance(node, ast.Global | ast.Nonlocal):
                exempt.update(node.names)
        if read.isdisjoint(_READS_ALL):
            for name, where in _assigned(function):
                if name not in read | exempt and not name.startswith("_"):
                    yield syntax.finding(
                        "unused-variable",
                        "low",
                        where,
                        f"`{clip(name)}` is assigned and never read",
                    )
    for handler in syntax.of(ast.ExceptHandler):
        if handler.name and not handler.name.startswith("_"):
            names = {each.id for each in walk(handler) if isinstance(each, ast.Name)}
            if names.isdisjoint({handler.name, *_READS_ALL}):
                yield syntax.finding(
                    "unused-exception-name",
                    "low",
                    handler,
                    f"`{clip(handler.name)}` is caught and never looked at",
                )


def _assigned(function: Function) -> Iterator[tuple[str, ast.AST]]:
    """The first plain assignment to each name. Unpacking is left alone: it often names a part
    only to say what it is."""
    seen: set[str] = set()
    for node in walk(function, into_scopes=False):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets = [node.optional_vars]
        for each in targets:
            if isinstance(each, ast.Name) and each.id not in seen:
                seen.add(each.id)
                yield each.id, each


def _late_closures(syntax: Syntax) -> Iterator[Finding]:
    loops: list[ast.For | ast.AsyncFor] = [*syntax.of(ast.For), *syntax.of(ast.AsyncFor)]
    for loop in loops:
        scope = syntax.scope(loop)
        targets = {each.id for each in ast.walk(loop.target) if isinstance(each, ast.Name)}
        inside = [node for each in loop.body for node in (each, *walk(each))]
        for node in inside:
            if (
                not isinstance(node, Function | ast.Lambda)
                or syntax.scope(node) is not scope
                or _runs_at_once(syntax, node, inside)
            ):
                continue
            for name in sorted(targets & _free(node)):
                yield syntax.finding(
                    "loop-closure",
                    "medium",
                    node,
                    f"the function sees the last `{clip(name)}` of the loop, not this one; "
                    f"bind it as a default: `{clip(name)}={clip(name)}`",
                )


def _runs_at_once(syntax: Syntax, node: Function | ast.Lambda, inside: list[ast.AST]) -> bool:
    """Whether a function made in a loop is done with before the loop moves on."""
    parent = syntax.parents.get(node)
    if isinstance(node, Function):
        uses = [
            syntax.parents.get(each)
            for each in inside
            if isinstance(each, ast.Name) and each.id == node.name
        ]
        called = [isinstance(each, ast.Call) and _calls(each) == node.name for each in uses]
        return bool(called) and all(called) and not node.decorator_list
    if isinstance(parent, ast.keyword):
        return parent.arg == "key"
    if isinstance(parent, ast.Call):
        return parent.func is node or _calls(parent) in _AT_ONCE
    return isinstance(parent, ast.Return)


def _calls(node: ast.Call) -> str:
    """The last name of what is called; empty if it has none."""
    called = node.func
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _free(node: Function | ast.Lambda) -> set[str]:
    """The names a function reads that it does not bind itself."""
    spec = node.args
    own = {each.arg for each in ast.walk(spec) if isinstance(each, ast.arg)}
    read: set[str] = set()
    body = node.body if isinstance(node.body, list) else [node.body]
    for statement in body:
        for each in (statement, *walk(statement)):
            if isinstance(each, ast.Name):
                (own if isinstance(each.ctx, ast.Store) else read).add(each.id)
            elif isinstance(each, ast.arg):
                own.add(each.arg)
    return read - own


def _shadowed(syntax: Syntax) -> Iterator[Finding]:
    seen: set[tuple[ast.AST, str]] = set()
    named: list[tuple[str, ast.AST]] = [
        *((each.arg, each) for each in syntax.of(ast.arg)),
        *((each.id, each) for each in syntax.of(ast.Name) if isinstance(each.ctx, ast.Store)),
        *((each.name, each) for each in (*syntax.functions, *syntax.of(ast.ClassDef))),
    ]
    for name, node in named:
        if name not in _BUILTINS:
            continue
        scope = syntax.scope(node)
        if not isinstance(scope, ast.ClassDef) and (scope, name) not in seen:
            seen.add((scope, name))
            yield syntax.finding(
                "shadowed-builtin", "info", node, f"`{name}` hides the builtin of that name"
            )


def _redefined(syntax: Syntax) -> Iterator[Finding]:
    for block in syntax.blocks():
        last: dict[str, int] = {}
        for at, node in enumerate(block):
            if not isinstance(node, Function | ast.ClassDef) or node.decorator_list:
                continue
            before = last.get(node.name)
            if before is not None and node.name != "_":
                between = block[before + 1 : at]
                if not any(_reads(each, node.name) for each in between):
                    yield syntax.finding(
                        "redefinition",
                        "medium",
                        node,
                        f"`{clip(node.name)}` was defined in line {block[before].lineno} and not "
                        "used since; only this one remains",
                    )
            last[node.name] = at


def _reads(root: ast.AST, name: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == name for each in walk(root))


def _classes(syntax: Syntax) -> Iterator[Finding]:
    for node in syntax.of(ast.ClassDef):
        bound = {each.name for each in node.body if isinstance(each, Function)}
        for each in walk(node, into_scopes=False):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                bound.add(each.id)
        if "__eq__" in bound and "__hash__" not in bound:
            yield syntax.finding(
                "eq-without-hash",
                "low",
                node,
                f"`{syntax.qualname(node)}` defines __eq__ and so loses __hash__; say which hash "
                "it has, or `__hash__ = None`",
            )
        for method in node.body:
            if isinstance(method, Function) and _lacks_self(node, method):
                yield syntax.finding(
                    "missing-self",
                    "high",
                    method,
                    f"`{syntax.qualname(method)}` takes no argument; calling it on an instance "
                    "fails for want of `self`",
                )


def _lacks_self(owner: ast.ClassDef, method: Function) -> bool:
    spec = method.args
    if method.decorator_list or spec.posonlyargs or spec.args or spec.vararg:
        return False
    # A function that the class body itself calls is a helper, not a method; interfaces of
    # zope.interface are declared without self.
    interface = any("Interface" in getattr(each, "id", "") for each in owner.bases)
    used = any(
        isinstance(each, ast.Name) and each.id == method.name
        for statement in owner.body
        if not isinstance(statement, SCOPES)
        for each in walk(statement)
    )
    return not interface and not used


RULES: tuple[Rule, ...] = (
    _classes,
    _late_closures,
    _mutable_defaults,
    _redefined,
    _shadowed,
    _unused,
)
