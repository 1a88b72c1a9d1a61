"""Handlers that try what they must not."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callboard_agents import agent

_LIBC = ctypes.CDLL(None, use_errno=True)
_counted = 0


def _call(*arguments: Any) -> None:
    """A bare call of the C library; a refusal is told by its name."""
    name, *rest = arguments
    if getattr(_LIBC, name)(*rest) < 0:
        raise _Refused(errno.errorcode[ctypes.get_errno()])


class _Refused(Exception):
    pass


def _descriptors() -> list[int]:
    found = []
    for number in range(64):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def _bare(number: int, *arguments: int) -> None:
    """A bare system call, past every library; of x86_64."""
    if _LIBC.syscall(number, *[ctypes.c_long(each) for each in arguments]) < 0:
        raise _Refused(errno.errorcode[ctypes.get_errno()])


def _host() -> int:
    """The process of the host: the parent of the zygote, three up."""
    return _told["host"]


def _link_outside() -> str:
    """A hard link to a file of somebody else's in the own folder, to change it there."""
    os.link("/etc/passwd", "passwd")
    return Path("passwd").read_text(encoding="utf-8")


def _follow_outside() -> str:
    Path("out").symlink_to("/etc")
    return Path("out/passwd").read_text(encoding="utf-8")


def _climb() -> list[str]:
    """Out of the own folder by a descriptor of it."""
    folder = os.open(".", os.O_RDONLY)
    return os.listdir(os.open("../..", os.O_RDONLY, dir_fd=folder))  # noqa: PTH208  of a descriptor


def _datagram_pair() -> None:
    """An end of such a pair could be connected to any named socket."""
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.connect("/var/run/docker.sock")


def _groups(controller: str) -> Path:
    """Where all groups are, in either version."""
    root = Path("/sys/fs/cgroup")
    return root if (root / "cgroup.controllers").exists() else root / controller


def _loosen() -> None:
    """Write another limit into its own group, where it may read which one that is."""
    lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    paths = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    own = _groups("pids") / paths.get("pids", paths.get("", "")).lstrip("/")
    (own / "pids.max").write_text("max", encoding="ascii")


def _run_from_memory() -> None:
    """Write a program where no file system sees it, and run it."""
    _bare(319, 0, 0)


def _set_user_id() -> None:
    """Whatever bits its own program has, they make nobody root."""
    mine = Path("mine")
    mine.write_bytes(b"x")
    mine.chmod(0o6755)
    os.setuid(0)


def _type_into_terminal() -> None:
    fcntl.ioctl(0, 0x5412, b"x")


def _huge_file() -> None:
    with Path("huge").open("wb") as file:
        file.truncate(1 << 40)


def _raise_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 100, hard + 100))


_told: dict[str, Any] = {}

