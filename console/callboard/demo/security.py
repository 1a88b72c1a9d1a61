"""Calls that hand control to whoever controls their input.

A call is recognised by where its name was imported from, so `from pickle import loads as read`
hides nothing. A constant argument is worth a glance; one that was put together, a warning.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from callboard.demo.findings import FileReview, Finding, Severity
from callboard.demo.syntax import Function, Syntax, clip, collect, parse, unparsed

__all__ = ["review"]

_SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_LOADERS = {
    "dill.load",
    "dill.loads",
    "marshal.load",
    "marshal.loads",
    "pickle.Unpickler",
    "pickle.load",
    "pickle.loads",
    "shelve.open",
}
_YAML = {"yaml.load", "yaml.load_all"}
_SAFE_YAML = {"BaseLoader", "CBaseLoader", "CSafeLoader", "SafeLoader"}
_TEMPORARY = {"tempfile.mktemp", "os.tempnam", "os.tmpnam"}
_WEAK_HASHES = {"md4", "md5", "sha1"}
_CLIENTS = {"requests", "httpx", "aiohttp", "urllib3"}
_EXECUTES = {"execute", "executemany", "executescript", "raw", "read_sql", "text"}
_SQL = re.compile(
    r"\s*(?:SELECT\s.{1,400}?\sFROM\s|INSERT\s+INTO\s|UPDATE\s.{1,200}?\sSET\s|DELETE\s+FROM\s|"
    r"DROP\s+(?:TABLE|DATABASE)\s)",
    re.IGNORECASE | re.DOTALL,
)
_UNPREDICTABLE = re.compile(
    r"(?:^|_)(?:token|secret|password|passwd|nonce|salt|otp|session_?id|api_?key|csrf)(?:$|_|s$)",
    re.IGNORECASE,
)


def review(source: str, file: str) -> FileReview:
    """Look at every call, and at TLS settings."""
    syntax = parse(source, file)
    if isinstance(syntax, Finding):
        return unparsed("security", syntax)
    return FileReview(
        file=file,
        specialist="security",
        findings=collect(syntax, [_calls, _sql, _tls]),
        facts={"calls": len(syntax.of(ast.Call))},
    )


def _origins(syntax: Syntax) -> dict[str, str]:
    """The dotted origin of each imported name."""
    names: dict[str, str] = {}
    for plain in syntax.of(ast.Import):
        for each in plain.names:
            top = each.name.partition(".")[0]
            names[each.asname or top] = each.name if each.asname else top
    for chosen in syntax.of(ast.ImportFrom):
        if chosen.module and not chosen.level:
            for each in chosen.names:
                names[each.asname or each.name] = f"{chosen.module}.{each.name}"
    return names


def _dotted(node: ast.expr, origins: dict[str, str]) -> str:
    """What a name or attribute refers to; empty if it hangs on something computed."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join((origins.get(node.id, node.id), *reversed(parts)))


def _calls(syntax: Syntax) -> Iterator[Finding]:
    origins = _origins(syntax)
    own = {each.name for each in syntax.functions}
    for call in syntax.of(ast.Call):
        name = _dotted(call.func, origins)
        if not name or name in own:
            continue
        found = (
            _evaluates(name, call)
            or _shells(name, call)
            or _loads(name, call)
            or _weak(name, call)
            or _predictable(syntax, name, call)
        )
        if found is not None:
            rule, severity, message = found
            yield syntax.finding(rule, severity, call, f"`{clip(name)}` {message}")


_Found = tuple[str, Severity, str]


def _is_constant(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Constant)


def _keyword(call: ast.Call, name: str) -> object:
    """The constant given for a keyword; None if there is none."""
    for each in call.keywords:
        if each.arg == name and isinstance(each.value, ast.Constant):
            return each.value.value
    return None


def _evaluates(name: str, call: ast.Call) -> _Found | None:
    if name not in {"eval", "exec", "builtins.eval", "builtins.exec"}:
        return None
    if _is_constant(call):
        return "dynamic-code", "low", "runs a constant as code; write the code itself"
    return "dynamic-code", "high", "runs text as code; whoever controls the text controls us"


