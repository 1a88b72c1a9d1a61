"""What a poster may say of a task beside its payload, read by the rule that the router reads by.

What is refused here by name would else be stored, and the task would fail with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from callboard_broker.cron import check_cron
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.posts import VersionRange
from callboard_broker.trace import TraceId
from callboard_broker.wire import Cron, Needs, Parent, Post, Retry, Timeouts, decode_post

__all__ = [
    "TaskOptions",
    "check_key",
    "check_priority",
    "check_timeout",
    "check_trace",
    "read_options",
]

_MAX_SECONDS = 30 * 86_400


class TaskOptions(TypedDict, total=False):
    """Keywords of `submit` and of an agent's `spawn`; a record may also be given as a dict.

    retry: what follows an error. timeouts: of the queue, the start, between heartbeats, in total.
    needs: what the agent must be. budgets: further ones that the task draws on, by name.
    units: what an attempt reserves of each unit (`{"tokens": 2000}`). delay: seconds before it may
    start. cron: makes it a schedule, e.g. `*/5 * * * *`; each time makes a task of its own.
    parent: the attempt that spawns it. trace: 32 hexadecimal digits, what it is a part of.
    """

    retry: Retry | Mapping[str, Any] | None
    timeouts: Timeouts | Mapping[str, Any] | None
    needs: Needs | Mapping[str, Any] | None
    budgets: Sequence[str] | None
    units: Mapping[str, float] | None
    delay: float | None
    cron: Cron | Mapping[str, Any] | str | None
    parent: Parent | None
    trace: str | None


_NAMES = TaskOptions.__optional_keys__


def read_options(options: TaskOptions, post: Post) -> Post:
    """The post with these options. Raises `BadInput` that names the field."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - _NAMES):
        raise BadInput(
            unknown[0], f"there is no such option; there are {', '.join(sorted(_NAMES))}"
        )
    if isinstance(given.get("cron"), str):
        given["cron"] = {"expression": given["cron"]}
    _check_versions(given.get("needs"))
    read = decode_post(encode_payload(given, field="options"))
    if read.cron is not None:
        check_cron(read.cron)
    return msgspec.structs.replace(post, **{name: getattr(read, name) for name in given})


def _check_versions(needs: object) -> None:
    """A range in words: what its reader would say, is a pattern."""
    versions = needs.get("version") if isinstance(needs, Mapping) else None
    if isinstance(needs, Needs):
        versions = needs.version
    try:
        if isinstance(versions, str):
            msgspec.convert(versions, VersionRange)
    except msgspec.ValidationError:
        raise BadInput(
            "needs.version", f"{versions!r:.80} is no range of versions, such as '>=1.4,<2'"
        ) from None


def check_key(key: str | None) -> str | None:
    """Return an idempotency key if it may be one."""
    if key is not None and not 1 <= len(key) <= 256:
        raise BadInput("key", "1 to 256 characters")
    return key


def check_trace(trace: str | None) -> str | None:
    """Return the id of a trace if it is one."""
    if trace is None:
        return None
    try:
        return msgspec.convert(trace, TraceId)
    except msgspec.ValidationError:
        raise BadInput("trace", f"{trace!r:.80} is not 32 digits 0-9 a-f, not all 0") from None


def check_priority(priority: int) -> int:
    """Return a priority if it is one."""
    if not isinstance(priority, int) or not 0 <= priority <= 9:
        raise BadInput("priority", f"{priority!r} is not 0 (last) to 9 (first)")
    return priority


def check_timeout(timeout: float | None) -> float | None:
    """Return a number of seconds if a task may have it."""
    if timeout is not None and not 0 < timeout <= _MAX_SECONDS:
        raise BadInput("timeout", f"{timeout!r} is not a number of seconds up to 30 days")
    return timeout
