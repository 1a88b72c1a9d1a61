"""A command in its child process: what it is given, what becomes of it, and what it cannot do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from callboard_agents import Limits
from callboard_broker.errors import BadInput
from tests.heard import Heard
from tests.one_command import MISSING, begin, failed, measured, needs, opened, run
from tests.open_folders import PYTHON, open_folder, write_script

pytestmark = pytest.mark.timeout(60)

FORGE = r"""
import ctypes, os, struct, sys
word = b'"forged"'
frame = struct.pack("!IBI", len(word), 7, 0) + word
for number in range(3, 64):
    try:
        os.write(number, frame)
    except OSError:
        pass
    else:
        print("written to", number)
stage = os.getppid()
for path in (f"/proc/{stage}/fd/3", f"/proc/{stage}/mem", f"/proc/{stage}/environ"):
    try:
        open(path, "r+b", buffering=0)
    except OSError:
        pass
    else:
        print("opened", path)
libc = ctypes.CDLL(None, use_errno=True)
found = os.pidfd_open(stage)
for name, number in (("pidfd_getfd", 438), ("ptrace", 101)):
    first = found if name == "pidfd_getfd" else 16
    if libc.syscall(number, first, 3 if name == "pidfd_getfd" else stage, 0, 0) >= 0:
        print(name)
sys.stdout.buffer.write(frame)
sys.stderr.buffer.write(frame)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as found:
        yield found


async def test_a_bash_script_reads_json_and_prints_json(folder: Path):
    write_script(folder, "up.sh", '#!/usr/bin/env bash\nread -r line; echo "${line^^}"\n')
    ending = await run("./up.sh", folder=folder, payload={"a": ["b"]})
    assert ending.result == b'{"A": ["B"]}'
    assert ending.usage.cpu_s > 0
    assert ending.usage.memory_mb > 0


async def test_what_it_prints_may_be_text(folder: Path):
    ending = await run("printf", r"one\ntwo \377", folder=folder, output="text")
    assert json.loads(ending.result or b"") == "one\ntwo \N{REPLACEMENT CHARACTER}"


async def test_a_long_payload_passes_through(folder: Path):
    ending = await run("cat", folder=folder, payload=["x" * 3_000_000])
    assert len(ending.result or b"") == 3_000_004


async def test_its_environment_is_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    ending = await run("env", folder=folder, output="text", env={"MODE": "fast"})
    found = dict(line.split("=", 1) for line in json.loads(ending.result or b"").splitlines())
    home = found.pop("HOME")
    assert found == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": home,
        "MODE": "fast",
        "CALLBOARD_TASK": "12",
        "CALLBOARD_ATTEMPT": "2",
        "CALLBOARD_TENANT": "acme",
        "CALLBOARD_CAPABILITY": "it",
        "CALLBOARD_IDEMPOTENCY_KEY": "acme/12",
        "CALLBOARD_SECONDS": "30",
    }


async def test_it_works_in_a_fresh_folder_that_is_emptied_behind_it(folder: Path):
    words = ("sh", "-c", "ls -A; pwd >&2; echo left > file; mkdir -p a/b")
    async with opened(*words, folder=folder, output="text") as nursery:
        for _ in range(3):
            heard = Heard()
            await begin(nursery, heard)
            assert json.loads((await heard.end).result or b"") == ""


async def test_standard_error_is_logged_and_tells_progress(folder: Path):
    text = 'echo begun >&2; echo \'::progress {"at": 1}\' >&2; echo "::progress oops" >&2; echo 1'
    async with opened("sh", "-c", text, folder=folder) as nursery:
        heard = Heard()
        await begin(nursery, heard)
        assert (await heard.end).result == b"1"
    assert [what for what in heard.words if what[0] != "heartbeat"] == [
        ("log", {"text": "begun", "logger": "stderr"}),
        ("progress", {"at": 1}),
        ("log", {"text": "::progress oops", "logger": "stderr"}),
    ]


