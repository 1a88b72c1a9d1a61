"""Modules that import each other in a circle: what only a look at all files together shows.

The import graph is cut into its strongly connected components (Tarjan, 1972); of each component
that has a cycle the shortest one is told, which is the one to break.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from callboard.demo.findings import FileReview, Finding, Import
from callboard.demo.syntax import clip

__all__ = ["cycles", "module_names"]

_Graph = dict[str, dict[str, int]]
_SHOWN = 6
# A knot of thousands of modules is searched from some of them: the search grows with the square.
_STARTS = 100


def cycles(reviews: Iterable[FileReview], *, package: str = "") -> list[Finding]:
    """One finding per circle, at the import that closes it.

    reviews: those of the imports specialist (others are ignored). package: the dotted name of the
    package that the reviewed folder itself is, if it is one.
    """
    taken = {each.file: each.imports for each in reviews if each.specialist == "imports"}
    files = module_names(taken, package)
    graph = {name: dict(_edges(name, file, taken[file], files)) for name, file in files.items()}
    found: list[Finding] = []
    for members in _components(graph):
        circle = _shortest(graph, members)
        if circle:
            shown = [*circle[:_SHOWN], *(["…"] if len(circle) > _SHOWN else []), circle[0]]
            others = len(members) - len(circle)
            more = f"; {others} more modules are part of the knot" if others > 0 else ""
            found.append(
                Finding(
                    "import-cycle",
                    "medium",
                    files[circle[0]],
                    graph[circle[0]][circle[1 % len(circle)]],
                    clip(f"imports in a circle: {' → '.join(shown)}{more}", 300),
                )
            )
    return sorted(found, key=lambda each: (each.file, each.line))


def module_names(files: Iterable[str], package: str = "") -> dict[str, str]:
    """The file of each dotted module name; a name that two files would have is left out."""
    known = set(files)
    named: dict[str, list[str]] = {}
    for file in sorted(known):
        parts = file.removesuffix(".py").split("/")
        folders = parts[:-1]
        first = len(folders)
        while first and "/".join((*folders[:first], "__init__.py")) in known:
            first -= 1
        inside = "__init__.py" in known if not first else False
        tail = parts[first:] if parts[-1] != "__init__" else parts[first:-1]
        prefix = package.split(".") if package and inside else []
        if name := ".".join((*prefix, *tail)):
            named.setdefault(name, []).append(file)
    return {name: found[0] for name, found in named.items() if len(found) == 1}


def _edges(
    name: str, file: str, imports: Sequence[Import], modules: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """(imported module, line) within the reviewed files, each once."""
    parts = name.split(".") if file.endswith("__init__.py") else name.split(".")[:-1]
    seen: set[str] = set()
    for each in imports:
        if each.level > len(parts):
            continue
        base = parts[: len(parts) - each.level + 1] if each.level else []
        source = ".".join((*base, *filter(None, [each.module])))
        target = f"{source}.{each.name}" if f"{source}.{each.name}" in modules else source
        if target in modules and target != name and target not in seen:
            seen.add(target)
            yield target, each.line


def _components(graph: _Graph) -> Iterator[list[str]]:
    """Tarjan's algorithm with its own stack: a chain of a thousand imports must not recurse."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    for root in sorted(graph):
        if root in order:
            continue
        work = [(root, iter(sorted(graph[root])))]
        while work:
            node, targets = work[-1]
            if node not in order:
                order[node] = low[node] = len(order)
                path.append(node)
                on_path.add(node)
            for target in targets:
                if target not in order:
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in on_path:
                    low[node] = min(low[node], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    at = path.index(node)
                    members, path[at:] = path[at:], []
                    on_path.difference_update(members)
                    if len(members) > 1:
                        yield sorted(members)


def _shortest(graph: _Graph, members: list[str]) -> list[str]:
    """The shortest circle through one of the first members; of equals the first by name."""
    inside = set(members)
    best: list[str] = []
    for start in members[:_STARTS]:
        before: dict[str, str] = {}
        queue = deque([start])
        while queue and start not in before:
            node = queue.popleft()
            for target in sorted(graph[node]):
                if target in inside and target not in before:
                    before[target] = node
                    queue.append(target)
        circle = [start]
        while (node := before[circle[-1]]) != start:
            circle.append(node)
        circle = [start, *reversed(circle[1:])]
        if not best or len(circle) < len(best):
            best = circle
    return best
