"""The budgets of stories by profile, and how a project is tested: `caef.yaml` at its top.

The packaged file has every value; what a project's own says is laid over it, field by field. It is
read as the settings are: strictly, and without the surprises of YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from callboard_broker.errors import BadInput
from callboard_config.document import read_document
from callboard_config.errors import SettingsError
from callboard_config.section import Name, Section

__all__ = ["CaefSettings", "Profile", "load_settings"]

FILE = "caef.yaml"

_Seconds = Annotated[float, Field(gt=0, le=86_400, strict=False)]
_Count = Annotated[int, Field(ge=1, le=50)]
_Word = Annotated[str, Field(min_length=1, max_length=1_000)]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("not an absolute path")
    return path


class Profile(Section):
    """What one story may use."""

    max_steps: Annotated[int, Field(ge=1, le=100)]
    """Steps of one iteration's plan; a caller may ask for fewer."""

    iterations: _Count
    """Rounds of Plan, Implement and Test in all, restarts included."""

    restarts: Annotated[int, Field(ge=0, le=20)]
    """New beginnings in a fresh worktree, after an oscillation or a timeout."""

    iteration_seconds: _Seconds
    """For one round; what the author leaves of it is for the tests."""

    test_seconds: _Seconds
    """For pytest, at most."""

    lint_seconds: _Seconds
    """For the linter."""

    max_failures: Annotated[int, Field(ge=1, le=20)]
    """pytest stops after so many failing tests; the next plan speaks of them."""

    whole_suite: bool
    """Whether every test is run; else those that the story and its failures name, if any."""

    verify_paths: list[_Word]
    """What is tested instead, relative to the project; empty: as `whole_suite` says."""


class CaefSettings(Section):
    """The whole file."""

    python: _Word | None
    """The interpreter that has pytest and what the project needs; null: that of Callboard."""

    linter: list[_Word]
    """Its command; looked for beside the interpreter, then on PATH. Empty: none."""

    env: dict[str, str]
    """Variables for tests and linter, which inherit none."""

    read: list[Annotated[str, AfterValidator(_absolute)]]
    """Further absolute paths that tests may read."""

    network: bool
    """Whether tests may open connections."""

    memory_mb: Annotated[float, Field(gt=0, le=1e6, strict=False)]
    """For a whole run of the tests."""

    disk_mb: Annotated[float, Field(gt=0, le=1e6, strict=False)]
    """For the copy of the project, and all that tests write."""

    processes: Annotated[int, Field(ge=4, le=10_000)]
    """With threads."""

    profiles: dict[Name, Profile]
    """`quick` and `full`, and those of the project's own."""

    def profile(self, name: str) -> Profile:
        """The budgets of this name. Raises `BadInput`."""
        if name not in self.profiles:
            there = ", ".join(sorted(self.profiles))
            raise BadInput("profile", f"there is no profile {name!r:.80}; there are {there}")
        return self.profiles[name]


def load_settings(root: Path | None) -> CaefSettings:
    """Those of the project at `root`, over the packaged ones. Raises `BadInput` with the key."""
    own = None if root is None else root / FILE
    try:
        found: dict[str, Any] = read_document(Path(__file__).with_name(FILE), FILE)
        if own is not None and own.is_file():
            _lay_over(found, read_document(own, FILE))
        return CaefSettings.model_validate(found)
    except SettingsError as error:
        raise BadInput(f"{own}", error.reason) from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise BadInput(".".join(map(str, first["loc"])), f"{first['msg']} (in {own})") from error


def _lay_over(under: dict[str, Any], over: dict[str, Any]) -> None:
    """Values of `over` replace; `profiles`, and each of them, are merged."""
    for key, value in over.items():
        known = under.get(key)
        if isinstance(known, dict) and isinstance(value, dict) and key != "env":
            _lay_over(known, value)
        else:
            under[key] = value
