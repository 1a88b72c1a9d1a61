"""How hard the code is to follow: branches, nesting and size of each function and class.

Complexity is McCabe's (1976): one, plus one for each decision. Cognitive complexity is close to
Campbell's (SonarSource, 2018): each break in the flow costs one, plus one for each block around it.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable, Iterator

from callboard.demo.findings import FileReview, Finding, Hotspot
from callboard.demo.syntax import SCOPES, Function, Syntax, collect, parse, unparsed, walk

__all__ = ["review"]

_MAX_COMPLEXITY = 10
_MAX_COGNITIVE = 30
_MAX_NESTING = 5
_MAX_LINES = 80
_MAX_ARGUMENTS = 7
_MAX_CLASS_LINES = 400
_MAX_METHODS = 30
_HOTSPOTS = 10

_LOOPS = ast.For | ast.AsyncFor | ast.While
_BLANK = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def review(source: str, file: str) -> FileReview:
    """Measure every function and class; the ten worst functions are the review's hotspots."""
    syntax = parse(source, file)
    if isinstance(syntax, Finding):
        return unparsed("structure", syntax)
    hotspots = [_measure(syntax, each) for each in syntax.functions]
    hotspots.sort(key=lambda each: (-each.complexity, -each.cognitive, each.line))
    rules: list[Callable[[Syntax], Iterator[Finding]]] = [
        lambda each: _hard_functions(each, hotspots),
        _many_arguments,
        _large_classes,
    ]
    return FileReview(
        file=file,
        specialist="structure",
        findings=collect(syntax, rules),
        facts=_facts(syntax, hotspots),
        hotspots=hotspots[:_HOTSPOTS],
    )


def _facts(syntax: Syntax, hotspots: list[Hotspot]) -> dict[str, int | float]:
    code, comments = _lines(syntax)
    complexities = [each.complexity for each in hotspots]
    return {
        "classes": len(syntax.of(ast.ClassDef)),
        "comment_lines": comments,
        "functions": len(hotspots),
        "lines": syntax.source.count("\n") + (not syntax.source.endswith("\n")),
        "longest_function": max((each.lines for each in hotspots), default=0),
        "max_complexity": max(complexities, default=0),
        "max_nesting": max((each.nesting for each in hotspots), default=0),
        "mean_complexity": round(sum(complexities) / len(complexities), 2) if complexities else 0,
        "source_lines": code,
    }


def _lines(syntax: Syntax) -> tuple[int, int]:
    """(lines that hold code, lines that hold a comment)."""
    code: set[int] = set()
    comments: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(syntax.source).readline):
            if token.type == tokenize.COMMENT:
                comments.add(token.start[0])
            elif token.type not in _BLANK:
                code.update(range(token.start[0], token.end[0] + 1))
    except (tokenize.TokenError, SyntaxError):
        # The parser took the file, the tokenizer not (a form feed or a stray NUL): what was
        # counted so far still stands.
        pass
    return len(code), len(comments)


def _measure(syntax: Syntax, function: Function) -> Hotspot:
    """Walk one function's own code; what is nested in it is measured by itself."""
    complexity, cognitive, nesting = 1, 0, 0
    stack: list[tuple[ast.AST, int]] = [(each, 0) for each in function.body]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, SCOPES) and not isinstance(node, ast.Lambda):
            continue
        complexity += _decisions(node)
        cognitive += _effort(syntax, node, depth)
        if isinstance(node, ast.If) and _is_elif(syntax, node):
            depth -= 1  # an elif is no deeper than its if
        inner = depth + _opens_block(node)
        nesting = max(nesting, inner)
        header = {id(each) for each in _header(node)}
        stack.extend(
            (each, depth if id(each) in header else inner) for each in ast.iter_child_nodes(node)
        )
    return Hotspot(
        function=syntax.qualname(function),
        file=syntax.file,
        line=function.lineno,
        complexity=complexity,
        cognitive=cognitive,
        nesting=nesting,
        lines=(function.end_lineno or function.lineno) - function.lineno + 1,
    )


