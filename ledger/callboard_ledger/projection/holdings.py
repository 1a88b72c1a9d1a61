"""Allocations, budgets and figures as rows of a projection, and back.

A figure is a sum: it is added to what is stored, in the transaction that moves the position. A
database refuses a batch that names one row twice, so keys that are the same without NUL are one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from callboard_ledger.allocations import Allocation
from callboard_ledger.budgets import Account
from callboard_ledger.performance import (
    FailureKey,
    FailureTally,
    Performance,
    PerformanceKey,
    Tally,
)
from callboard_ledger.projection.documents import without_nul

__all__ = [
    "account_document",
    "account_of",
    "allocation_document",
    "allocation_of",
    "failure_document",
    "failure_of",
    "failures_of",
    "figure_document",
    "figure_of",
    "figures_of",
]

T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()


def allocation_document(row: Allocation) -> bytes:
    """What an attempt holds."""
    return _present(structs.asdict(row).items())


def allocation_of(columns: Mapping[str, Any]) -> Allocation:
    return _struct(columns, Allocation)


def account_document(row: Account) -> bytes:
    """A budget; `tenant` says whose it is, if it is a tenant's."""
    kind, _, rest = row.key.partition("/")
    tenant = rest.partition("/")[0] if kind == "tenant" else ""
    return _present([("tenant", tenant), *structs.asdict(row).items()])


def account_of(columns: Mapping[str, Any]) -> Account:
    return _struct(columns, Account)


def figure_document(key: PerformanceKey, tally: Tally) -> bytes:
    """What is added to the performance of an hour."""
    return _present([*key._asdict().items(), *structs.asdict(tally).items()])


def figure_of(columns: Mapping[str, Any]) -> tuple[PerformanceKey, Tally]:
    key = PerformanceKey(*(columns[name] for name in PerformanceKey._fields))
    return key, msgspec.convert(_known(columns, Tally), Tally, strict=False, str_keys=True)


def failure_document(key: FailureKey, tally: FailureTally) -> bytes:
    """What is added to a kind of failures."""
    return _present([*key._asdict().items(), *structs.asdict(tally).items()])


def failure_of(columns: Mapping[str, Any]) -> tuple[FailureKey, FailureTally]:
    key = FailureKey(*(columns[name] for name in FailureKey._fields))
    return key, _struct(columns, FailureTally)


def figures_of(added: Performance) -> dict[PerformanceKey, Tally]:
    """What is added to the performance, with names as a database can have them."""
    found: dict[PerformanceKey, Tally] = {}
    for key, tally in added.by_key.items():
        named = PerformanceKey(key.hour, *map(_name, key[1:]))
        if named in found:
            (both := copy.deepcopy(found[named])).add(tally)
            found[named] = both
        else:
            found[named] = tally
    return found


def failures_of(added: Performance) -> dict[FailureKey, FailureTally]:
    """What is added to kinds of failures, likewise."""
    found: dict[FailureKey, FailureTally] = {}
    for key, tally in added.failures.items():
        named = FailureKey(*map(_name, key))
        if named in found:
            (both := copy.deepcopy(found[named])).add(tally)
            found[named] = both
        else:
            found[named] = tally
    return found


def _name(text: str) -> str:
    return text.replace("\0", "") if "\0" in text else text


def _present(fields: Iterable[tuple[str, Any]]) -> bytes:
    found = {name: value for name, value in fields if value is not None}
    return without_nul(_encoder.encode(found))


def _struct(columns: Mapping[str, Any], kind: type[T]) -> T:
    return msgspec.convert(_known(columns, kind), kind)


def _known(columns: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: columns[name] for name in kind.__struct_fields__ if name in columns}
