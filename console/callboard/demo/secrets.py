"""Credentials left in the text: well-known tokens, keys, and strings given to telling names.

Token shapes are looked for in the raw text, comments too, so a file that does not parse is searched
as well. No message ever holds a secret: `mask` says of what kind it is and how long.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from math import log2

from callboard.demo.findings import FileReview, Finding, Severity
from callboard.demo.syntax import (
    MAX_FINDINGS,
    Syntax,
    clip,
    collect,
    is_test_file,
    parse,
    unparsed,
)

__all__ = ["mask", "review"]

_SHAPES: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("aws-access-key", "AWS access key id", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    (
        "github-token",
        "GitHub token",
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255})"),
    ),
    ("slack-token", "Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}")),
    ("google-api-key", "Google API key", re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    (
        "api-key",
        "API key",
        re.compile(r"\bsk(?:-(?:proj|ant|live|test)|_live)?[-_][A-Za-z0-9_-]{24,250}"),
    ),
    (
        "json-web-token",
        "JSON web token",
        re.compile(r"\beyJ[A-Za-z0-9_-]{8,400}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{8,1000}"),
    ),
    (
        "private-key",
        "private key",
        # The header alone is what code compares with; a key has a body of Base64 after it.
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY-----"
            r"(?:\\r|\\n|[\s\"'+(),#]){1,80}[A-Za-z0-9+/=]{16,8000}"
        ),
    ),
)
_URL_PASSWORD = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,15}://[^\s:/@\"'`{}<>%]{1,64}:([^\s:/@\"'`]{3,128})@[\w\[]"
)
_TELLING = re.compile(
    r"(?:^|_)(?:passwords?|passwd|pwd|passphrase|secrets?|secret_?key|api_?keys?|access_?keys?|"
    r"auth_?keys?|private_?keys?|encryption_?key|signing_?key|(?:auth|access|api|bearer|refresh)"
    r"_?token|token|credentials?)$",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"pass(?:word|wd|phrase)|pwd", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLACEHOLDER = re.compile(
    r"example|changeme|change_me|placeholder|dummy|fake|sample|redacted|your[-_ ]?|insert|todo|"
    r"xxx|\*\*\*|\.\.\.|^test|^none$|^null$|^true$|^false$|^foo|^bar|^pass(?:word|wd)?\d{0,3}$|"
    r"^secret$|^token$|^user|^hunter2$|^abc|^123|deadbeef|0123456789|[<{$%]",
    re.IGNORECASE,
)
_MIN_TOKEN = 16
_MIN_PASSWORD = 6
_MAX_CANDIDATE = 512
_MIN_ENTROPY = 3.3  # bits per character: English words joined together stay below, keys above
_LOW_ENTROPY = 2.5
_IDENTIFIER = re.compile(r"[A-Za-z]+(?:[-_.:/ ][A-Za-z]+)*")


def review(source: str, file: str) -> FileReview:
    """Search the text for token shapes, and the code for strings with telling names."""
    shaped = list(islice(_shaped(source, file), MAX_FINDINGS))
    syntax = parse(source, file)
    if isinstance(syntax, Finding):
        review = unparsed("secrets", syntax)
        return FileReview(
            file=file,
            specialist="secrets",
            findings=sorted([*review.findings, *shaped], key=lambda each: (each.line, each.rule)),
            facts={"tokens": len(shaped)},
        )
    known = {each.line for each in shaped}
    strings = [each for each in syntax.of(ast.Constant) if isinstance(each.value, str)]
    return FileReview(
        file=file,
        specialist="secrets",
        findings=collect(
            syntax,
            [
                lambda _: iter(shaped),
                # A token in a telling variable is one secret, not two.
                lambda each: (found for found in _named(each) if found.line not in known),
            ],
        ),
        facts={"strings": len(strings), "tokens": len(shaped)},
    )


def mask(text: str) -> str:
    """`text` with every known token and every password in a URL replaced by what it is."""
    for _, kind, pattern in _SHAPES:
        text = pattern.sub(f"[{kind}]", text)
    return _URL_PASSWORD.sub(lambda found: found[0].replace(found[1], "[password]"), text)


def _shaped(source: str, file: str) -> Iterator[Finding]:
    severity: Severity = "low" if is_test_file(file) else "high"
    starts = [0, *(found.end() for found in re.finditer("\n", source))]

    def finding(rule: str, kind: str, at: int, length: int) -> Finding:
        message = f"{kind} in the text ({length} characters); revoke it and read it at run time"
        return Finding(rule, severity, file, bisect_right(starts, at), message)

    for rule, kind, pattern in _SHAPES:
        for found in pattern.finditer(source):
            if _is_random(found[0], _LOW_ENTROPY):
                yield finding(rule, kind, found.start(), len(found[0]))
    for found in _URL_PASSWORD.finditer(source):
        if not _PLACEHOLDER.search(found[1]):
            yield finding("password-in-url", "password of a URL", found.start(1), len(found[1]))


def _named(syntax: Syntax) -> Iterator[Finding]:
    """Strings assigned to, passed as, compared with or defaulted to a credential's name."""
    if is_test_file(syntax.file):
        return
    for name, value in _bindings(syntax):
        telling = _CAMEL.sub("_", name).rpartition(".")[2]
        if not _TELLING.search(telling) or not isinstance(value, ast.Constant):
            continue
        text = value.value
        if not isinstance(text, str) or not _MIN_PASSWORD <= len(text) <= _MAX_CANDIDATE:
            continue
        if any(each.isspace() for each in text) or _PLACEHOLDER.search(text):
            continue
        shown = f"`{clip(name)}` is given a string of {len(text)} characters"
        if len(text) >= _MIN_TOKEN and _is_random(text, _MIN_ENTROPY):
            yield syntax.finding(
                "hard-coded-secret",
                "high",
                value,
                f"{shown} that looks random; read it from the environment or a secret store",
            )
        elif _PASSWORD.search(telling) and not _says_itself(telling, text):
            yield syntax.finding(
                "hard-coded-password",
                "medium",
                value,
                f"{shown}; if it is a password, read it from the environment or a secret store",
            )


