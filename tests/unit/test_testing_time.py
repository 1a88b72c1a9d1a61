"""A loop whose time jumps: waiting costs nothing, and threads and sockets are waited for."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from callboard.testing import NothingHappens, VirtualTimeLoop, run, virtual_time


def test_a_year_of_sleep_is_over_at_once():
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(365 * 86_400)
        return loop.time() - before

    began = time.monotonic()
    assert run(main()) == pytest.approx(365 * 86_400)
    assert time.monotonic() - began < 1


@virtual_time
async def test_timers_fire_in_the_order_of_their_time():
    loop = asyncio.get_running_loop()
    fired: list[tuple[str, float]] = []
    began = loop.time()
    for name, delay in (("late", 500.0), ("early", 1.5), ("between", 60.0)):
        loop.call_later(delay, lambda name=name: fired.append((name, loop.time() - began)))
    await asyncio.sleep(1000)
    assert fired == [("early", 1.5), ("between", 60.0), ("late", 500.0)]


@virtual_time
async def test_a_timeout_ends_what_takes_longer():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.sleep(11)


@virtual_time
async def test_no_time_passes_while_a_thread_works():
    loop = asyncio.get_running_loop()
    before = loop.time()
    ticks: list[float] = []
    loop.call_later(0.001, lambda: ticks.append(loop.time()))
    await asyncio.to_thread(time.sleep, 0.05)
    assert (loop.time(), ticks) == (before, [])
    await asyncio.sleep(1)
    assert ticks == [before + 0.001]


@virtual_time
async def test_time_is_real_while_a_socket_is_open():
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        began, virtual = time.monotonic(), asyncio.get_running_loop().time()
        await asyncio.sleep(0.03)
        assert time.monotonic() - began >= 0.029
        assert asyncio.get_running_loop().time() - virtual >= 0.029
        await asyncio.to_thread(theirs.sendall, b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()


def test_what_can_never_happen_is_an_error_and_no_hanging_test():
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingHappens, match="nothing runs and no timer is left"):
        run(main())


@virtual_time
async def test_quiet_returns_when_all_of_this_moment_has_happened():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    before, steps = loop.time(), []

    async def work() -> None:
        for step in range(50):
            await asyncio.sleep(0)
            steps.append(step)
        await asyncio.sleep(5)
        steps.append(-1)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        await loop.quiet()
        assert (len(steps), loop.time()) == (50, before)


@pytest.mark.parametrize("number", [1, 2])
@virtual_time
async def test_a_test_keeps_its_parameters_and_fixtures(number: int, tmp_path: object):
    assert number in (1, 2)
    assert tmp_path


@virtual_time
async def test_a_program_is_waited_for_in_real_time():
    loop = asyncio.get_running_loop()
    fired: list[str] = []
    timer = loop.call_later(60, fired.append, "too early")
    child = await asyncio.create_subprocess_exec("sleep", "0.02")
    assert await child.wait() == 0
    child = await asyncio.create_subprocess_shell("echo hello", stdout=asyncio.subprocess.PIPE)
    assert (await child.communicate())[0] == b"hello\n"
    timer.cancel()
    assert fired == []
    child = await asyncio.create_subprocess_exec("sleep", "60")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await child.wait()
    child.kill()
    await child.wait()
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("no-such-program")
    before = loop.time()
    await asyncio.sleep(3600)
    assert loop.time() == before + 3600
