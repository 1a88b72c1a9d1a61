"""Every subject is built and parsed here, and nowhere else.

A token that came from outside passes `check_token` before it becomes part of a subject:
JetStream stores wildcards, NUL and non-ASCII as literals, so the server would not refuse them.
`Subjects.parse` is total: whatever stands in the journal gets an `Address`, if only one of the
kind `malformed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from callboard_broker.errors import BadInput
from callboard_config.reserved import RESERVED_TENANTS

__all__ = [
    "ALL_TENANTS",
    "REFUSED_TENANT",
    "SHARDS",
    "SHARED_POOL",
    "Address",
    "Subjects",
    "check_capability",
    "check_host",
    "check_tenant",
    "check_token",
]

SHARDS = 256
SHARED_POOL = "shared"
ALL_TENANTS = "all"
REFUSED_TENANT = "refused"
_KINDS_ELSEWHERE = frozenset({"post", "flow", "epoch", "dispatch", "mailbox", "malformed"})
"""What has a form of its own: whoever may write `cb.run.acme.*.7` begins no epoch by that."""

_TOKEN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MAX_SUBJECT = 256
_MAX_CAPABILITY = 128
_ADDRESS_CACHE = 16_384


def check_token(value: str, field: str) -> str:
    """Return `value` if it may be one token of a subject, else raise `BadInput(field)`."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        shown = repr(value)[:80]
        raise BadInput(
            field, f"{shown} is not a name: use 1-63 of a-z 0-9 _ - and begin with a-z or 0-9"
        )
    return value


def check_tenant(value: str, field: str = "tenant") -> str:
    """Return `value` if a tenant may have this name."""
    if check_token(value, field) in RESERVED_TENANTS:
        raise BadInput(field, f"{value!r} is reserved; choose another name")
    return value


def check_capability(value: str, field: str = "capability") -> str:
    """Return `value` if it is a dotted capability such as `review.python`."""
    if not isinstance(value, str) or not value:
        raise BadInput(field, "a capability is a dotted name such as review.python")
    if len(value) > _MAX_CAPABILITY:
        raise BadInput(field, f"longer than {_MAX_CAPABILITY} characters")
    for token in value.split("."):
        check_token(token, field)
    return value


def check_host(value: str, field: str = "host") -> str:
    """Return `value` if a host may have this name: with a letter in it, so that it is no shard."""
    if check_token(value, field).isdigit():
        raise BadInput(field, f"{value!r} is a number; a host's name needs a letter")
    return value


