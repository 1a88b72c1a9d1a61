"""A proof of one event, in the format of C2SP's tlog-proof: it verifies offline.

The lines say the leaf's number, the path of hashes to the root, and the checkpoint; the extra data
are the line of the event in an export. Any tool that knows the format checks the path; the leaf is
the field of that name, and its hash is SHA-256(0x00, leaf).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.errors import AuditBroken, BadInput
from callboard_broker.record import Record
from callboard_broker.signing import PublicKey
from callboard_broker.streams import Topology
from callboard_ledger.export_lines import EventLine, encode_line, event_line, record_of
from callboard_ledger.findings import Finding, Findings
from callboard_ledger.leaves import Leaf, decode_leaf, event_hash, hashes
from callboard_ledger.merkle import is_included, leaf_hash
from callboard_ledger.notes import Checkpoint, NoteBroken
from callboard_ledger.proving import AuditTree, latest_checkpoint
from callboard_ledger.scan import scan

__all__ = ["MAGIC", "Proof", "ProofReport", "check_proof", "prove"]

MAGIC = "c2sp.org/tlog-proof@v1"
_LONGEST_PATH = 64

_line = msgspec.json.Decoder(EventLine)


class ProofReport(msgspec.Struct, frozen=True, kw_only=True):
    """ok: nothing was found. leaf: of the event, as it was audited. signed: a key was given."""

    ok: bool
    origin: str
    size: int
    index: int
    leaf: dict[str, object]
    signed: bool
    absent: bool
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """index: the leaf's. path: from its sibling up. note: the checkpoint."""

    line: EventLine
    index: int
    path: list[bytes]
    note: str

    def text(self) -> str:
        """As a tlog-proof."""
        extra = base64.b64encode(encode_line(self.line).rstrip()).decode()
        path = [base64.b64encode(node).decode() for node in self.path]
        lines = [MAGIC, f"extra {extra}", f"index {self.index}", *path, "", self.note]
        return "\n".join(lines)

    @classmethod
    def parse(cls, text: str) -> Proof:
        """Read one. Raises `BadInput`."""
        first, separator, note = text.partition("\n\n")
        lines = first.split("\n")
        try:
            extra = lines[1].removeprefix("extra ")
            index = lines[2].removeprefix("index ")
            if lines[0] != MAGIC or not separator or len(lines) > _LONGEST_PATH + 3:
                raise BadInput("file", "not a proof of the audit log")
            line = _line.decode(base64.b64decode(extra, validate=True))
            path = [base64.b64decode(node, validate=True) for node in lines[3:]]
            return cls(line=line, index=int(index), path=path, note=note)
        except (ValueError, IndexError, msgspec.MsgspecError) as error:
            raise BadInput("file", f"not a proof of an event: {error}") from error


async def prove(
    connection: Connection, topology: Topology, seq: int, keys: tuple[PublicKey, ...] = ()
) -> Proof:
    """The proof that event `seq` is in the tree of the last checkpoint.

    Raises `BadInput` if it is not audited or not signed yet, `AuditBroken`.
    """
    signed = await latest_checkpoint(connection, topology, keys)
    if signed is None:
        raise BadInput("checkpoint", "AUDIT holds none of this log yet: the ledger signs them")
    tree = AuditTree(connection, topology)
    found = await tree.find(seq)
    if found is None:
        raise BadInput("event", f"the audit log has no event {seq}")
    if found.index >= signed.size:
        raise BadInput("event", f"no checkpoint covers event {seq} yet: wait a few seconds")
    path = await tree.inclusion(found.index, signed.size)
    if not is_included(
        leaf_hash(found.data), found.index, size=signed.size, proof=path, root=signed.root
    ):
        raise AuditBroken([f"leaf {found.index} (event {seq}) in AUDIT is not what was signed"])
    records: list[Record] = []  # a reader's copy: a direct get would add to the headers
    await scan(connection, topology.journal, records.append, first=seq, last=seq)
    record = records[0] if records else None
    line = event_line(found.index, found.data, seq, record)
    return Proof(line=line, index=found.index, path=path, note=signed.note)


def check_proof(text: str, keys: tuple[PublicKey, ...] = ()) -> ProofReport:
    """Verify a proof. Raises `BadInput` if it is none."""
    proof = Proof.parse(text)
    findings = Findings()
    leaf: Leaf | None = None
    try:
        signed: Checkpoint | None = Checkpoint.read(proof.note, keys)
    except NoteBroken:
        findings.add("checkpoint-forged", 0)
        signed = None
    try:
        leaf = decode_leaf(proof.line.leaf)
        if not proof.line.absent:
            record = record_of(proof.line)
            if record.seq != leaf.seq or hashes(record)[0] != event_hash(leaf):
                findings.add("event-changed", leaf.seq)
    except BadInput:
        findings.add("event-changed", proof.line.seq)
    digest = leaf_hash(proof.line.leaf.encode())
    if signed is not None and not is_included(
        digest, proof.index, size=signed.size, proof=proof.path, root=signed.root
    ):
        findings.add("events-replaced", proof.line.seq)
    return ProofReport(
        ok=not findings,
        origin="" if signed is None else signed.origin,
        size=0 if signed is None else signed.size,
        index=proof.index,
        leaf={} if leaf is None else _shown(leaf),
        signed=bool(keys),
        absent=proof.line.absent,
        findings=findings.told(),
    )


def _shown(leaf: Leaf) -> dict[str, object]:
    return dict(zip(Leaf.__struct_fields__, msgspec.structs.astuple(leaf), strict=True))
