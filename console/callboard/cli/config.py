"""`callboard config`: what holds, and where each value came from."""

from __future__ import annotations

from callboard.cli.options import Json, Nats, Prefix, new_app
from callboard.cli.screen import Cell, Screen
from callboard.connecting import locate
from callboard_config import describe

__all__ = ["app"]

app = new_app("See the settings.")


@app.callback()
def config() -> None:
    """See the settings, and where each comes from."""


@app.command(
    epilog="callboard config show\n\nCALLBOARD_LEASE__LEASE_SECONDS=5 callboard config show\n\n"
    "Command line > environment > ./config/*.yaml (or CALLBOARD_CONFIG) > defaults."
)
def show(*, nats: Nats = None, prefix: Prefix = None, json: Json = False) -> None:
    """Show every setting in force, and where it comes from. Passwords are masked."""
    screen = Screen(json=json)
    settings = describe(locate(nats, prefix).settings)
    if json:
        screen.document({"settings": [each._asdict() for each in settings]})
        return
    rows: list[list[Cell]] = [
        [each.key, "null" if each.value is None else str(each.value), each.origin]
        for each in settings
    ]
    screen.table(("setting", "value", "from"), rows)
