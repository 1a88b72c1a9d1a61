"""Whether outcomes were signed by the hosts that they name.

Which key is whose, the ledger wrote into AUDIT when the host announced it. An outcome of a host
whose keys are known must be signed by one of them; one of a host that never announced any counts as
unattested, and is no finding: signing is a setting.
"""

from __future__ import annotations

import msgspec

from callboard_broker.outcome_signature import OutcomeSignature
from callboard_broker.record import Record
from callboard_broker.signing import PublicKey
from callboard_ledger.findings import Findings
from callboard_ledger.records import HostKey

__all__ = ["OutcomeCheck"]

_MARK = ".outcome."


class _Claim(msgspec.Struct):
    host: str = ""


_claim = msgspec.json.Decoder(_Claim)


class OutcomeCheck:
    """signed: outcomes whose signature holds. unattested: outcomes that no known key stands for."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._keys: dict[str, list[PublicKey]] = {}
        self._silent: set[str] = set()
        self._hosts: set[str] = set()  # of any pool
        self.signed = 0
        self.unattested = 0

    def learn(self, said: HostKey) -> None:
        """A record of AUDIT: this host has announced this key, or that it has none."""
        self._hosts.add(said.host)
        if said.key is None:
            self._silent.add(said.host)
        else:
            self._keys.setdefault(said.name, []).append(PublicKey(said.name, said.key))

    def event(self, record: Record) -> None:
        """Look at an event of the journal, if it is an outcome."""
        if _MARK not in record.subject:
            return
        signature = OutcomeSignature.read(record.headers)
        if signature is None and not self._hosts:
            self.unattested += 1
            return
        try:
            host = _claim.decode(record.data).host
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # no outcome at all: the fold passes it over
        if signature is None:
            if host in self._hosts and host not in self._silent:
                self._findings.add("outcome-unsigned", record.seq)
            else:
                self.unattested += 1
            return
        tenant = record.subject.split(".")[2]
        known = self._keys.get(f"{signature.pool}/{host}", ())
        own = signature.pool in ("shared", tenant)
        if own and any(signature.holds(key, record.subject, record.data) for key in known):
            self.signed += 1
        elif known or host in self._hosts:
            self._findings.add("outcome-forged", record.seq)
        else:
            self.unattested += 1
