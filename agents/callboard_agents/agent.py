"""`@agent("review.python")` turns a function into an agent, and leaves it a function.

What can be wrong with a declaration is found here, when the module is imported: the capability's
name, the parameters, and whether a payload can be read into the annotated type.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import msgspec

from callboard_agents.context import Context
from callboard_agents.declaration import Declaration, Isolation
from callboard_agents.limits import Limits
from callboard_agents.payload import Reader, reader
from callboard_broker.errors import BadInput

if TYPE_CHECKING:
    from callboard_agents.command import Command

__all__ = ["Agent", "Isolation", "agent"]

P = ParamSpec("P")
R = TypeVar("R")

_MAX_NAME = 128  # of an offer's `agent`


class Agent(Generic[P, R]):
    """A handler and what it declares of itself. Call it as the function that it is, in a test.

    isolation: `inline` runs on the host's event loop, `thread` in one of its threads, `process` in
    a child process that runs nothing else.
    slots: how many attempts run at once in one host. timeout: seconds an attempt may run; both
    None: the host's own settings. memory_mb, cpu (cores): declared needs of one attempt.
    limits: what an attempt in a child process may take. command: what is run instead of a handler.
    name, version, specialization, labels: what a task's `needs` are compared with.
    modules: where it was found, then where it is defined; their lifespans and middleware are its.
    """

    capability: str
    name: str
    version: str
    specialization: tuple[str, ...]
    labels: dict[str, str]
    isolation: Isolation
    slots: int | None
    timeout: float | None
    memory_mb: float | None
    cpu: float | None
    limits: Limits
    command: Command | None
    modules: tuple[str, ...]
    is_async: bool
    takes_context: bool

    def __init__(self, target: Callable[P, R], declared: Declaration) -> None:
        self.capability = declared.capability
        self.version = declared.version
        self.specialization = tuple(declared.specialization)
        self.labels = dict(declared.labels)
        self.slots = declared.slots
        self.timeout = declared.timeout
        self.memory_mb = declared.memory_mb
        self.cpu = declared.cpu
        self.limits = declared.limits
        self.command = declared.command
        self.modules = (str(getattr(target, "__module__", "")),)
        named = str(getattr(target, "__name__", type(target).__name__))[:_MAX_NAME]
        self.name = declared.name or named
        self._target: Any = target
        self._is_class = inspect.isclass(target)
        code = _code_of(target)
        self.is_async = inspect.iscoroutinefunction(code)
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise BadInput("function", f"{self.name} is a generator; return the whole result")
        self.isolation = declared.isolation or ("inline" if self.is_async else "thread")
        if self.is_async and self.isolation == "thread":
            raise BadInput("isolation", f"{self.name} is async: it runs inline, not in a thread")
        self._shape = _Shape(code, bound=code is not target)
        self.takes_context = self._shape.context is not None
        functools.update_wrapper(self, target, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function (of a class: its one instance) directly, without any payload."""
        handler: Any = self.handler
        result: R = handler(*args, **kwargs)
        return result

    @property
    def kind(self) -> type[object] | None:
        """The class that is instantiated once per process, if it was declared as one."""
        return self._target if self._is_class else None

    @functools.cached_property
    def handler(self) -> Callable[..., Any]:
        """What is called for each attempt: the function, or the one instance of the class."""
        handler: Callable[..., Any] = self._target() if self._is_class else self._target
        return handler

    def start(self, payload: bytes | msgspec.Raw, context: Context | None) -> Any:
        """Read `payload` and call the handler: its result, or the coroutine of an async one.

        Raises `BadInput` that names the field if the payload does not fit.
        """
        shape = self._shape
        if shape.read is None:
            args: tuple[Any, ...] = ()
        elif shape.has_default and bytes(payload) == b"null":
            args = ()
        else:
            args = (shape.read(payload),)
        if shape.context is None:
            return self.handler(*args)
        return self.handler(*args, **{shape.context: context})

    def __repr__(self) -> str:
        return f"<Agent {self.capability} {self.name}>"


