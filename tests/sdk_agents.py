"""Agents that use their whole context, each in every isolation, for tests of a whole board."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic

from callboard import BlobRef, Context, agent


class Steps(msgspec.Struct):
    """A walk of `count` steps. halt: where the first attempt stands still; fail: where it fails.

    pad: bytes of each checkpoint, beyond what it needs.
    """

    count: int
    halt: int = 0
    fail: int = 0
    pad: int = 0


def begin(steps: Steps, ctx: Context) -> list[int]:
    """The steps that are still to be gone."""
    done = 0 if ctx.restored is None else ctx.restored["done"]
    return list(range(done + 1, steps.count + 1))


def go(step: int, steps: Steps, ctx: Context) -> dict[str, Any]:
    """One step; the host's log is the outside table."""
    ctx.log.info("attempt %d goes step %d", ctx.attempt, step)
    if ctx.attempt == 1 and step == steps.fail:
        raise ConnectionError(f"step {step}")
    return {"done": step, "pad": "x" * steps.pad}


async def walk(steps: Steps, ctx: Context) -> dict[str, Any]:
    first = begin(steps, ctx)
    for step in first:
        await ctx.checkpoint(go(step, steps, ctx))
        if ctx.attempt == 1 and step == steps.halt:
            ctx.progress({"at": step})
            await asyncio.Event().wait()
    return {"attempt": ctx.attempt, "gone": first}


def walk_plain(steps: Steps, ctx: Context) -> dict[str, Any]:
    first = begin(steps, ctx)
    for step in first:
        ctx.wait(ctx.checkpoint(go(step, steps, ctx)))
        while ctx.attempt == 1 and step == steps.halt:
            ctx.progress({"at": step})
            time.sleep(0.1)
    return {"attempt": ctx.attempt, "gone": first}


walk_inline = agent("walk.inline", isolation="inline")(walk)
walk_thread = agent("walk.thread", isolation="thread")(walk_plain)
walk_process = agent("walk.process", isolation="process")(walk)
walk_plain_process = agent("walk.plain", isolation="process")(walk_plain)


async def speak(words: list[str], ctx: Context) -> str:
    for word in words:
        await ctx.output(word)
    return " ".join(words)


def speak_plain(words: list[str], ctx: Context) -> str:
    for word in words:
        ctx.output(word)
    return " ".join(words)


speak_inline = agent("speak.inline", isolation="inline")(speak)
speak_thread = agent("speak.thread", isolation="thread")(speak_plain)
speak_process = agent("speak.process", isolation="process")(speak)
speak_plain_process = agent("speak.plain", isolation="process")(speak_plain)


class Paper(msgspec.Struct):
    """A document of some size, by reference."""

    source: BlobRef


async def copy(paper: Paper, ctx: Context) -> dict[str, Any]:
    data = await ctx.blob.get(paper.source)
    kept = await ctx.blob.put(data[::-1])
    return {"copy": kept, "digest": hashlib.sha256(data).hexdigest()}


def copy_plain(paper: Paper, ctx: Context) -> dict[str, Any]:
    data = ctx.wait(ctx.blob.get(paper.source))
    kept = ctx.wait(ctx.blob.put(data[::-1]))
    return {"copy": kept, "digest": hashlib.sha256(data).hexdigest()}


@agent("paper.make")
async def make(size: int, ctx: Context) -> BlobRef:
    return await ctx.blob.put(os.urandom(size))


copy_inline = agent("copy.inline", isolation="inline")(copy)
copy_thread = agent("copy.thread", isolation="thread")(copy_plain)
copy_process = agent("copy.process", isolation="process")(copy)
copy_plain_process = agent("copy.plain", isolation="process")(copy_plain)


class Struct(msgspec.Struct):
    """A payload, and a result."""

    name: str
    sizes: list[int]


@dataclass
class Record:
    """The same as a dataclass."""

    name: str
    sizes: list[int]


class Model(pydantic.BaseModel):
    """The same as a model of pydantic."""

    name: str
    sizes: list[int]


async def of_struct(value: Struct) -> Struct:
    return Struct(value.name.upper(), [sum(value.sizes)])


async def of_record(value: Record) -> Record:
    return Record(value.name.upper(), [sum(value.sizes)])


async def of_model(value: Model) -> Model:
    return Model(name=value.name.upper(), sizes=[sum(value.sizes)])


def of_struct_plain(value: Struct) -> Struct:
    return Struct(value.name.upper(), [sum(value.sizes)])


def of_record_plain(value: Record) -> Record:
    return Record(value.name.upper(), [sum(value.sizes)])


def of_model_plain(value: Model) -> Model:
    return Model(name=value.name.upper(), sizes=[sum(value.sizes)])


struct_inline = agent("type.struct.inline", isolation="inline")(of_struct)
struct_thread = agent("type.struct.thread", isolation="thread")(of_struct_plain)
struct_process = agent("type.struct.process", isolation="process")(of_struct)
record_inline = agent("type.record.inline", isolation="inline")(of_record)
record_thread = agent("type.record.thread", isolation="thread")(of_record_plain)
record_process = agent("type.record.process", isolation="process")(of_record_plain)
model_inline = agent("type.model.inline", isolation="inline")(of_model)
model_thread = agent("type.model.thread", isolation="thread")(of_model_plain)
model_process = agent("type.model.process", isolation="process")(of_model_plain)


class _Model:
    """Something that takes long to load."""

    def __init__(self) -> None:
        self.loaded = [os.getpid(), time.monotonic_ns()]
        self.calls = 0

    def count(self) -> dict[str, Any]:
        self.calls += 1
        return {"loaded": self.loaded, "calls": self.calls, "pid": os.getpid()}


@agent("class.inline")
class Inline(_Model):
    """Its state is the host's."""

    async def __call__(self, _payload: object) -> dict[str, Any]:
        return self.count()


@agent("class.thread")
class Threaded(_Model):
    """Its state is the host's, and its threads share it."""

    def __call__(self, _payload: object) -> dict[str, Any]:
        return self.count()


@agent("class.process", isolation="process")
class Apart(_Model):
    """Its model is loaded once; what a call changes ends with its child."""

    def __call__(self, _payload: object) -> dict[str, Any]:
        return self.count()