def _decisions(node: ast.AST) -> int:
    if isinstance(node, ast.If | ast.IfExp | _LOOPS | ast.ExceptHandler):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        always = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None
        return int(not always or node.guard is not None)
    return 0


def _effort(syntax: Syntax, node: ast.AST, depth: int) -> int:
    if isinstance(node, ast.If):
        plain_else = bool(node.orelse) and not _continues(node)
        return (1 if _is_elif(syntax, node) else 1 + depth) + plain_else
    if isinstance(node, _LOOPS):
        return 1 + depth + bool(node.orelse)
    if isinstance(node, ast.IfExp | ast.ExceptHandler | ast.Match):
        return 1 + depth
    return int(isinstance(node, ast.BoolOp))


def _opens_block(node: ast.AST) -> int:
    return int(isinstance(node, ast.If | _LOOPS | ast.ExceptHandler | ast.Match | ast.With))


def _header(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions of a block's first line: they are not inside the block."""
    if isinstance(node, ast.If | ast.While):
        yield node.test
    elif isinstance(node, ast.For | ast.AsyncFor):
        yield node.iter
    elif isinstance(node, ast.Match):
        yield node.subject


def _is_elif(syntax: Syntax, node: ast.If) -> bool:
    parent = syntax.parents.get(node)
    return isinstance(parent, ast.If) and _continues(parent) and parent.orelse[0] is node


def _continues(node: ast.If) -> bool:
    """Whether an `elif` follows: the tree shows it as an `if` alone in the `else`, not indented."""
    return (
        len(node.orelse) == 1
        and isinstance(node.orelse[0], ast.If)
        and node.orelse[0].col_offset == node.col_offset
    )


def _hard_functions(syntax: Syntax, hotspots: list[Hotspot]) -> Iterator[Finding]:
    for each in hotspots:
        name = f"`{each.function}`"
        if each.complexity > _MAX_COMPLEXITY:
            yield syntax.finding(
                "complex-function",
                "low",
                each.line,
                f"{name} has a cyclomatic complexity of {each.complexity}; "
                f"over {_MAX_COMPLEXITY} it is hard to test every path",
            )
        if each.cognitive > _MAX_COGNITIVE:
            yield syntax.finding(
                "cognitive-hotspot",
                "medium",
                each.line,
                f"{name} has a cognitive complexity of {each.cognitive}; split it where the "
                "nesting is deepest",
            )
        if each.nesting > _MAX_NESTING:
            yield syntax.finding(
                "deep-nesting",
                "low",
                each.line,
                f"{name} nests {each.nesting} blocks; return early or extract the inner ones",
            )
        if each.lines > _MAX_LINES:
            yield syntax.finding(
                "long-function", "low", each.line, f"{name} is {each.lines} lines long"
            )


def _many_arguments(syntax: Syntax) -> Iterator[Finding]:
    for function in syntax.functions:
        spec = function.args
        names = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
        count = len(names) - bool(names and names[0].arg in {"self", "cls"})
        if count > _MAX_ARGUMENTS:
            yield syntax.finding(
                "many-arguments",
                "low",
                function,
                f"`{syntax.qualname(function)}` takes {count} arguments; group those that travel "
                "together in a record",
            )


def _large_classes(syntax: Syntax) -> Iterator[Finding]:
    for each in syntax.of(ast.ClassDef):
        methods = sum(isinstance(node, Function) for node in walk(each, into_scopes=False))
        lines = (each.end_lineno or each.lineno) - each.lineno + 1
        if methods > _MAX_METHODS or lines > _MAX_CLASS_LINES:
            yield syntax.finding(
                "large-class",
                "low",
                each,
                f"`{syntax.qualname(each)}` has {methods} methods in {lines} lines; it may be "
                "more than one class",
            )
