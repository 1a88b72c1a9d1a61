"""The demo's specialists find what was planted, where it was planted, and nothing else there."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from callboard.demo.findings import FileReview
from callboard.demo.planning import default_target, plan, read
from callboard.demo.secrets import mask
from callboard.demo.specialists import SPECIALISTS
from callboard.demo.syntax import MAX_FINDINGS

# Put together here, so that no scanner takes this file for a leak.
GITHUB = "ghp_" + "aZ3kQ9xW2vB7nM4tR8yL1pC6sD5fG0hJqKeU"
AWS = "AKIA" + "QWPZNVBRTYMKLHGD"
SLACK = "xox" + "b-912345678901-kQ9xW2vB7nM4tR8y"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiI0MiIsIm4iOjF9" + ".kQ9xW2vB7nM4tR8yL1pC6s"
KEY = "-----BEGIN RSA PRIVATE KEY-----\\n" + "MIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo"
RANDOM = "q8Zr" + "-T5w2_Xk9Vb7Lm3"


def found(specialist: str, source: str, file: str = "module.py") -> set[tuple[int, str]]:
    return {(each.line, each.rule) for each in review(specialist, source, file).findings}


def review(specialist: str, source: str, file: str = "module.py") -> FileReview:
    return SPECIALISTS[specialist](source, file)


def planted(source: str) -> tuple[str, set[tuple[int, str]]]:
    """A source, and the (line, rule) of each `#! rule` mark in it."""
    text = dedent(source).lstrip("\n")
    marks = {
        (number, rule)
        for number, line in enumerate(text.splitlines(), start=1)
        for mark in re.findall(r"#! ([\w, -]+)", line)
        for rule in mark.split(", ")
    }
    assert marks
    return text, marks


DEFECTS = {
    "defaults": """
        def collect(item, into=[], *, index={}, seen=set()):  #! mutable-default
            into.append(item)
            return into, index, seen
        """,
    "errors": """
        def load(text):
            try:
                return int(text)
            except:  #! bare-except
                print("no")
            try:
                return float(text)
            except Exception:  #! swallowed-exception
                pass
            try:
                return complex(text)
            except ValueError as why:  #! unused-exception-name
                return None
            try:
                return len(text)
            except KeyError or ValueError:  #! except-or
                return 0
            try:
                return text.strip()
            except:
                text = None
                raise
        """,
    "comparisons": """
        def check(a, b):
            if a == None:  #! none-comparison
                return 1
            if a is "text" or b is not 3:  #! is-literal
                return 2
            if 1 == 2:  #! constant-comparison
                return 3
            if a.name == a.name:  #! self-comparison
                return 4
            if a == "x" or "y":  #! constant-condition
                return 5
            a == b  #! unused-comparison
            a.name = a.name  #! self-assignment
            assert (a, "must be given")  #! assert-tuple
            return a is None or b is True or a() == a()
        """,
    "literals": """
        TABLE = {
            "one": 1,
            "two": 2,
            "one": 3,  #! duplicate-key
            1: "int",
            True: "the same key",  #! duplicate-key
        }
        GREETING = f"hello"  #! empty-fstring
        WIDTH = f"{GREETING:>10}"
        PATTERN = "\\d+"  #! invalid-escape
        """,
    "flow": """
        def first(items):
            for item in items:
                return item
                print("late")  #! unreachable-code
            raise ValueError(items)

        def second(items):
            try:
                return items[0]
            finally:
                for item in items:
                    break
                return None  #! return-in-finally

        def third(a):
            if a == 1:
                print("one")
            elif a == 2:  #! duplicate-branch
                print("one")
            elif a == 1:  #! duplicate-condition
                print("three")
            raise NotImplemented  #! raise-not-implemented

        def never():
            raise StopIteration
            yield
        """,
    "names": """
        def work(items, list):  #! shadowed-builtin
            total = 0  #! unused-variable
            _ignored = 1
            left, right = items
            return list

        def later(items):
            made = []
            for item in items:
                made.append(lambda: item)  #! loop-closure
                made.append(lambda item=item: item)
                made.sort(key=lambda each: each is item)
            return made

        def twice():
            return 1

        def twice():  #! redefinition
            return 2

        class Thing:  #! eq-without-hash
            def __eq__(self, other):
                return True

            def call():  #! missing-self
                return 1

            @staticmethod
            def fine():
                return 1
        """,
    "resources": """
        def size(path):
            handle = open(path)  #! unclosed-resource
            data = open(path).read()  #! unclosed-resource
            for line in handle:
                print(line)
            with open(path) as good:
                print(good)
            given = open(path)
            return given, data
        """,
}

OTHERS = {
    "documentation": """
        import os  #! undocumented-module

        __all__ = [
            "Thing",
            "bare",
            "gone",  #! all-unknown-name
            "google",
            "numpy",
            "os",
            "sphinx",
            "Thing",  #! all-duplicate-name
        ]

        class Thing:  #! undocumented-class
            def act(self):  #! undocumented-method
                return 1

        def bare():  #! undocumented-function
            return 1

        def sphinx(a):  #! docstring-unknown-parameter
            '''Do.

            :param int a: known
            :param b: unknown
            '''

        def google(a, b):  #! docstring-missing-parameter, undocumented-raise
            '''Do.

            Args:
                a (int): known, and described
                    over two lines

            Raises:
                KeyError: sometimes
            '''
            if a:
                raise KeyError(a)
            raise ValueError(b)

        def numpy(a, *args):  #! docstring-unknown-parameter
            '''Do.

            Parameters
            ----------
            a : int
                Known.
            z : int
                Unknown.

            Returns
            -------
            int
            '''

        def _private():
            return 1
        """,
    "security": """
        import hashlib, os, random, ssl, subprocess, tempfile
        import yaml
        from pickle import loads as read

        def run(text, connection, session):
            eval(text)  #! dynamic-code
            subprocess.run(text, shell=True)  #! shell-command
            subprocess.run(["ls", text])
            os.system("ls")  #! shell-command
            read(text)  #! unsafe-load
            yaml.load(text)  #! unsafe-load
            yaml.load(text, Loader=yaml.SafeLoader)
            tempfile.mktemp()  #! insecure-temporary
            hashlib.md5(text)  #! weak-hash
            hashlib.md5(text, usedforsecurity=False)
            connection.execute(f"SELECT * FROM users WHERE name = {text}")  #! sql-formatting
            connection.execute("SELECT * FROM users WHERE name = ?", (text,))
            query = "DELETE FROM users WHERE id = %s" % text  #! sql-formatting
            reset_token = random.randint(0, 9)  #! weak-random
            context = ssl._create_unverified_context()  #! unverified-tls
            context.verify_mode = ssl.CERT_NONE  #! unverified-tls
            return query, reset_token, random.random()
        """,
    "imports": """
        import asyncore  #! removed-module
        import json  #! unused-import
        import os  #! unused-import
        import re
        import sys  # noqa: F401
        from typing import TYPE_CHECKING, List

        if TYPE_CHECKING:
            from decimal import Decimal

        try:
            import numpy
        except ImportError:
            numpy = None

        def os():  #! hidden-import
            return re.compile(mistyped)  #! undefined-name

        def _orphan(a: "Decimal"):  #! dead-name
            here = 1
            return [here for b in a], asyncore.loop, "List"

        def typed(a: "List[int]"):
            return a
        """,
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_planted_defect_is_found_in_its_line_and_nothing_else(name: str):
    source, marks = planted(DEFECTS[name])
    assert found("defects", source) == marks


@pytest.mark.parametrize("specialist", OTHERS)
def test_each_planted_finding_of_a_specialist_is_found_in_its_line(specialist: str):
    source, marks = planted(OTHERS[specialist])
    assert found(specialist, source) == marks


def test_structure_names_what_is_hard_to_follow_and_measures_it():
    branches = "\n".join(f"    if a == {n} and b:\n        return {n}" for n in range(8))
    blocks = "\n".join(f"{'    ' * n}for i{n} in a:" for n in range(1, 7))
    source = (
        f"def branchy(a, b):\n{branches}\n\n"
        f"def nested(a):\n{blocks}\n{'    ' * 7}print(a)\n\n"
        "def wide(a, b, c, d, e, f, g, h):\n    pass\n\n"
        "def long():\n" + "    print(1)\n" * 90
    )
    result = review("structure", source)
    by_rule = {each.rule: each for each in result.findings}
    assert set(by_rule) == {"complex-function", "deep-nesting", "long-function", "many-arguments"}
    assert by_rule["complex-function"].line == 1
    hardest = result.hotspots[0]
    assert (hardest.function, hardest.complexity) == ("branchy", 17)
    assert next(each for each in result.hotspots if each.function == "nested").nesting == 6
    assert result.facts["functions"] == 4
    assert result.facts["longest_function"] == 91
    assert result.facts["source_lines"] == source.count("\n") - 3


def test_an_elif_chain_is_as_deep_as_its_first_if():
    source = "def f(a):\n    if a == 0:\n        b()\n"
    source += "".join(f"    elif a == {n}:\n        b()\n" for n in range(1, 9))
    (spot,) = review("structure", source).hotspots
    assert (spot.complexity, spot.nesting, spot.cognitive) == (10, 1, 9)


@pytest.mark.parametrize(
    ("secret", "rule"),
    [
        (GITHUB, "github-token"),
        (AWS, "aws-access-key"),
        (SLACK, "slack-token"),
        (JWT, "json-web-token"),
        (KEY, "private-key"),
        ("postgres://app:" + "kQ9xW2vB" + "@db.internal/app", "password-in-url"),
    ],
)
def test_a_token_is_found_by_its_shape_and_never_shown(secret: str, rule: str):
    source = f'import x\n\n# leaked: "{secret}"\nvalue = 1\n'
    (finding,) = review("secrets", source).findings
    assert (finding.line, finding.rule, finding.severity) == (3, rule, "high")
    assert secret not in finding.message
    assert secret not in mask(source)
    (in_test,) = review("secrets", source, "tests/test_x.py").findings
    assert in_test.severity == "low"


def test_strings_with_telling_names_are_found_but_placeholders_are_not():
    source, marks = planted(
        f"""
        api_key = "{RANDOM}"  #! hard-coded-secret
        settings = {{"clientSecret": "{RANDOM}"}}  #! hard-coded-secret
        def login(user, password="Tr0ub4dor"):  #! hard-coded-password
            return connect(user, passwd="Tr0ub4dor")  #! hard-coded-password
        token = "your-token-goes-here"
        PASSWORD_FIELD = "password_field"
        password = "changeme"
        secret = "<the secret of your application>"
        api_key = "${{API_KEY}}"
        token_url = "https://login.internal/oauth/v2/token"
        token = NAME_TOKEN
        """
    )
    result = review("secrets", source)
    assert {(each.line, each.rule) for each in result.findings} == marks
    assert not [each for each in result.findings if RANDOM in each.message]
    assert not [each for each in result.findings if "Tr0ub4dor" in each.message]
    assert review("secrets", source, "tests/test_login.py").findings == []


def test_a_secret_is_found_in_a_file_that_does_not_parse():
    rules = {each.rule for each in review("secrets", f'def broken(:\n  "{GITHUB}"\n').findings}
    assert rules == {"syntax-error", "github-token"}


def test_clean_code_gives_nothing_to_look_at():
    source = dedent(
        '''
        """Counts words."""

        from __future__ import annotations

        from collections import Counter

        __all__ = ["count"]


        def count(text: str, *, least: int = 1) -> dict[str, int]:
            """How often each word occurs, if at least `least` times."""
            counts = Counter(text.split())
            return {word: n for word, n in counts.items() if n >= least}
        '''
    )
    assert [each for one in SPECIALISTS.values() for each in one(source, "count.py").findings] == []


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("def f(:\n", "syntax-error"),
        ("x = 1\n  y = 2\n", "syntax-error"),
        ("x = 1\0\n", "syntax-error"),
        ("x = '\ud800'\n", "syntax-error"),
        ("x = " + "9" * 5_000, "syntax-error"),
        ("(" * 1_000, "syntax-error"),
        ("-" * 50_000 + "1", "too-deep"),
        ("x = " + "+".join(["a"] * 20_000), "too-deep"),
        ("f" + "()" * 5_000, "too-deep"),
    ],
)
def test_what_cannot_be_parsed_is_a_finding_of_every_specialist(source: str, rule: str):
    for specialist in SPECIALISTS:
        findings = review(specialist, source).findings
        assert [each.rule for each in findings] == [rule]
        assert findings[0].severity == "high"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "\n" * 50_000,
        "\x0c\x0cx = 1\n",
        "x = '" + "A" * 500_000 + "'",
        "# " + "-eyJaaaaaaaa" * 20_000,
        "def f(a):\n    '''Args:\n" + " " * 200_000 + "x\n    '''",
        "lambda:" * 900 + "1",
        "x = 0x" + "f" * 20_000 + " is 1",
        "def f():\n" + "    x = open(y)\n" * 1_000,
        "if a:\n    x()\n" + "elif b:\n    x()\n" * 900,
        "class " + "A" * 50_000 + ":\n    def f(): pass\n",
        "x == None\n" * 2_000,
    ],
)
def test_hostile_source_is_reviewed_within_bounds(source: str):
    for specialist in SPECIALISTS:
        result = review(specialist, source)
        assert len(result.findings) <= MAX_FINDINGS
        assert all(len(each.message) <= 300 for each in result.findings)


def test_a_whole_package_is_reviewed_with_the_same_result_each_time():
    files = plan(default_target()).files
    texts = [(read(each), each.relative) for each in files]

    def everything() -> list[FileReview]:
        return [one(text, file) for text, file in texts for one in SPECIALISTS.values()]

    first, again = everything(), everything()
    assert first == again
    assert len(first) == len(files) * len(SPECIALISTS)
    assert sum(len(each.findings) for each in first) > 20
    assert all(each.facts for each in first)
