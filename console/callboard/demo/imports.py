"""What a module takes from others: unused, hidden, missing, removed, and imports in a circle.

Scopes are Python's own (`symtable`), so a name counts as undefined only if the interpreter would
look for it among the globals and find none. Cycles need every file's imports: `cycles` is the join.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from callboard.demo.documentation import declared_names
from callboard.demo.findings import FileReview, Finding, Import
from callboard.demo.syntax import Rule, Syntax, broken, clip, collect, parse, quiet, unparsed, walk

__all__ = ["review"]

_REMOVED = {
    **dict.fromkeys(("asynchat", "asyncore", "distutils", "imp", "smtpd"), "3.12"),
    **dict.fromkeys(
        (
            *("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3"),
            *("mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "sndhdr"),
            *("spwd", "sunau", "telnetlib", "uu", "xdrlib"),
        ),
        "3.13",
    ),
}
_MODULE_NAMES = {
    *("__annotations__", "__builtins__", "__cached__", "__doc__", "__file__", "__loader__"),
    *("__module__", "__name__", "__package__", "__path__", "__qualname__", "__spec__"),
    # Known on other platforms, to type checkers, or put in place by gettext.
    *("WindowsError", "reveal_type", "_"),
}
_KNOWN = {*dir(builtins), *_MODULE_NAMES}
_WORD = re.compile(r"[^\W\d]\w*")
_TYPE_COMMENT = re.compile(r"#\s{0,4}type:([^\n]{0,300})")
_NOQA = re.compile(r"#\s{0,4}noqa", re.IGNORECASE)
# Where these are used, names may be made at run time (`IntEnum._convert_` fills the module).
_MAKES_NAMES = {"exec", "eval", "globals", "locals", "vars"}
_MAKES_NAMES_AS_METHOD = {"_convert_", "_convert", "modules"}
_TYPED = {"cast", "TypeVar", "NewType", "TypeAlias"}


def review(source: str, file: str) -> FileReview:
    """Check the imports and the global names of one module."""
    syntax = parse(source, file)
    if isinstance(syntax, Finding):
        return unparsed("imports", syntax)
    rules: list[Rule] = [_unused, _stars, _hidden, _removed, _undefined, _dead]
    imported = {name for _, _, name in _modules(syntax)}
    return FileReview(
        file=file,
        specialist="imports",
        findings=collect(syntax, rules),
        facts={
            "imports": len(list(_bound(syntax))),
            "other_modules": len(imported - sys.stdlib_module_names),
            "relative_imports": sum(bool(each.level) for each in syntax.of(ast.ImportFrom)),
            "standard_modules": len(imported & sys.stdlib_module_names),
        },
        imports=list(_at_import(syntax)),
    )


def _bound(syntax: Syntax) -> Iterator[tuple[str, ast.alias, ast.Import | ast.ImportFrom]]:
    """(bound name, alias, statement) of every import."""
    nodes: list[ast.Import | ast.ImportFrom] = [
        *syntax.of(ast.Import),
        *syntax.of(ast.ImportFrom),
    ]
    for node in nodes:
        for each in node.names:
            if isinstance(node, ast.Import):
                yield each.asname or each.name.partition(".")[0], each, node
            elif node.module != "__future__":
                yield each.asname or each.name, each, node


def _modules(syntax: Syntax) -> Iterator[tuple[ast.Import | ast.ImportFrom, int, str]]:
    """(statement, line, top-level module) of every absolute import."""
    for plain in syntax.of(ast.Import):
        for each in plain.names:
            yield plain, plain.lineno, each.name.partition(".")[0]
    for chosen in syntax.of(ast.ImportFrom):
        if chosen.module and not chosen.level:
            yield chosen, chosen.lineno, chosen.module.partition(".")[0]


def _at_import(syntax: Syntax) -> Iterator[Import]:
    """The imports that run with the module: not those in functions or for type checkers only."""
    for node in walk(syntax.tree, into_scopes=False):
        if not isinstance(node, ast.Import | ast.ImportFrom) or _is_conditional(syntax, node):
            continue
        for each in node.names:
            if isinstance(node, ast.Import):
                yield Import(each.name, "", 0, node.lineno)
            else:
                yield Import(node.module or "", each.name, node.level, node.lineno)


def _is_conditional(syntax: Syntax, node: ast.stmt) -> bool:
    """Under `if TYPE_CHECKING` or `if __name__ == "__main__"`."""
    for around in syntax.enclosing(node):
        if isinstance(around, ast.If):
            named = {
                getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(around.test)
            }
            if not named.isdisjoint({"TYPE_CHECKING", "__name__"}):
                return True
    return False


def _is_guarded(syntax: Syntax, node: ast.AST) -> bool:
    """Whether an `except` stands ready for the case that the name or module is missing."""
    return any(isinstance(each, ast.Try) for each in syntax.enclosing(node))


def _mentioned(syntax: Syntax) -> set[str]:
    """Every name the code reads, annotations in strings and type comments too."""
    names = {each.id for each in syntax.of(ast.Name) if not isinstance(each.ctx, ast.Store)}
    roots: list[ast.expr | None] = [
        *(each.annotation for each in syntax.of(ast.arg)),
        *(each.annotation for each in syntax.of(ast.AnnAssign)),
        *(each.returns for each in syntax.functions),
    ]
    for call in syntax.of(ast.Call):
        called = call.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name in _TYPED:
            roots.extend((*call.args, *(each.value for each in call.keywords)))
    for root in roots:
        for node in ast.walk(root) if root is not None else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(_WORD.findall(node.value[:1_000]))
    for comment in _TYPE_COMMENT.findall(syntax.source):
        names.update(_WORD.findall(comment))
    return names


def _unused(syntax: Syntax) -> Iterator[Finding]:
    # A package's __init__ imports in order to offer.
    if PurePosixPath(syntax.file).name == "__init__.py":
        return
    used = _mentioned(syntax) | declared_names(syntax)
    lines = syntax.source.split("\n")
    for name, alias, node in _bound(syntax):
        offered = alias.asname is not None and alias.asname == alias.name
        if name in used or name == "*" or offered or _is_guarded(syntax, node):
            continue
        if any(_NOQA.search(each[:1_000]) for each in lines[node.lineno - 1 : node.end_lineno]):
            continue
        yield syntax.finding(
            "unused-import", "low", alias, f"`{clip(name)}` is imported and never used"
        )


def _stars(syntax: Syntax) -> Iterator[Finding]:
    for name, _, node in _bound(syntax):
        if name == "*":
            yield syntax.finding(
                "star-import", "low", node, "imports whatever is there; name what is needed"
            )


def _hidden(syntax: Syntax) -> Iterator[Finding]:
    """A module-level import whose name the same module binds again."""
    lines = {
        name: node.lineno
        for name, _, node in _bound(syntax)
        if syntax.parents.get(node) is syntax.tree and name != "*"
    }
    for node in syntax.tree.body:
        bound: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound = [node.name]
        elif isinstance(node, ast.Assign) and not any(
            isinstance(each, ast.Name) and each.id in lines for each in ast.walk(node.value)
        ):
            bound = [each.id for each in node.targets if isinstance(each, ast.Name)]
        for name in bound:
            if lines.get(name, node.lineno) < node.lineno:
                yield syntax.finding(
                    "hidden-import",
                    "medium",
                    node,
                    f"`{clip(name)}`, imported in line {lines[name]}, means something else from "
                    "here on",
                )


def _removed(syntax: Syntax) -> Iterator[Finding]:
    # A module is no news to itself, nor a second time to its importer.
    told = {PurePosixPath(syntax.file).parts[0].removesuffix(".py")}
    for node, line, name in sorted(_modules(syntax), key=lambda each: each[1]):
        if name in _REMOVED and name not in told and not _is_guarded(syntax, node):
            told.add(name)
            yield syntax.finding(
                "removed-module",
                "medium",
                line,
                f"`{name}` is no longer part of Python since {_REMOVED[name]}",
            )


def _tables(syntax: Syntax) -> list[symtable.SymbolTable] | Finding:
    """Every scope of the module, the outermost first."""
    try:
        with quiet():
            tables = [symtable.symtable(syntax.source, "<reviewed>", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as why:
        return broken(why, syntax.file)
    for table in tables:
        tables.extend(table.get_children())
    return tables


def _undefined(syntax: Syntax) -> Iterator[Finding]:
    tables = _tables(syntax)
    if isinstance(tables, Finding):
        yield tables
        return
    attributes = {each.attr for each in syntax.of(ast.Attribute)}
    if (
        any(name == "*" for name, _, _ in _bound(syntax))
        or _mentioned(syntax) & _MAKES_NAMES
        or attributes & _MAKES_NAMES_AS_METHOD
    ):
        return
    defined = set(_KNOWN)
    for table in tables:
        for symbol in table.get_symbols():
            top = table is tables[0] or symbol.is_declared_global()
            if top and (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()):
                defined.add(symbol.get_name())
    # Of a function that happens to be called `top`, symtable says that its locals are global too.
    wanted = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and symbol.is_global() and not symbol.is_local()
    }
    missing = wanted - defined
    if "__getattr__" in defined:
        return
    for node in syntax.of(ast.Name):
        if node.id not in missing or isinstance(node.ctx, ast.Store):
            continue
        if not _is_guarded(syntax, node) and not _is_local(tables, node.id):
            missing.discard(node.id)  # the first place is enough
            yield syntax.finding(
                "undefined-name", "high", node, f"`{clip(node.id)}` is defined nowhere"
            )


def _is_local(tables: list[symtable.SymbolTable], name: str) -> bool:
    """Whether some scope binds the name: then the place that does not is hard to tell apart."""
    symbols = (each.lookup(name) for each in tables if name in each.get_identifiers())
    return any(each.is_local() or each.is_free() for each in symbols)


def _dead(syntax: Syntax) -> Iterator[Finding]:
    """Private functions and classes of the module that it never mentions itself."""
    used = _mentioned(syntax) | declared_names(syntax)
    for node in syntax.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        private = node.name.startswith("_") and not node.name.startswith("__")
        if private and len(node.name) > 1 and node.name not in used and not node.decorator_list:
            yield syntax.finding(
                "dead-name",
                "info",
                node,
                f"private `{clip(node.name)}` is not used in its own module",
            )
