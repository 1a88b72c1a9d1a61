"""Code that is probably a mistake: what the language allows and nobody means.

Each rule looks for one mistake and says on its line what happens instead of what was meant.
"""

from __future__ import annotations

import ast

from callboard.demo import bindings, comparisons, control_flow
from callboard.demo.findings import FileReview, Finding
from callboard.demo.syntax import collect, parse, unparsed

__all__ = ["review"]

_RULES = (*bindings.RULES, *comparisons.RULES, *control_flow.RULES)


def review(source: str, file: str) -> FileReview:
    """Apply every rule on comparisons, on control flow and on names."""
    syntax = parse(source, file)
    if isinstance(syntax, Finding):
        return unparsed("defects", syntax)
    return FileReview(
        file=file,
        specialist="defects",
        findings=collect(syntax, _RULES),
        facts={
            "assertions": len(syntax.of(ast.Assert)),
            "comparisons": len(syntax.of(ast.Compare)),
            "handlers": len(syntax.of(ast.ExceptHandler)),
            "statements": sum(
                len(nodes) for kind, nodes in syntax.nodes.items() if issubclass(kind, ast.stmt)
            ),
        },
    )