async def test_an_exit_code_is_a_failure_with_the_end_of_standard_error(folder: Path):
    ending = await run("sh", "-c", "echo 1; echo a >&2; echo no space >&2; exit 3", folder=folder)
    assert failed(ending) == ("CommandFailed", "sh exited with 3: no space")
    assert ending.failure is not None
    assert ending.failure.trace == "a\nno space\n"
    ending = await run("sh", "-c", "kill -TERM $$", folder=folder)
    assert failed(ending) == ("CommandFailed", "sh died of SIGTERM")


async def test_a_result_that_is_no_json_is_a_bad_result(folder: Path):
    said: list[tuple[bytes, str]] = [
        (b"", "it printed nothing"),
        (b"hello", "is no JSON"),
        (b"1 2", "is no JSON"),
        (b"[" * 100_000, "nested"),
        (b'"\xff"', "is no JSON"),
    ]
    for number, (printed, _) in enumerate(said):
        (folder / f"{number}.said").write_bytes(printed)
    async with opened("sh", "-c", 'cat "$0/$(cat).said"', "./", folder=folder) as nursery:
        for number, (_, reason) in enumerate(said):
            heard = Heard()
            await begin(nursery, heard, number)
            kind, message = failed(await heard.end)
            assert (kind, reason in message) == ("BadResult", True), message


async def test_what_it_prints_is_bounded_while_it_prints(folder: Path):
    ending = await run("yes", folder=folder, limits=Limits(output_mb=2), output="text")
    kind, message = failed(ending)
    assert kind == "OutputExceeded"
    assert 2 <= measured(r"it had printed ([\d.]+) MiB, of 2 that are granted", message) < 3


async def test_it_hears_its_cancellation_while_it_floods_standard_error(folder: Path):
    async with opened("sh", "-c", "exec yes flood >&2", folder=folder) as nursery:
        heard = Heard(until=b"flood")
        child = await begin(nursery, heard)
        async with asyncio.timeout(20):
            await heard.reached.wait()
            child.cancel()
            assert failed(await heard.end) == ("CommandFailed", "sh died of SIGTERM: flood")
        assert len(heard.told_of) < 20_100  # of millions: what a child may say is bounded


async def test_it_hears_a_cancellation_that_comes_with_its_task(folder: Path):
    async with opened("sleep", "60", folder=folder) as nursery:
        heard = Heard()
        child = await begin(nursery, heard)
        child.cancel()
        async with asyncio.timeout(20):
            assert failed(await heard.end) == ("CommandFailed", "sleep died of SIGTERM")


async def test_sigterm_reaches_all_of_it_and_lets_it_clean_up(folder: Path):
    text = "trap 'echo bye >&2; exit 7' TERM; (trap 'echo child >&2; exit' TERM; sleep 60 & wait) &"
    text += "echo ready >&2; wait; wait"
    async with opened("bash", "-c", text, folder=folder) as nursery:
        heard = Heard(until=b"ready")
        child = await begin(nursery, heard)
        async with asyncio.timeout(20):
            await heard.reached.wait()
            child.cancel()
            assert failed(await heard.end)[0] == "CommandFailed"
        assert ("log", {"text": "bye", "logger": "stderr"}) in heard.words


async def test_nothing_that_it_started_is_left(folder: Path):
    mark = f"9{os.getpid()}"
    text = f"trap '' TERM; for n in 1 2 3; do (trap '' TERM; nohup sleep {mark} & wait) & done; "
    text += "echo ready >&2; wait; sleep 60"

    def sleepers() -> list[psutil.Process]:
        return [
            each
            for each in psutil.process_iter(["cmdline"])
            if mark in (each.info["cmdline"] or ())
        ]

    for ends in (True, False):
        script = text if not ends else text.replace("wait; sleep 60", "exit 0")
        async with opened("bash", "-c", script, folder=folder, output="text") as nursery:
            heard = Heard(until=b"ready")
            child = await begin(nursery, heard)
            async with asyncio.timeout(20):
                await heard.reached.wait()
                if not ends:
                    child.cancel()
                    child.kill()
                ending = await heard.end
            assert (ending.failure is None) == ends, ending
            gone, alive = psutil.wait_procs(sleepers(), timeout=5)
            assert not alive, gone


