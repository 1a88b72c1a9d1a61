"""Environment variables: `CALLBOARD_LEASE__LEASE_SECONDS=5` sets `lease.lease_seconds`.

Two underscores stand for the dot, since a key has single ones itself. A name below `CALLBOARD_`
that means nothing is refused: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from callboard_config.errors import SettingsError
from callboard_config.keys import ANY_NAME, at, known_keys, suggestion
from callboard_config.settings import Settings

__all__ = ["CONFIG_VARIABLE", "OTHER_VARIABLES", "variables"]

CONFIG_VARIABLE = "CALLBOARD_CONFIG"
"""Names the directory or file of settings to use instead of `./config/`."""

OTHER_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        "CALLBOARD_DEBUG",
        "CALLBOARD_REQUIRE",
        "CALLBOARD_SLOW",
        "CALLBOARD_SUPABASE_KEY",
        "CALLBOARD_TEST_DATA",
        "CALLBOARD_TEST_NATS_URL",
        "CALLBOARD_TEST_POSTGRES_URL",
    }
)
"""Variables that Callboard and its tests read themselves; they are no settings."""

_PREFIX = "CALLBOARD_"
_SHORT = {
    "CALLBOARD_NATS_URL": ("nats", "url"),
    "CALLBOARD_SUPABASE_URL": ("projection", "supabase_url"),
}

# Kubernetes tells every pod about the services of its namespace; one called `callboard` or
# `callboard-nats` must not keep the pods that use it from starting.
_SERVICE = re.compile(
    r"CALLBOARD_(?!.*__)(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_SERVICE_PORT = re.compile(r"CALLBOARD_(?!.*__)(?:[A-Z0-9_]+_)?PORT")
_SERVICE_URL = re.compile(r"(?:tcp|udp|sctp)://")


def variables(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield (path of the key, text, origin) of each variable that sets something, by name.

    A variable that is empty counts as unset, as shells and compose files mean it.
    """
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith(_PREFIX) or not text or name in OTHER_VARIABLES:
            continue
        if _is_of_a_service(name, text):
            continue
        path = _SHORT.get(name) or tuple(name.removeprefix(_PREFIX).lower().split("__"))
        long = _PREFIX + "__".join(path).upper()
        if name in _SHORT and environ.get(long, "") not in {"", text}:
            raise SettingsError(
                ".".join(path), f"differs from {long}; unset one of them", source=_origin(name)
            )
        if at(Settings, path) is None:
            raise SettingsError(
                name,
                f"there is no such variable; {suggestion(name, _names())}",
                source="environment",
            )
        yield path, text, _origin(name)


def _origin(name: str) -> str:
    return f"environment {name}"


def _is_of_a_service(name: str, text: str) -> bool:
    if _SERVICE.fullmatch(name):
        return True
    return bool(_SERVICE_PORT.fullmatch(name) and _SERVICE_URL.match(text))


def _names() -> list[str]:
    known = [_PREFIX + "__".join(path).upper() for path in known_keys(Settings)]
    return [*_SHORT, *(name for name in known if ANY_NAME.upper() not in name), *OTHER_VARIABLES]
