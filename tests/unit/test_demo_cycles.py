"""Import cycles are seen in the join, where the imports of all files come together."""

from __future__ import annotations

import msgspec

from callboard.demo.cycles import cycles
from callboard.demo.findings import FileReview, Finding, Import
from callboard.demo.specialists import SPECIALISTS


def imported(source: str, file: str) -> FileReview:
    return SPECIALISTS["imports"](source, file)


def circles(*reviews: FileReview, package: str = "") -> list[tuple[str, int, str]]:
    return [_shown(each) for each in cycles(reviews, package=package)]


def _shown(finding: Finding) -> tuple[str, int, str]:
    return finding.file, finding.line, finding.message


def test_an_import_cycle_is_told_at_the_import_that_closes_it():
    a = imported("import os\nfrom shop.b import thing\n", "shop/a.py")
    b = imported("from . import c\n", "shop/b.py")
    c = imported("from .a import other\n", "shop/c.py")
    init = imported("", "shop/__init__.py")
    (circle,) = circles(c, init, b, a)
    assert circle == ("shop/a.py", 2, "imports in a circle: shop.a → shop.b → shop.c → shop.a")


def test_a_folder_that_is_itself_a_package_is_known_by_its_full_name():
    a = imported("import outer.shop.b\n", "a.py")
    b = imported("from outer.shop import a\n", "b.py")
    init = imported("", "__init__.py")
    assert [each[0] for each in circles(a, b, init, package="outer.shop")] == ["a.py"]


def test_imports_that_do_not_run_with_the_module_make_no_cycle():
    a = imported("import b\n", "a.py")
    late = imported("def f():\n    import a\n", "b.py")
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n"
    script = "if __name__ == '__main__':\n    import a\n"
    assert circles(a, late) == []
    assert circles(a, imported(typing, "b.py")) == []
    assert circles(a, imported(script, "b.py")) == []


def test_a_chain_of_thousands_of_imports_is_followed():
    reviews = [
        msgspec.structs.replace(
            imported("", f"m{number}.py"), imports=[Import(f"m{number + 1}", "", 0, 1)]
        )
        for number in range(3_000)
    ]
    assert circles(*reviews) == []
    (circle,) = circles(*reviews, imported("import m0\n", "m3000.py"))
    assert circle[0] == "m0.py"