TRIES: dict[str, Callable[[], object]] = {
    "read /etc/passwd": lambda: Path("/etc/passwd").read_text(encoding="utf-8"),
    "read another process's environment": lambda: Path("/proc/1/environ").read_bytes(),
    "read the host's environment": lambda: Path(f"/proc/{_host()}/environ").read_bytes(),
    "read the zygote's memory": lambda: Path(f"/proc/{os.getppid()}/mem").read_bytes(),
    "look through the host's root": lambda: os.listdir(f"/proc/{_host()}/root"),  # noqa: PTH208
    "list /tmp": lambda: os.listdir("/tmp"),  # noqa: S108, PTH208  a try
    "list shared memory": lambda: os.listdir("/dev/shm"),  # noqa: S108, PTH208  a try
    "write shared memory": lambda: Path("/dev/shm/hostile").write_text("x", encoding="utf-8"),  # noqa: S108
    "write outside": lambda: Path("/tmp/hostile").write_text("x", encoding="utf-8"),  # noqa: S108
    "change its own code": lambda: Path(__file__).open("ab").close(),
    "list the cells of others": lambda: os.listdir(".."),  # noqa: PTH208  a try
    "climb out by a descriptor": _climb,
    "follow a symbolic link outside": _follow_outside,
    "link a file of others": _link_outside,
    "connect out": lambda: socket.socket(socket.AF_INET),
    "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "talk to the kernel by netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "connect to a unix socket": lambda: socket.socket(socket.AF_UNIX),
    "connect by a pair of datagram sockets": _datagram_pair,
    "fork": os.fork,
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
    "make a memory file": lambda: os.memfd_create("hostile"),
    "make a memory file by a bare call": _run_from_memory,
    "leave its process group": os.setsid,
    "signal its parent": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "signal its host": lambda: os.kill(_host(), signal.SIGTERM),
    "signal its host by a descriptor": lambda: signal.pidfd_send_signal(
        os.pidfd_open(_host()), signal.SIGTERM
    ),
    "queue a signal": lambda: _bare(129, os.getppid(), 15, 0),
    "signal everybody": lambda: os.kill(-1, signal.SIGTERM),
    "trace its parent": lambda: _call("ptrace", 16, os.getppid(), 0, 0),
    "read memory of its parent": lambda: _bare(310, os.getppid(), 0, 0, 0, 0, 0),
    "write memory of its parent": lambda: _bare(311, os.getppid(), 0, 0, 0, 0, 0),
    "take a descriptor of its parent": lambda: _bare(438, os.pidfd_open(os.getppid()), 0, 0),
    "mount": lambda: _call("mount", b"none", b".", b"tmpfs", 0, None),
    "unshare": lambda: _call("unshare", 0x10000000),
    "enter another namespace": lambda: _call("setns", 0, 0),
    "change its root": lambda: os.chroot("."),
    "make a device": lambda: os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 1)),
    "read keys of the kernel": lambda: _bare(250, 0, -3, 0),
    "go round the filter by io_uring": lambda: _bare(425, 1, 0),
    "load a program into the kernel": lambda: _bare(321, 0, 0, 0),
    "make a shared segment": lambda: _call("shmget", 1, 4096, 0o1600),
    "handle page faults itself": lambda: _bare(323, 0),
    "count events of others": lambda: _bare(298, 0, 0, -1, -1, 0),
    "watch the files of others": lambda: _call("inotify_init1", 0),
    "outlive its parent": lambda: _call("prctl", 1, 0, 0, 0, 0),
    "adopt orphans": lambda: _call("prctl", 36, 1, 0, 0, 0),
    "type into a terminal": _type_into_terminal,
    "become root": lambda: os.setuid(0),
    "gain by a set-user-id bit": _set_user_id,
    "make a huge sparse file": _huge_file,
    "raise its limits": _raise_limits,
    "be nicer to itself": lambda: os.nice(-10),
    "be spared when memory runs out": lambda: Path("/proc/self/oom_score_adj").write_text(
        "-1000", encoding="ascii"
    ),
    "leave its control group": lambda: (_groups("pids") / "cgroup.procs").write_text(
        "0", encoding="ascii"
    ),
    "loosen its control group": _loosen,
    "tell environment and descriptors": lambda: json.dumps([dict(os.environ), _descriptors()]),
}


@agent("hostile.try", isolation="process")
def attempt(payload: dict[str, Any]) -> str:
    """Try it, and say what came of it."""
    _told.update(payload)
    try:
        return str(TRIES[payload["what"]]())
    except _Refused as refused:
        return str(refused)
    except (OSError, ValueError) as error:
        return type(error).__name__


@agent("hostile.remember", isolation="process")
def remember() -> int:
    global _counted  # noqa: PLW0603  that is what it tries
    _counted += 1
    return _counted


@agent("hostile.bomb", isolation="process")
def bomb() -> None:
    while True:
        if os.fork() == 0:
            time.sleep(60)


@agent("hostile.nonsense", isolation="process")
def nonsense() -> None:
    os.write(3, b"\xff" * 1000)
    time.sleep(60)


@agent("hostile.files", isolation="process")
def files() -> None:
    for number in range(100):
        Path(str(number)).write_bytes(bytes(1 << 20))


@agent("hostile.sleep", isolation="process")
def sleep() -> None:
    time.sleep(60)


