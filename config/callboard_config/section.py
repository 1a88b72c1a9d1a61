"""What every section of the settings shares: it is frozen, complete and strict.

Strict means that nothing is guessed: `"4222"` is no number and `true` is no 1. No field has a
default here: the packaged YAML files are the only place where a default stands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from callboard_config.reserved import RESERVED_TENANTS

__all__ = [
    "DISAGREEMENT",
    "Name",
    "Section",
    "StorePath",
    "TenantName",
    "disagreement",
]

DISAGREEMENT = "disagreement"


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an address may hold a password
    )


def _check_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", value):
        raise ValueError("not a name: use 1-63 of a-z 0-9 _ - and begin with a-z or 0-9")
    return value


def _check_tenant(value: str) -> str:
    if value in RESERVED_TENANTS:
        raise ValueError(f"{value!r} is reserved; no tenant has this name")
    return value


def _check_path(value: Path | None) -> Path | None:
    if value is None:
        return None
    if value == Path() or "\0" in str(value):
        raise ValueError("not a directory's path; write null for the default place")
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError("the home directory behind ~ is not known; write it out") from error


Name = Annotated[str, AfterValidator(_check_name)]
"""One token of a subject."""

TenantName = Annotated[Name, AfterValidator(_check_tenant)]

StorePath = Annotated[Path | None, Field(strict=False), AfterValidator(_check_path)]
"""A path; `~` is expanded, a relative one counts from the working directory."""


def disagreement(reason: str, *keys: str) -> PydanticCustomError:
    """Return the error of settings that are fine alone but not together.

    keys: dotted, relative to the section whose validator raises it.
    """
    return PydanticCustomError(DISAGREEMENT, "{reason}", {"reason": reason, "keys": keys})