async def test_it_ends_also_when_its_host_and_all_around_it_are_killed(folder: Path):
    needs("cgroup")
    mark = f"8{os.getpid()}"
    text = f"sleep {mark} & echo ready >&2; wait"

    def alive() -> list[psutil.Process]:
        found = psutil.process_iter(["cmdline"])
        return [each for each in found if mark in " ".join(each.info["cmdline"] or ())]

    async with opened("bash", "-c", text, folder=folder) as nursery:
        heard = Heard(until=b"ready")
        child = await begin(nursery, heard)
        async with asyncio.timeout(20):
            await heard.reached.wait()
            bash, sleep = sorted(alive(), key=lambda process: process.create_time())
            zygote = psutil.Process(child.pid).parents()[1]
            zygote.kill()
            assert failed(await heard.end)[0] == "Crashed"
        assert not psutil.wait_procs([bash], timeout=5)[1], "the command dies with its stage"
    async with opened("true", folder=folder, output="text"):
        assert not psutil.wait_procs([sleep], timeout=5)[1], "the rest, when a host starts"


async def test_it_cannot_forge_what_its_parent_says(folder: Path):
    needs("seccomp", "landlock")
    (folder / "forge.py").write_text(FORGE)
    async with opened(PYTHON, "./forge.py", folder=folder, output="text") as nursery:
        heard = Heard()
        await begin(nursery, heard)
        ending = await heard.end
    assert ending.failure is None, ending
    assert json.loads(ending.result or b"") == '\0\0\0\x08\x07\0\0\0\0"forged"'
    assert {kind for kind, _ in heard.told_of} <= {"log", "heartbeat"}


async def test_what_the_layers_deny_to_a_command(folder: Path):
    (folder / "secret").write_text("secret")
    tries = [
        ("landlock", "cat /etc/passwd", "Permission denied"),
        ("landlock", "ls /tmp", "Permission denied"),
        ("landlock", "echo x > /tmp/written-by-a-command", "Permission denied"),
        ("landlock", f"cat {folder}/secret", "Permission denied"),
        ("seccomp", "setsid sleep 1", "setsid"),
        ("seccomp", "exec 3<>/dev/tcp/127.0.0.1/4222", "socket: Operation not permitted"),
        ("seccomp", "kill -9 -1", "Operation not permitted"),
        ("uid", "chown 0 .", "Operation not permitted"),
    ]
    cases = "\n".join(f"{number}) {text} ;;" for number, (_, text, _) in enumerate(tries))
    write_script(folder, "try.sh", f"case $(cat) in\n{cases}\nesac\n")
    async with opened("bash", "./try.sh", folder=folder, output="text") as nursery:
        for number, (layer, text, said) in enumerate(tries):
            if layer in MISSING:
                continue
            heard = Heard()
            await begin(nursery, heard, number)
            ending = await heard.end
            assert ending.failure is not None, (text, ending)
            assert said in (ending.failure.trace or ""), text


async def test_what_is_declared_may_be_read(folder: Path):
    (folder / "suite").mkdir()
    (folder / "suite" / "word").write_text('"read"')
    assert (await run("cat", "./suite/word", folder=folder)).result == b'"read"'
    text = f"cat {folder}/suite/word"
    limits = Limits(read=[str(folder / "suite")])
    assert (await run("sh", "-c", text, folder=folder, limits=limits)).result == b'"read"'


async def test_a_command_where_its_user_cannot_go_is_refused_before_any_task(folder: Path):
    needs("uid")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    write_script(closed, "run.sh", "#!/bin/sh\n")
    with pytest.raises(BadInput, match=rf"it\.command: .*{closed} is closed to others"):
        async with opened("./run.sh", folder=closed):
            pass