@agent("hostile.litter", isolation="process")
def litter(depth: int) -> list[str]:
    """Say what is there, and leave what is hard to remove."""
    found = sorted(os.listdir())  # noqa: PTH208  names
    Path("up").symlink_to("..")
    Path("away").symlink_to("/usr")
    Path("endless").symlink_to("endless")
    closed = Path("closed")
    closed.mkdir()
    (closed / "file").write_text("x", encoding="ascii")
    (closed / "inner").mkdir()
    (closed / "inner").chmod(0)
    closed.chmod(0)
    Path(os.fsdecode(b"\xff\n")).touch()
    here = os.open(".", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    Path().chmod(0)
    return found


@agent("hostile.many.files", isolation="process")
def many_files(count: int) -> int:
    for number in range(count):
        Path(str(number)).touch()
    return len(os.listdir())  # noqa: PTH208  names


@agent("hostile.daemon", isolation="process")
def daemon(_payload: object) -> int:
    """Leave a process behind that has nothing to do with this one any more."""
    told, tells = os.pipe()
    if os.fork() == 0:
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
            time.sleep(600)
        os.write(tells, str(pid).encode())
        os._exit(0)
    return int(os.read(told, 20))


@agent("hostile.threads", isolation="process")
def threads(_payload: object) -> None:
    over = threading.Event()
    while True:
        threading.Thread(target=over.wait, daemon=True).start()


@agent("hostile.forged", isolation="process")
def forged(_payload: object) -> None:
    """Say things that only a host says, and the end of another task."""
    for verb in (1, 2, 3, 4, 9, 255):
        os.write(3, struct.pack("!IBI", 4, verb, 7) + b"null")
    time.sleep(60)


@agent("hostile.twice", isolation="process")
def twice(_payload: object) -> str:
    """Say a result, and then another one."""
    said = struct.pack("!IBI", 5, 7, 0) + b'"one"'
    os.write(3, said + said.replace(b"one", b"two"))
    return "three"


@agent("hostile.mask", isolation="process")
def mask(_payload: object) -> list[int]:
    """Say the mask of files, the directory and the environment as a task finds them; spoil them."""
    found = [os.umask(0), len(os.environ), int(Path.cwd().name == "away")]
    os.environ["LEFT"] = "behind"
    Path("away").mkdir()
    os.chdir("away")
    return found


@agent("hostile.deaf", isolation="process")
def deaf(_payload: object) -> None:
    """Hear no signal that can be ignored, and no exception."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001, S112  that is the point
            continue


@agent("hostile.hoard", isolation="process")
def hoard(_payload: object) -> None:
    """More memory than there is, where only its group counts: in files of its own file system."""
    kept = []
    while True:
        kept.append(bytearray(b"x" * (1 << 20)))


@agent("hostile.flood", isolation="process")
def flood(_payload: object) -> str:
    """More output than anybody wants to read."""
    for number in range(25_000):
        print("x" * (10_000 if number < 10 else 10))
    return "done"


@agent("hostile.peek", isolation="process")
def peek(folder: str) -> str:
    """Look into the folder of another task."""
    try:
        return str(os.listdir(folder))  # noqa: PTH208  names
    except OSError as error:
        return type(error).__name__


@agent("hostile.modes", isolation="process")
def modes(path: str) -> None:
    """Change all of a file of somebody else's that is not its content."""
    for change in (
        lambda: Path(path).chmod(0o777),
        lambda: os.chown(path, -1, os.getgid()),
        lambda: os.setxattr(path, "user.hostile", b"x"),
    ):
        with contextlib.suppress(OSError):
            change()


@agent("hostile.patient", isolation="process")
async def patient(_payload: object) -> list[str]:
    """Wait for threads and for a signal, on the loop of the child, who finds no module any more."""
    sys.path.clear()
    loop = asyncio.get_running_loop()
    pooled = await asyncio.to_thread(str, "pooled")
    heard, signalled = asyncio.Event(), asyncio.Event()
    thread = threading.Timer(0.05, loop.call_soon_threadsafe, (heard.set,))
    thread.start()
    await heard.wait()
    loop.add_signal_handler(signal.SIGUSR1, signalled.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await signalled.wait()
    return [pooled, "thread", "signal"]
