"""A command's parent: this child, which has entered every layer, starts it and speaks for it.

The command inherits the layers and three pipes. The channel to the host stays here, closed on exec,
and no process of the command can look into this one; so whatever it writes is data and never a
frame. Its output is bounded while it comes. When the program itself has ended, what it has started
counts no more, and is killed with this process.
"""

from __future__ import annotations

import functools
import os
import resource
import selectors
import signal
import subprocess
import sys
from typing import IO

import msgspec

from callboard_agents.command import Command
from callboard_agents.failures import bad_result
from callboard_agents.results import encode_result
from callboard_agents.sandbox.breaches import breach_of_end
from callboard_agents.sandbox.cells import Cell
from callboard_agents.sandbox.grant import CellPlan, Grant, TaskHeader
from callboard_agents.sandbox.remote import Remote
from callboard_agents.sandbox.rlimits import MIB
from callboard_agents.sandbox.seccomp import Filter, filter_for_child
from callboard_agents.sandbox.syscalls import die_with_parent, not_traceable
from callboard_broker.bounds import check_document
from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure

__all__ = ["run_command"]

_READ = 64 * 1024
_LEFT = 1024 * 1024  # as much as a pipe may hold when its writer has ended
_MAX_LINE = 64 * 1024
_TAIL = 4_000
_MAX_SAID = 300
_PROGRESS = b"::progress "
_ALONE = 2  # processes: the command, and this one

_skim = msgspec.json.Decoder(msgspec.Raw).decode


def run_command(
    plan: CellPlan,
    header: TaskHeader,
    payload: bytes,
    remote: Remote,
    *,
    cell: Cell,
    filtered: bool,
) -> tuple[bytes | None, Failure | None]:
    """Run the plan's command to its end; return the JSON of its result, or why it has none.

    cell: where this process lives. filtered: it has filters of system calls.
    Raises `OSError` where a limit does not let it be started.
    """
    command = plan.command
    if command is None:
        raise ValueError(f"{plan.capability} is no command")
    not_traceable()
    os.set_inheritable(remote.fileno(), False)
    signal.signal(signal.SIGTERM, _go_on)  # not ignored: that would be inherited
    memory = None if cell.group is not None else plan.grant.memory_mb
    alone = filtered and plan.grant.processes == _ALONE
    calls = _calls(plan, cell) if alone else None
    prepare = functools.partial(_prepare, os.getpid(), memory, calls)
    try:
        process = subprocess.Popen(
            command.words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(command, header),
            preexec_fn=prepare,  # noqa: PLW1509  there is one thread
        )
    except (FileNotFoundError, PermissionError) as error:
        why = f"{command.words[0]} cannot be started: {error.strerror}; what it needs must be "
        return None, Failure("CommandFailed", why + "readable for everyone, and in limits.read")
    stage = _Stage(process, payload, remote, int(plan.grant.output_mb * MIB))
    if not stage.run():
        megabytes = len(stage.output) / MIB
        why = f"it had printed {megabytes:.1f} MiB, of {plan.grant.output_mb:g} that are granted"
        return None, Failure("OutputExceeded", why)
    failure = _failure(command, process.wait(), plan.grant, cell, stage.tail)
    if failure is not None:
        return None, failure
    return _result(command, bytes(stage.output))


def _calls(plan: CellPlan, cell: Cell) -> Filter:
    own_user = cell.uid is not None  # one that has not might leave the group
    return filter_for_child(
        alone=True,
        network=plan.network,
        own_user=own_user,
        counted=own_user and cell.group is not None,
    )


def _go_on(_number: int, _frame: object) -> None:
    """SIGTERM to the group is for the command."""


def _prepare(stage: int, memory: float | None, calls: Filter | None) -> None:
    """What the command's process does before it is the command. stage: its parent. memory: MiB."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(stage)
    if calls is not None:
        calls.enter(os.getpid())
    if memory is not None:  # at last: it may be less than this process has until it executes
        most = int(memory * MIB)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _environment(command: Command, header: TaskHeader) -> dict[str, str]:
    """This process's own has been cleared: it is a path, a language, and the folder."""
    return {
        **os.environ,
        **command.env,
        "CALLBOARD_TASK": header.task,
        "CALLBOARD_ATTEMPT": str(header.attempt),
        "CALLBOARD_TENANT": header.tenant,
        "CALLBOARD_CAPABILITY": header.capability,
        "CALLBOARD_IDEMPOTENCY_KEY": f"{header.tenant}/{header.task}",
        "CALLBOARD_SECONDS": f"{header.seconds:g}",
    }