class _Declare:
    """The decorator: knows what was declared, waits for the function."""

    def __init__(self, declared: Declaration) -> None:
        self._declared = declared

    @overload
    def __call__(self, target: type[object]) -> Agent[..., Any]: ...
    @overload
    def __call__(self, target: Callable[P, R]) -> Agent[P, R]: ...
    def __call__(self, target: Callable[..., Any]) -> Agent[..., Any]:
        if isinstance(target, Agent):
            raise BadInput("function", f"{target!r} is an agent already: one capability each")
        if not callable(target):
            raise BadInput("function", f"{target!r} cannot be called")
        return Agent(target, self._declared)


def agent(  # noqa: PLR0913  what DESIGN.md fixed; keyword-only but for the capability
    capability: str,
    *,
    isolation: Isolation | None = None,
    slots: int | None = None,
    timeout: float | None = None,
    memory_mb: float | None = None,
    cpu: float | None = None,
    name: str | None = None,
    version: str = "",
    specialization: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> _Declare:
    """Declare that the decorated function works on tasks of `capability`.

    The first parameter is the payload, read into its annotation (a primitive, list, dict,
    dataclass, msgspec struct or pydantic model; nothing or Any: as JSON has it); a parameter
    annotated with `Context`, or named `ctx`, gets the context. Both may be left out. A class is
    instantiated once per host, and its `__call__` is the handler; if it is a context manager, it is
    entered before the host is ready and left after its last attempt.

    isolation, slots, timeout (seconds), memory_mb, cpu (cores): see `Agent`; async functions run
    inline, plain ones in a thread. limits: what an attempt in a child process may take, where that
    is not as in the settings. name (else the function's), version (`1.4.2`), specialization
    (`["security"]`), labels (`{"region": "eu"}`): what a task may ask for in its `needs`. Raises
    `BadInput` that names what is wrong.
    """
    return _Declare(
        Declaration(
            capability=capability,
            isolation=isolation,
            slots=slots,
            timeout=timeout,
            memory_mb=memory_mb,
            cpu=cpu,
            name=name,
            version=version,
            specialization=specialization,
            labels={} if labels is None else labels,
            limits=Limits() if limits is None else limits,
        )
    )


class _Shape:
    """How the handler is called: what reads the payload, and the name of its context."""

    __slots__ = ("context", "has_default", "read")

    def __init__(self, code: Callable[..., Any], *, bound: bool) -> None:
        self.context: str | None = None
        self.read: Reader | None = None
        self.has_default = False
        parameters = list(inspect.signature(code).parameters.values())[1 if bound else 0 :]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            annotation = _annotation(code, parameter)
            positional = parameter.kind is not parameter.KEYWORD_ONLY
            if self.context is None and (parameter.name == "ctx" or annotation is Context):
                self._take_context(parameter)
            elif self.read is None and positional and self.context is None:
                self.read = reader(annotation)
                self.has_default = parameter.default is not parameter.empty
            elif parameter.default is parameter.empty:
                raise BadInput(
                    parameter.name,
                    "a handler takes a payload, then perhaps a Context named ctx, and no more: "
                    "give this parameter a default or make it a field of the payload",
                )

    def _take_context(self, parameter: inspect.Parameter) -> None:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise BadInput(parameter.name, "the context is passed by name: remove the /")
        self.context = parameter.name


def _annotation(code: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The parameter's type; alone, so that nothing else of the signature need be importable."""
    if parameter.annotation is parameter.empty:
        return Any
    alone = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    names = getattr(inspect.unwrap(code), "__globals__", {})
    try:
        hints = typing.get_type_hints(alone, globalns=names, include_extras=True)
    except NameError as error:
        raise BadInput(
            parameter.name,
            f"its annotation {parameter.annotation!r} is not known at run time ({error}): import "
            "or define the type at the top of the module, outside `if TYPE_CHECKING`",
        ) from error
    return hints[parameter.name]


def _code_of(target: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose signature counts: of a class or an instance, its `__call__`."""
    if inspect.isroutine(target) or isinstance(target, functools.partial):
        return target
    kind = target if inspect.isclass(target) else type(target)
    code = vars(kind).get("__call__") or getattr(kind, "__call__", None)  # noqa: B004
    if not inspect.isfunction(code):
        raise BadInput("function", f"{kind.__name__} has no __call__ that takes a payload")
    return code
