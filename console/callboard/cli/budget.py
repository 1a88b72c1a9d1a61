"""`callboard budget show|set`: how much may run, and how fast, for whom; changed while it runs."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import typer
from msgspec import structs

from callboard.cli.asking import Budgets, ask_budgets, ask_router
from callboard.cli.giving import whoami
from callboard.cli.holding import show_used
from callboard.cli.loop import run
from callboard.cli.options import Follow, Json, Nats, Prefix, Whose, new_app, seconds
from callboard.cli.reaching import reach
from callboard.cli.reading import number, split_pair
from callboard.cli.screen import Cell, Screen
from callboard.cli.watching import watch
from callboard_broker.client import Board
from callboard_broker.errors import BadInput
from callboard_broker.subjects import ALL_TENANTS, check_capability, check_tenant, check_token
from callboard_broker.wire import Limit, Quota

__all__ = ["app", "check_budget", "read_limit"]

app = new_app("See budgets and change them on the running board.")

_KEY = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,62}")
_PER = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FIELDS = ("concurrency", "rate", "burst", "weight", "guaranteed", "waiting")
_NOTHING = ("none", "null")


@app.command(
    epilog="callboard budget show\n\ncallboard budget show tenant/acme\n\n"
    "callboard budget show --json | jq .limits.global.concurrency"
)
def show(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only this one.", show_default=False)
    ] = None,
    *,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show the budgets in force, and how much of each is in use."""
    if key is not None:
        check_budget(key)

    async def work() -> None:
        async with reach(nats, prefix, name="callboard budget") as board:
            budgets = await ask_budgets(board)
        _show(Screen(json=json), budgets, key)

    run(work())


@app.command(
    epilog="callboard budget used\n\ncallboard budget used key/provider:openai\n\n"
    "callboard budget used --json | jq '.items[] | {key, used}'\n\n"
    "By the ledger, out of the journal: it answers also while no router is active. most: attempts "
    "at once, at most, since the budget has a limit. exceeded: dispatches beyond it; there are "
    "none. reserved: units of attempts that run. used: units of those that have ended, as they "
    "told them, or as they were reserved.",
)
def used(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only this one.", show_default=False)
    ] = None,
    *,
    follow: Follow = False,
    tenant: Whose = ALL_TENANTS,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show what attempts have taken of each budget: places, and units reserved and used."""
    if key is not None:
        check_budget(key)

    async def work() -> None:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard budget") as board:

            async def tell() -> bool:
                await show_used(screen, board, key, tenant)
                return True

            await watch(screen, tell, follow=follow)

    run(work())


@app.command(
    "set",
    epilog="callboard budget set global concurrency=40\n\n"
    "callboard budget set tenant/acme concurrency=20 weight=2 guaranteed=2 waiting=1000\n\n"
    "callboard budget set key/provider:openai rate=120/m burst=10 units.tokens=90000/60\n\n"
    "callboard budget set tenant/acme/review.python concurrency=none\n\n"
    "callboard budget set tenant/acme --unset\n\n"
    "Keys: global, tenant (each that has none of its own), tenant/NAME, capability/NAME, "
    "tenant/NAME/CAPABILITY, key/NAME. A field that is not named stays as it is; what the settings "
    "say holds again with FIELD=none, or with --unset for the whole key. units.NAME=N/SECONDS "
    "refills steadily, units.NAME=N is all there is.",
)
def set_budget(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Such as global or tenant/acme.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE...",
            help="concurrency, rate, burst, weight, guaranteed, waiting, units.NAME.",
            show_default=False,
        ),
    ] = None,
    *,
    unset: Annotated[
        bool, typer.Option("--unset", help="Take back what was set on the running board.")
    ] = False,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Change a budget on the running board; the journal keeps it, whoever takes over."""
    check_budget(key)
    if unset == bool(fields):
        raise BadInput("fields", "name what changes (concurrency=5), or --unset, and not both")
    read_limit(Limit(), fields or ())

    async def work() -> None:
        async with reach(nats, prefix, name="callboard budget") as board:
            before = (await ask_budgets(board)).changed.get(key, Limit())
            limit = Limit() if unset else read_limit(before, fields or ())
            if _less(limit, before):  # the router adds to what was set; so all is taken back first
                await _set(board, key, None)
            if limit != Limit():
                await _set(board, key, limit)
            _show(Screen(json=json), await ask_budgets(board), key)

    run(work())


async def _set(board: Board, key: str, limit: Limit | None) -> None:
    question = {"set": {key: limit}, "by": whoami()}
    await ask_router(board, "budget", question, ALL_TENANTS)


def _less(limit: Limit, before: Limit) -> bool:
    """Whether something that was set is to be taken back."""
    lost = any(
        getattr(limit, name) is None and getattr(before, name) is not None for name in _FIELDS
    )
    return lost or not before.units.keys() <= limit.units.keys()