@dataclass(frozen=True, slots=True)
class Address:
    """What a subject of the journal says: the kind of event, whose it is, and the rest.

    kind: `post`, `flow`, `epoch`, `dispatch`, another router or host event, or `malformed`.
    rest: the capability of a post or dispatch, the verb of a flow, else empty. box: the host whose
    mailbox a dispatch went to; pool and capability then stand in the event.
    """

    kind: str
    tenant: str = REFUSED_TENANT
    rest: str = ""
    pool: str = ""
    shard: int = 0
    reason: str = ""
    box: str = ""


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one board, all below `prefix`."""

    prefix: str = "cb"
    _seen: dict[str, Address] = field(default_factory=dict, repr=False, compare=False)
    _dispatches: dict[tuple[str, str, str], str] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_token(self.prefix, "prefix")

    @property
    def journal_filters(self) -> list[str]:
        """The subjects that the JOURNAL stream stores."""
        return [f"{self.prefix}.task.*.>", f"{self.prefix}.flow.*.*", f"{self.prefix}.run.>"]

    @property
    def told_source(self) -> str:
        """What the journal republishes: events of five tokens; of dispatches, only mailboxes'."""
        return f"{self.prefix}.run.*.*.*"

    @property
    def told_target(self) -> str:
        return f"{self.prefix}.told.{{{{wildcard(1)}}}}.{{{{wildcard(3)}}}}"

    @property
    def epoch(self) -> str:
        return f"{self.prefix}.run.epoch"

    @property
    def beats(self) -> str:
        return f"{self.prefix}.beat.*.*"

    @property
    def audit(self) -> str:
        return f"{self.prefix}.audit.leaves"

    @property
    def audit_checkpoints(self) -> str:
        return f"{self.prefix}.audit.checkpoints"

    @property
    def audit_records(self) -> str:
        """Signed notes beside the leaves: whose key is whose, what was archived."""
        return f"{self.prefix}.audit.records"

    @property
    def asks(self) -> str:
        """Every question that is answered and not stored."""
        return f"{self.prefix}.ask.*.*"

    def ask_filter(self, verb: str) -> str:
        """One kind of question, of every tenant: requests that are answered and not stored."""
        return f"{self.prefix}.ask.*.{verb}"

    def task(self, tenant: str, capability: str) -> str:
        """Where a task for `capability` is posted."""
        return self._capped(
            f"{self.prefix}.task.{check_tenant(tenant)}.{check_capability(capability)}"
        )

    def flow(self, tenant: str, verb: str) -> str:
        """Where a workflow (`run`) or a command to one is posted."""
        return f"{self.prefix}.flow.{check_tenant(tenant)}.{check_token(verb, 'verb')}"

    def dispatch(self, tenant: str, pool: str, capability: str) -> str:
        """Where the router hands an attempt to the hosts of `pool`."""
        place = (tenant, pool, capability)
        subject = self._dispatches.get(place)
        if subject is None:
            subject = self._capped(f"{self.prefix}.run.{tenant}.dispatch.{pool}.{capability}")
            if len(self._dispatches) >= _ADDRESS_CACHE:
                self._dispatches.clear()
            self._dispatches[place] = subject
        return subject

    def mailbox(self, tenant: str, host: str) -> str:
        """Where the router hands an attempt to one host. Five tokens, so that it is republished."""
        return f"{self.prefix}.run.{tenant}.mailbox.{check_host(host)}"

    def mailbox_filter(self, host: str) -> str:
        """Where a host hears what was stored for its mailbox, of any tenant."""
        return f"{self.prefix}.told.*.{check_host(host)}"

    def stop(self, pool: str) -> str:
        """Where hosts of the pool are asked, unstored, to stop attempts."""
        return f"{self.prefix}.stop.{check_token(pool, 'pool')}"

    def dispatch_filter(self, pool: str, capability: str) -> str:
        """What the durable of (pool, capability) reads: literal but for the tenant."""
        check_token(pool, "pool")
        return f"{self.prefix}.run.*.dispatch.{pool}.{check_capability(capability)}"

    def run(self, tenant: str, kind: str, shard: int) -> str:
        """Where an outcome, a loss or another event of five tokens is written."""
        return f"{self.prefix}.run.{tenant}.{kind}.{shard}"

    def told(self, tenant: str, shard: int) -> str:
        """Where a poster hears what was stored for its shard."""
        return f"{self.prefix}.told.{check_tenant(tenant)}.{shard}"

    def news(self, tenant: str, shard: int) -> str:
        """Where a host tells, unstored, that a task started or how far it is."""
        return f"{self.prefix}.news.{tenant}.{shard}"

    @property
    def logs(self) -> str:
        """What the LOGS stream stores: what handlers log."""
        return f"{self.prefix}.log.*.*"

    def log(self, tenant: str, shard: int) -> str:
        """Where a host says what the handlers of a tenant log."""
        return f"{self.prefix}.log.{tenant}.{shard}"

    def log_filter(self, tenant: str) -> str:
        """Where everything is heard that the handlers of a tenant log."""
        return f"{self.prefix}.log.{check_tenant(tenant)}.*"

    def tenant_of_log(self, subject: str) -> str:
        """Whose line was stored on `subject`. Raises `BadInput`."""
        parts = subject.split(".")
        if len(parts) != 4 or parts[1] != "log":
            raise BadInput("subject", "not a subject of lines")
        return check_tenant(parts[2])

    def beat(self, tenant: str, host: str) -> str:
        return f"{self.prefix}.beat.{check_token(tenant, 'pool')}.{check_token(host, 'host')}"

    def ask(self, tenant: str, verb: str) -> str:
        """Where a question to the ledger or the router goes; `all` asks for every tenant."""
        return f"{self.prefix}.ask.{check_token(tenant, 'tenant')}.{check_token(verb, 'verb')}"

    def parse(self, subject: str) -> Address:
        """Say what `subject` means. Never raises: a name that nobody may use is `malformed`."""
        address = self._seen.get(subject)
        if address is None:
            try:
                address = self._parse(subject)
            except BadInput as error:
                address = Address("malformed", reason=str(error))
            if len(self._seen) >= _ADDRESS_CACHE:
                self._seen.clear()
            self._seen[subject] = address
        return address

    def _parse(self, subject: str) -> Address:
        if len(subject) > _MAX_SUBJECT:
            raise BadInput("subject", f"longer than {_MAX_SUBJECT} characters")
        parts = subject.split(".")
        if parts[0] != self.prefix or len(parts) < 3:
            raise BadInput("subject", "not a subject of this board")
        area, rest = parts[1], parts[2:]
        if area == "task" and len(rest) >= 2:
            tenant = check_tenant(rest[0])
            return Address("post", tenant, check_capability(".".join(rest[1:])))
        if area == "flow" and len(rest) == 2:
            return Address("flow", check_tenant(rest[0]), check_token(rest[1], "verb"))
        if area == "run" and rest == ["epoch"]:
            return Address("epoch")
        if area == "run" and len(rest) >= 4 and rest[1] == "dispatch":
            capability = check_capability(".".join(rest[3:]))
            pool = check_token(rest[2], "pool")
            return Address("dispatch", check_token(rest[0], "tenant"), capability, pool)
        if area == "run" and len(rest) == 3 and rest[1] == "mailbox":
            host = check_host(rest[2])
            return Address("dispatch", check_token(rest[0], "tenant"), box=host)
        if area == "run" and len(rest) == 3 and rest[2].isascii() and rest[2].isdigit():
            shard = int(rest[2])
            if shard < SHARDS and rest[1] not in _KINDS_ELSEWHERE:
                tenant, kind = check_token(rest[0], "tenant"), check_token(rest[1], "kind")
                return Address(kind, tenant, shard=shard)
        raise BadInput("subject", "not a subject of this board")

    @staticmethod
    def _capped(subject: str) -> str:
        if len(subject) > _MAX_SUBJECT:
            raise BadInput("subject", f"longer than {_MAX_SUBJECT} characters: shorten the names")
        return subject