def _bindings(syntax: Syntax) -> Iterator[tuple[str, ast.expr | None]]:
    for assign in syntax.of(ast.Assign):
        for target in assign.targets:
            yield _target(target), assign.value
    for annotated in syntax.of(ast.AnnAssign):
        yield _target(annotated.target), annotated.value
    for keyword in syntax.of(ast.keyword):
        yield keyword.arg or "", keyword.value
    for spec in syntax.of(ast.arguments):
        plain = [*spec.posonlyargs, *spec.args]
        first = len(plain) - len(spec.defaults)
        for argument, default in zip(plain[first:], spec.defaults, strict=True):
            yield argument.arg, default
        for argument, given in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            yield argument.arg, given
    for mapping in syntax.of(ast.Dict):
        for key, value in zip(mapping.keys, mapping.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield (key.value if key.value.isidentifier() else ""), value
    for compare in syntax.of(ast.Compare):
        if len(compare.ops) == 1 and isinstance(compare.ops[0], ast.Eq):
            yield _target(compare.left), compare.comparators[0]


def _target(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value if isinstance(node.slice.value, str) else ""
    return node.id if isinstance(node, ast.Name) else ""


def _is_random(text: str, entropy: float) -> bool:
    """Whether the characters are as mixed as a key's, and it is no placeholder."""
    if _PLACEHOLDER.search(text) or (entropy == _MIN_ENTROPY and _IDENTIFIER.fullmatch(text)):
        return False
    counts = Counter(text)
    return -sum(n / len(text) * log2(n / len(text)) for n in counts.values()) >= entropy


def _says_itself(name: str, text: str) -> bool:
    """`PASSWORD_KEY = "password_key"`: the name of a field or header, not its content."""
    bare = re.sub(r"[^a-z]", "", text.lower())
    wanted = re.sub(r"[^a-z]", "", name.lower())
    return bare in wanted or wanted in bare or bool(_PASSWORD.search(text))