def check_budget(key: str) -> str:
    """Return `key` if a budget may have this name. Raises `BadInput`."""
    kind, _, rest = key.partition("/")
    if key in ("global", "tenant"):
        return key
    if kind == "capability":
        check_capability(rest, "key")
    elif kind == "tenant":
        tenant, slash, capability = rest.partition("/")
        check_tenant(tenant, "key")
        if slash:
            check_capability(capability, "key")
    elif kind != "key" or not _KEY.fullmatch(rest):
        raise BadInput(
            "key",
            f"{key!r} is no budget; there are global, tenant, tenant/NAME, capability/NAME, "
            "tenant/NAME/CAPABILITY and key/NAME",
        )
    return key


def read_limit(before: Limit, fields: list[str] | tuple[str, ...]) -> Limit:
    """`before` with `concurrency=5`, `rate=120/m`, `units.tokens=1000/60`, ... changed.

    Raises `BadInput` that names the field.
    """
    found: dict[str, Any] = msgspec.to_builtins(before)
    units: dict[str, Any] = found.setdefault("units", {})
    for text in fields:
        name, value = split_pair(text, "fields", "FIELD=VALUE, such as concurrency=5")
        where = units if name.startswith("units.") else found
        place = name.removeprefix("units.")
        if where is found and name not in _FIELDS:
            raise BadInput(name, f"is none of {', '.join(_FIELDS)}, units.NAME")
        if value.lower() in _NOTHING:
            where.pop(place, None)
        elif where is units:
            units[check_token(place, "units")] = _quota(name, value)
        else:
            found[name] = _rate(value) if name == "rate" else number(value, name)
    try:
        return msgspec.convert(found, Limit)
    except msgspec.ValidationError as error:
        said, _, field = str(error).partition(" - at `$.")
        raise BadInput(field.rstrip("`") or "fields", said) from error


def _rate(text: str) -> float:
    figure, slash, unit = text.partition("/")
    if slash and unit not in _PER:
        raise BadInput("rate", f"{text!r} is not N, N/s, N/m, N/h or N/d")
    return number(figure, "rate") / (_PER[unit] if slash else 1)


def _quota(name: str, text: str) -> dict[str, float]:
    figure, slash, per = text.partition("/")
    quota = {"limit": number(figure, name)}
    if slash:
        try:
            quota["per"] = seconds(per)
        except typer.BadParameter as error:
            raise BadInput(name, f"{text!r} is not N or N/SECONDS") from error
    return quota


def _show(screen: Screen, budgets: Budgets, key: str | None) -> None:
    tenants = (used for used in budgets.in_use if used.count("/") == 1 and used[:7] == "tenant/")
    keys = sorted({*budgets.limits, *tenants}, key=_order) if key is None else [key]
    if screen.json:
        shown = budgets
        if key is not None:
            shown = Budgets(
                limits=_only(budgets.limits, key),
                changed=_only(budgets.changed, key),
                in_use=_only(budgets.in_use, key),
                waiting=_only(budgets.waiting, key.removeprefix("tenant/")),
            )
        screen.document(shown)
        return
    rows = [_row(budgets, name) for name in keys]
    used = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    screen.table([_COLUMNS[place] for place in used], [[row[p] for p in used] for row in rows])


def _only(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {key: found[key]} if key in found else {}


def _order(key: str) -> tuple[int, str]:
    kinds = ("global", "tenant", "capability", "key", "flow")
    kind = key.partition("/")[0]
    return kinds.index(kind) if kind in kinds else len(kinds), key


_COLUMNS = (
    "budget",
    "in use#",
    "at once#",
    "rate#",
    "burst#",
    "units",
    "weight#",
    "guaranteed#",
    "waiting#",
    "may wait#",
    "set here",
)


def _row(budgets: Budgets, key: str) -> list[Cell]:
    kind, _, rest = key.partition("/")
    limit = budgets.limits.get(key, Limit())
    if kind == "tenant" and rest and "/" not in rest:
        limit = _over(limit, budgets.limits.get("tenant", Limit()))
    return [
        key,
        str(budgets.in_use.get(key, 0)),
        _figure(limit.concurrency),
        "" if limit.rate is None else f"{limit.rate:g}/s",
        _figure(limit.burst),
        ", ".join(f"{name} {_told(quota)}" for name, quota in sorted(limit.units.items())),
        _figure(limit.weight),
        _figure(limit.guaranteed),
        _figure(budgets.waiting.get(rest) if kind == "tenant" else None),
        _figure(limit.waiting),
        "yes" if key in budgets.changed else "",
    ]


def _over(limit: Limit, default: Limit) -> Limit:
    """What a tenant's entry does not say is as for each tenant."""
    said = {name: getattr(limit, name) for name in _FIELDS}
    said = {name: each for name, each in said.items() if each is not None}
    return structs.replace(default, units={**default.units, **limit.units}, **said)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _told(quota: Quota) -> str:
    every = "" if quota.per is None else f"/{quota.per:g} s"
    return f"{quota.limit:g}{every}"