def _shells(name: str, call: ast.Call) -> _Found | None:
    through_shell = name.startswith("subprocess.") and _keyword(call, "shell") is True
    if not through_shell and name not in _SHELLS:
        return None
    if _is_constant(call):
        return "shell-command", "low", "starts a shell for a constant command; pass a list"
    return "shell-command", "high", "starts a shell with a command put together; pass a list"


def _loads(name: str, call: ast.Call) -> _Found | None:
    if name in _LOADERS:
        return "unsafe-load", "medium", "can run code while it loads; trust the source, or use JSON"
    if name in _YAML:
        loaders = [*call.args[1:2], *(each.value for each in call.keywords if each.arg == "Loader")]
        safe = any(_last(each) in _SAFE_YAML for each in loaders)
        if not safe:
            return "unsafe-load", "high", "without a safe loader runs code; use `yaml.safe_load`"
    if name in _TEMPORARY:
        return "insecure-temporary", "medium", "names a file others can create first; use `mkstemp`"
    return None


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _weak(name: str, call: ast.Call) -> _Found | None:
    if not name.startswith("hashlib.") or _keyword(call, "usedforsecurity") is False:
        return None
    algorithm = name.partition(".")[2]
    if algorithm == "new" and _is_constant(call) and isinstance(call.args[0], ast.Constant):
        algorithm = str(call.args[0].value).lower()[:8]
    if algorithm in _WEAK_HASHES:
        return (
            "weak-hash",
            "low",
            "makes a hash that can be forged; use sha256, or say `usedforsecurity=False`",
        )
    return None


def _predictable(syntax: Syntax, name: str, call: ast.Call) -> _Found | None:
    if not name.startswith("random.") or name in {"random.SystemRandom", "random.seed"}:
        return None
    for around in syntax.enclosing(call):
        names: list[str] = []
        if isinstance(around, ast.Assign):
            names = [_last(each) for each in around.targets]
        elif isinstance(around, ast.AnnAssign):
            names = [_last(around.target)]
        elif isinstance(around, Function):
            names = [around.name]
        if any(_UNPREDICTABLE.search(each) for each in names):
            return "weak-random", "medium", "can be predicted; use the `secrets` module"
        if isinstance(around, Function):
            return None
    return None


def _sql(syntax: Syntax) -> Iterator[Finding]:
    """SQL put together from text and values."""
    built: list[ast.expr] = []
    for joined in syntax.of(ast.JoinedStr):
        if any(isinstance(each, ast.FormattedValue) for each in joined.values):
            built.extend([joined] if _starts_sql(joined.values[0]) else [])
    for operation in syntax.of(ast.BinOp):
        if isinstance(operation.op, ast.Mod | ast.Add) and _starts_sql(operation.left):
            constant = isinstance(operation.right, ast.Constant)
            built.extend([] if constant else [operation])
    for call in syntax.of(ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "format":
            built.extend([call] if _starts_sql(call.func.value) else [])
    for each in built:
        parent = syntax.parents.get(each)
        executed = isinstance(parent, ast.Call) and _last(parent.func) in _EXECUTES
        yield syntax.finding(
            "sql-formatting",
            "high" if executed else "medium",
            each,
            "SQL put together from values; pass them as parameters of the query",
        )


def _starts_sql(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _SQL.match(node.value[:1_000]) is not None
    )


def _tls(syntax: Syntax) -> Iterator[Finding]:
    """Certificates that nobody checks."""
    origins = _origins(syntax)
    message = "the server's certificate is not checked: anyone on the way can read and change it"
    for call in syntax.of(ast.Call):
        name = _dotted(call.func, origins)
        unverified = name == "ssl._create_unverified_context" or (
            name.partition(".")[0] in _CLIENTS and _keyword(call, "verify") is False
        )
        if unverified:
            yield syntax.finding("unverified-tls", "high", call, message)
    for assign in syntax.of(ast.Assign):
        targets = {each.attr for each in assign.targets if isinstance(each, ast.Attribute)}
        off = isinstance(assign.value, ast.Constant) and assign.value.value is False
        if ("check_hostname" in targets and off) or (
            "verify_mode" in targets and _last(assign.value) == "CERT_NONE"
        ):
            yield syntax.finding("unverified-tls", "high", assign, message)