class _Stage:
    """The pipes of one command. most: bytes of output. tail: of what it said to standard error."""

    def __init__(
        self, process: subprocess.Popen[bytes], payload: bytes, remote: Remote, most: int
    ) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a command without its pipes")
        self._pid = process.pid
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._remote = remote
        self._most = most
        self._unwritten = memoryview(payload)
        self._lines = _Lines(remote)
        self._selector = selectors.PollSelector()
        self._told = False
        self.output = bytearray()

    @property
    def tail(self) -> bytes:
        """The end of what it wrote to standard error."""
        return bytes(self._lines.tail)

    def run(self) -> bool:
        """Feed it, and read it, until it has ended; False: it has said too much."""
        ended = os.pidfd_open(self._pid)
        reading = {self._stdout: self._read_output, self._stderr: self._read_errors}
        selector = self._selector
        os.set_blocking(self._stdin.fileno(), False)
        selector.register(self._stdin, selectors.EVENT_WRITE, self._write)
        for pipe, read in reading.items():
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, read)
        selector.register(self._remote, selectors.EVENT_READ, self._hear)
        selector.register(ended, selectors.EVENT_READ)
        over = False
        self._hear()
        while not over:
            for key, _ in selector.select():
                if key.fileobj == ended:
                    over = True
                else:
                    key.data()
            if self._flooded:
                return False
        for read in reading.values():
            left = _LEFT
            while left > 0 and (found := read()):
                left -= found
        self._lines.end()
        return not self._flooded

    @property
    def _flooded(self) -> bool:
        return len(self.output) > self._most

    def _write(self) -> None:
        try:
            written = os.write(self._stdin.fileno(), self._unwritten)
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to know
            written = len(self._unwritten)
        self._unwritten = self._unwritten[written:]
        if not self._unwritten:
            self._selector.unregister(self._stdin)
            self._stdin.close()

    def _read_output(self) -> int:
        data = self._read(self._stdout)
        self.output += data
        return len(data)

    def _read_errors(self) -> int:
        data = self._read(self._stderr)
        if data:
            self._remote.beat()
            self._lines.feed(data)
        return len(data)

    def _read(self, pipe: IO[bytes]) -> bytes:
        try:
            data = os.read(pipe.fileno(), _READ)
        except BlockingIOError:
            return b""
        if not data and pipe in self._selector.get_map():
            self._selector.unregister(pipe)
        return data

    def _hear(self) -> None:
        self._remote.poll()
        if self._remote.cancelled and not self._told:
            self._told = True
            os.kill(0, signal.SIGTERM)  # its whole group; the host kills what does not end


class _Lines:
    """Standard error: progress, and lines for the log of the host."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._text = bytearray()
        self.tail = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        self.tail += data
        del self.tail[:-_TAIL]
        self._text += data
        *lines, rest = self._text.split(b"\n")
        self._text = rest
        for line in lines:
            self._tell(bytes(line))
        if len(self._text) > _MAX_LINE:
            self.end()

    def end(self) -> None:
        """The last line needs no end."""
        if self._text:
            self._tell(bytes(self._text))
            self._text = bytearray()

    def _tell(self, line: bytes) -> None:
        if line.startswith(_PROGRESS) and self._is_json(line[len(_PROGRESS) :]):
            self._remote.tell("progress", line[len(_PROGRESS) :])
        else:
            sys.stderr.write(line.decode("utf-8", "replace") + "\n")  # captured, and bounded

    @staticmethod
    def _is_json(data: bytes) -> bool:
        try:
            check_document(data, field="progress")
            data.decode()
            _skim(data)
        except (BadInput, msgspec.MsgspecError, UnicodeDecodeError):
            return False
        return len(data) < _MAX_LINE


def _failure(command: Command, code: int, grant: Grant, cell: Cell, tail: bytes) -> Failure | None:
    """Why the program's end is none that counts: its code and last words, behind the limit that it
    has met. The host knows of the limits of its group."""
    if code == 0:
        return None
    name = os.path.basename(command.words[0])
    text = tail.decode("utf-8", "replace")
    why = f"{name} died of {_signal(-code)}" if code < 0 else f"{name} exited with {code}"
    if last := text.strip().rpartition("\n")[2]:
        why += f": {last[:_MAX_SAID]}"
    breach = breach_of_end(code, grant, cell)
    if breach is None:
        return Failure("CommandFailed", why, trace=text or None)
    return Failure(breach.type, f"{breach.message}; {why}", trace=text or None)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"


def _result(command: Command, output: bytes) -> tuple[bytes | None, Failure | None]:
    if command.output == "text":
        return encode_result(output.decode("utf-8", "replace"))
    document = output.strip()
    if not document:
        why = "it printed nothing: print one JSON document, or declare `output: text`"
        return None, Failure("BadResult", why, field="result")
    try:
        check_document(document, field="result")
        document.decode()
        _skim(document)
    except BadInput as error:
        return None, bad_result(error)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        why = f"is no JSON ({error}): print one document, or declare `output: text`"
        return None, Failure("BadResult", why, field="result")
    return document, None
