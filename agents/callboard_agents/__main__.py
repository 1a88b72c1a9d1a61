"""`python -m callboard_agents MODULE...`: one agent host, as a pool starts it.

The server is named by --url, else by CALLBOARD_NATS_URL. With --survey it only says what agents
there are.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import msgspec

from callboard_agents.child_limits import ChildLimits
from callboard_agents.host_process import run_host
from callboard_agents.lifespans import StartFailed
from callboard_agents.loading import load
from callboard_agents.log_options import LogOptions
from callboard_agents.options import HostOptions
from callboard_agents.policy import Policy
from callboard_agents.survey import tell_survey
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput, BoardUnreachable
from callboard_broker.logs import start_logging

FAILED, BAD_INPUT, NO_SERVER = 1, 2, 3
_KINDS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "ChildLimits": msgspec.json.Decoder(ChildLimits).decode,
    "LogOptions": msgspec.json.Decoder(LogOptions).decode,
    "Policy": msgspec.json.Decoder(Policy).decode,
    "tuple[str, ...]": msgspec.json.Decoder(tuple[str, ...]).decode,
    "Endpoint | None": msgspec.json.Decoder(Endpoint | None).decode,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the host; return 0 when drained, 1 if what it needs does not start, 2 for bad input, 3 if
    there is no server."""
    arguments = sys.argv[1:] if arguments is None else arguments
    surveyed = "--survey" in arguments
    parser = argparse.ArgumentParser(prog="python -m callboard_agents", description=__doc__)
    parser.add_argument("modules", nargs="+", metavar="MODULE")
    for option in fields(HostOptions):
        flag = "--" + option.name.replace("_", "-")
        required = option.default is MISSING and option.default_factory is MISSING
        required = required and not surveyed and "CALLBOARD_NATS_URL" not in os.environ
        kind = _KINDS.get(str(option.type), str)
        parser.add_argument(flag, type=kind, required=required, default=argparse.SUPPRESS)
    parser.add_argument("--survey", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--life-fd", type=int)
    url = os.environ.get("CALLBOARD_NATS_URL")
    parser.set_defaults(**({"url": url} if url else {}))
    given = vars(parser.parse_args(arguments))
    modules = given.pop("modules")
    descriptors = {name: given.pop(name) for name in ("ready_fd", "life_fd")}
    del given["survey"]
    log = given.get("log", LogOptions())
    start_logging("host", form=log.format, level=log.level)
    try:
        if surveyed:
            tell_survey(modules)
            return 0
        run_host(load(modules), HostOptions(**given), places=modules, **descriptors)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  what a person reads
        return BAD_INPUT
    except BoardUnreachable as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  what a person reads
        return NO_SERVER
    except StartFailed as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  what a person reads
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
