"""PROTOCOL.md again, in plain dictionaries that forget nothing: of the ledger's code it shares
nothing but the shape of what it is compared with. Resumed workflows it does not know."""

from __future__ import annotations

import json
from typing import Any

from callboard_broker.record import Record

__all__ = ["NaiveFold"]

CAPABILITIES = {
    "plan": "planner",
    "build": "builder",
    "check": "checker",
    "report": "writer",
    "sub": "",
    "ask": "",
    "ship": "shipper",
    "one": "worker",
    "two": "worker",
}
_COUNTS = ("running", "succeeded", "failed", "cancelled", "skipped")
_VERBS = ("approve", "cancel", "pause", "redrive", "resume", "signal")
LIVE = ("waiting", "running")


class NaiveFold:
    """Feed it every record in order, then compare."""

    def __init__(self) -> None:
        self.epoch = 0
        self.tasks: dict[str, dict[str, Any]] = {}
        self.flows: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.merges: set[int] = set()
        self._voids: dict[int, dict[int, str]] = {}
        self.allocations: dict[int, dict[str, Any]] = {}
        self.base: dict[str, Any] = {}
        self.set: dict[str, dict[str, Any]] = {}
        self.used: dict[str, dict[str, float]] = {}

    def apply(self, record: Record) -> None:
        words = record.subject.split(".")
        try:
            body = json.loads(record.data, parse_constant=float)
        except (ValueError, RecursionError):
            body = None
        if words[1] == "task":
            if words[2].islower() and "*" not in words:
                self._post(record, words[2], ".".join(words[3:]), body)
        elif words[1] == "flow":
            self._flow(str(record.seq), words[2], words[3], body)
        elif words[2] == "epoch":
            self.epoch = record.seq
        elif len(words) < 4:
            return
        elif words[3] in ("dispatch", "mailbox"):
            box = words[4] if words[3] == "mailbox" else None
            if body.get("host") == box:
                before = self._attempt(body)
                self._event("dispatch", words[2], record.seq, body)
                if self._attempt(body) != before:
                    self._hold(record, words, body)
        elif words[3] == "budget":
            if body["epoch"] == self.epoch:
                self._budget(body)
        elif body and body.get("kind") == words[3] and len(words[-1]) < 4:
            self._event(words[3], words[2], record.seq, body)

    # -- what is posted

    def _post(self, record: Record, tenant: str, capability: str, body: Any) -> None:
        name = str(record.seq)
        good = isinstance(body, dict) and body.get("priority", 5) <= 9
        task = self._new(tenant, capability, failed=not good)
        if good:
            task["draws"] = (tuple(body.get("budgets", ())), body.get("units", {}))
        parent = body.get("parent") if good else None
        if parent is not None:
            found = self.tasks.get(parent["task"])
            proof = (parent["attempt"], parent["secret"], tenant, "running")
            if found is None or proof != (
                found["attempt"],
                found["secret"],
                found["tenant"],
                found["state"],
            ):
                task["failed"] = True
            else:
                task["parent"] = parent["task"]
        if good and "cron" in body:
            self.schedules[name] = {"tenant": tenant, "state": "waiting", "number": 0}
            self.schedules[name]["draws"] = task["draws"]
        else:
            self.tasks[name] = task

    def _flow(self, name: str, tenant: str, verb: str, body: Any) -> None:
        if verb != "run":
            known = verb in _VERBS and isinstance(body, dict) and "id" in body
            target = body["id"] if known else ""
            self.commands[name] = {"tenant": tenant, "verb": verb, "target": target}
            return
        steps = body["steps"] if body and "steps" in body else []
        ids = [step["id"] for step in steps]
        flow = self.flows[name] = self._layout(tenant, ids if "plan" in ids else [])
        flow["draws"] = {
            step["id"]: (tuple(step.get("budgets", ())), step.get("units", {})) for step in steps
        }

    def _layout(self, tenant: str, ids: list[str]) -> dict[str, Any]:
        totals = {name: None if name in ("build", "check") else 1 for name in ids}
        return {
            "tenant": tenant,
            "state": "waiting",
            "end_seq": None,
            "steps": {name: [total, 0, 0, 0, 0, 0] for name, total in totals.items()},
        }

    def _new(self, tenant: str, capability: str, *, failed: bool = False) -> dict[str, Any]:
        return {
            "tenant": tenant,
            "state": "waiting",
            "attempt": 0,
            "lost": 0,
            "unstarted": 0,
            "errors": 0,
            "generation": 0,
            "secret": "",
            "failed": failed,
            "host": None,
            "dispatch_seq": None,
            "end_seq": None,
            "capability": capability,
            "parent": None,
            "used": 0.0,
            "checkpoints": 0,
            "draws": ((), {}),
        }

    # -- what the router and the hosts say

    def _event(self, kind: str, tenant: str, seq: int, body: dict[str, Any]) -> None:
        if kind not in ("outcome", "checkpoint") and body.get("epoch") != self.epoch:
            return
        name = body.get("task", "")
        if kind == "answered":
            command = self.commands.get(name)
            if command is not None and command["tenant"] == tenant:
                del self.commands[name]
                self._carry_out(command, body)
            return
        if kind == "entered":
            self._enter(name, tenant)
            return
        for rows, change in ((self.flows, self._flow_event), (self.schedules, self._fire)):
            row = rows.get(name)
            if row is not None and row["tenant"] == tenant:
                change(kind, seq, row, body)
                return
        if kind == "merged" and name in self.commands:
            if self.commands[name]["tenant"] == tenant:
                del self.commands[name]
                self.merges.add(int(name))
            return
        self._task_event(kind, tenant, seq, body)

    def _task_event(self, kind: str, tenant: str, seq: int, body: dict[str, Any]) -> None:
        name = body.get("task", "")
        task = self.tasks.get(name)
        if task is None and kind in ("dispatch", "settled", "skipped"):
            task = self._step(name, tenant)
            if task is not None and (kind != "dispatch" or body["attempt"] == 1):
                self.tasks[name] = task
        if task is None or task["tenant"] != tenant:
            return
        self._wake(kind, name, task, body)
        before = task["state"]
        if kind == "skipped" and (".cron." in name or name.count(".") < 2):
            return
        if not self._changes(kind, seq, task, body):
            return
        if kind == "merged":
            if "." not in name:
                del self.tasks[name]
                self.merges.add(int(name))
            return
        home = self._home(name)
        if home is not None:
            self._counted(home, name, before, task)
            if task["state"] == "running" and home["state"] == "waiting":
                home["state"] = "running"

    def _home(self, name: str) -> dict[str, Any] | None:
        return self.flows.get(name.rsplit(".", 2)[0]) if name.count(".") >= 2 else None

    def _counted(self, home: dict[str, Any], name: str, before: str, row: dict[str, Any]) -> None:
        counts = home["steps"].get(name.rsplit(".", 2)[1])
        if counts is None:
            return
        counts[1] += (row["state"] == "running") - (before == "running")
        counts[2] += row["state"] == "succeeded"
        counts[3] += row["state"] in ("failed", "expired")
        counts[4] += row["state"] == "cancelled" and not row.get("skipped", False)
        counts[5] += row["state"] == "cancelled" and row.get("skipped", False)

    def _wake(self, kind: str, name: str, task: dict[str, Any], body: dict[str, Any]) -> None:
        """The router goes on with a dead letter before it says that it carried out the redrive."""
        if kind not in ("dispatch", "settled"):
            return
        if kind == "dispatch" and body["attempt"] != task["attempt"] + 1:
            return
        if task["state"] not in ("failed", "cancelled", "expired") or self._home(name) is not None:
            return
        for command in self.commands.values():
            asked = (command["verb"], command["target"], command["tenant"])
            if asked == ("redrive", name, task["tenant"]) and not command.get("done"):
                command["done"] = True
                self._revive(task)
                return

    def _carry_out(self, command: dict[str, Any], body: dict[str, Any]) -> None:
        task = self.tasks.get(command["target"])
        if "error" in body or command["verb"] != "redrive" or command.get("done") or task is None:
            return
        dead = task["state"] in ("failed", "cancelled", "expired")
        if dead and task["tenant"] == command["tenant"] and self._home(command["target"]) is None:
            self._revive(task)

    def _revive(self, task: dict[str, Any]) -> None:
        task |= {"state": "waiting", "secret": "", "failed": False, "host": None}
        task |= {"lost": 0, "unstarted": 0, "errors": 0, "dispatch_seq": None, "end_seq": None}
        task["generation"] += 1

    def _changes(self, kind: str, seq: int, task: dict[str, Any], body: dict[str, Any]) -> bool:
        current = task["state"] == "running" and body.get("attempt") == task["attempt"]
        waits = task["state"] == "waiting"
        if kind == "dispatch":
            if not waits or task["failed"] or body["attempt"] != task["attempt"] + 1:
                return False
            task |= {"state": "running", "attempt": body["attempt"], "secret": body["secret"]}
            task |= {"dispatch_seq": seq, "host": body.get("host"), "checkpoints": 0}
            if body["attempt"] == 1 and ".undo." in body["task"]:
                task["capability"] = "review.python"
        elif kind == "outcome":
            return self._outcome(seq, task, body, current=current)
        elif kind == "checkpoint":
            known = current and body["secret"] == task["secret"]
            if not known or body["number"] <= task["checkpoints"]:
                return False
            task["checkpoints"] = body["number"]
        elif kind == "lost":
            if not current:
                return False
            self._void(task)[body["attempt"]] = task["secret"]
            self._returned(body["task"], seq, body, "lost")
            task |= {"secret": "", "state": "waiting", "host": body.get("host")}
            task["lost" if body.get("started", True) else "unstarted"] += 1
        elif kind == "retrying":
            if not waits or not task["failed"] or body["attempt"] != task["attempt"]:
                return False
            task["failed"] = False
            task["errors"] += 1
        else:
            return self._ends(kind, seq, task, body)
        return True

    def _ends(self, kind: str, seq: int, task: dict[str, Any], body: dict[str, Any]) -> bool:
        if task["state"] != "waiting" or kind not in ("settled", "skipped", "merged"):
            return False
        if kind == "merged":
            return bool(task["attempt"] == 0)
        if kind == "settled":
            task |= {"state": body["state"], "end_seq": seq}
            task["failed"] = task["failed"] or "error" in body
        else:
            task |= {"state": "cancelled", "end_seq": seq, "failed": True, "skipped": True}
        return True

    def _void(self, task: dict[str, Any]) -> dict[int, str]:
        return self._voids.setdefault(id(task), {})

    def _outcome(
        self, seq: int, task: dict[str, Any], body: dict[str, Any], *, current: bool
    ) -> bool:
        spent = body.get("used", {})
        used = sum(spent.values())
        if not current or body["secret"] != task["secret"]:
            void = self._void(task)
            if spent and task["state"] in LIVE and void.get(body["attempt"]) == body["secret"]:
                del void[body["attempt"]]
                task["used"] += used
                reserved = task["draws"][1]
                if reserved:
                    late = {unit: n - reserved.get(unit, 0.0) for unit, n in spent.items()}
                    self._spend(task, late)
            return False
        error = "error" in body
        self._returned(body["task"], seq, body, "failed" if error else "succeeded")
        task |= {"secret": "", "host": body["host"], "failed": error}
        task |= {"state": "waiting" if error else "succeeded", "end_seq": None if error else seq}
        task["used"] += used
        return True

    # -- workflows and schedules

    def _flow_event(self, kind: str, seq: int, flow: dict[str, Any], body: dict[str, Any]) -> None:
        name = body["task"]
        steps = {
            task: row
            for task, row in (self.tasks | self.flows).items()
            if task.rsplit(".", 2)[0] == name and task != name
        }
        live = flow["state"] in LIVE
        inside = {
            task: row
            for task, row in (self.tasks | self.flows).items()
            if task.startswith(f"{name}.") and row["state"] in LIVE
        }
        running = any(
            row["state"] == "running" for task, row in inside.items() if task in self.tasks
        )
        if kind == "settled" and live and not running:
            before = flow["state"]
            flow |= {"state": body["state"], "end_seq": seq}
            for task, row in inside.items():
                was = row["state"]
                row |= {"state": "cancelled", "end_seq": seq}
                if task in self.tasks:
                    row["failed"] = True
                around = self._home(task)
                if around is not None:
                    self._counted(around, task, was, row)
            home = self._home(name)
            if home is not None:
                self._counted(home, name, before, flow)
        elif kind == "expanded" and live and body["step"] == "build" and "build" in flow["steps"]:
            build, check = flow["steps"]["build"], flow["steps"]["check"]
            if build[0] is None and "error" in body:
                build[0] = build[3] = 1
            elif build[0] is None:
                build[0] = check[0] = body.get("items", 0)
        elif kind == "merged" and flow["state"] == "waiting" and not steps and "." not in name:
            del self.flows[name]
            self.merges.add(int(name))

    def _enter(self, name: str, tenant: str) -> None:
        home = self._home(name)
        if home is None or home["tenant"] != tenant or home["state"] not in LIVE:
            return
        if name in self.flows or name.split(".")[-2] != "sub" or "sub" not in home["steps"]:
            return
        row = self.tasks.get(name)
        if row is not None and row["state"] != "waiting":
            return
        self.tasks.pop(name, None)
        self.flows[name] = self._layout(tenant, ["one", "two"]) | {"state": "running"}
        home["steps"]["sub"][1] += 1
        if home["state"] == "waiting":
            home["state"] = "running"

    def _fire(self, kind: str, _seq: int, row: dict[str, Any], body: dict[str, Any]) -> None:
        live = row["state"] == "waiting"
        if kind == "settled" and live:
            row["state"] = body["state"]
        elif kind == "fired" and live and body["number"] in (row["number"], row["number"] + 1):
            if body["number"] > row["number"]:
                row["number"] = body["number"]
                made = self._new(row["tenant"], "review.python")
                made["draws"] = row["draws"]
                self.tasks[f"{body['task']}.cron.{row['number']}"] = made
        elif kind == "merged" and live and row["number"] == 0:
            del self.schedules[body["task"]]
            self.merges.add(int(body["task"]))

    def _step(self, name: str, tenant: str) -> dict[str, Any] | None:
        home = self._home(name)
        if home is None or home["tenant"] != tenant or name in self.flows:
            return None
        step, _, index = name.rpartition(".")
        step = step.rpartition(".")[2]
        if home["state"] not in LIVE or not home["steps"] or not index.isdecimal():
            return None
        if step == "undo":
            return self._new(tenant, "")
        if step not in home["steps"]:
            return None
        made = self._new(tenant, CAPABILITIES[step])
        made["draws"] = home.get("draws", {}).get(step, ((), {}))
        return made

    # -- what attempts hold, and what they take of budgets

    def _attempt(self, body: dict[str, Any]) -> tuple[int | None, str | None]:
        task = self.tasks.get(body["task"], {})
        return task.get("dispatch_seq"), task.get("state")

    def _hold(self, record: Record, words: list[str], body: dict[str, Any]) -> None:
        boxed = words[3] == "mailbox"
        self.allocations[record.seq] = {
            "task": body["task"],
            "attempt": body["attempt"],
            "tenant": words[2],
            "pool": body["pool"] if boxed else words[4],
            "capability": body["capability"] if boxed else ".".join(words[5:]),
            "since": record.at_ns // 1_000_000,
            "host": body.get("host"),
            "end_seq": None,
            "ending": None,
        }

    def _returned(self, name: str, seq: int, body: dict[str, Any], ending: str) -> None:
        task = self.tasks[name]
        row = self.allocations[task["dispatch_seq"]]
        row |= {"end_seq": seq, "ending": ending, "host": body.get("host") or row["host"]}
        self._spend(task, task["draws"][1] | body.get("used", {}))

    def _spend(self, task: dict[str, Any], amounts: dict[str, float]) -> None:
        for key in self._keys(task):
            if self.limit(key) is not None:
                used = self.used.setdefault(key, {})
                for unit, amount in amounts.items():
                    used[unit] = used.get(unit, 0.0) + amount

    def _keys(self, task: dict[str, Any]) -> list[str]:
        tenant, capability = task["tenant"], task["capability"]
        keys = ["global", f"tenant/{tenant}", f"capability/{capability}"]
        return [*keys, f"tenant/{tenant}/{capability}", *(f"key/{n}" for n in task["draws"][0])]

    def _budget(self, body: dict[str, Any]) -> None:
        if "base" in body:
            self.base = body["base"]
        for key, limit in body.get("changed", {}).items():
            if limit is None:
                self.set.pop(key, None)
            else:
                self.set[key] = _merged(self.set.get(key), limit)
        for key in [*self.used]:
            if self.limit(key) is None:
                del self.used[key]

    def limit(self, key: str) -> dict[str, Any] | None:
        """What holds for a budget; None: nothing limits it."""
        around = ["tenant"] if key.startswith("tenant/") and key.count("/") == 1 else []
        said = [
            all_of[name]
            for name in (*around, key)
            for all_of in (self.base, self.set)
            if name in all_of
        ]
        return _merged(*said) if said else None

    def accounts(self) -> dict[str, dict[str, Any]]:
        """Every budget that is limited or in use, worked out from what runs."""
        found: dict[str, dict[str, Any]] = {}
        running = [task for task in self.tasks.values() if task["state"] == "running"]
        keys = {key for task in running for key in self._keys(task)}
        for key in keys | self.base.keys() | self.set.keys() | self.used.keys():
            mine = [task for task in running if key in self._keys(task)]
            reserved: dict[str, float] = {}
            for task in mine:
                for unit, amount in task["draws"][1].items():
                    reserved[unit] = reserved.get(unit, 0.0) + amount
            used = {unit: amount for unit, amount in self.used.get(key, {}).items() if amount}
            row = {"limit": self.limit(key), "in_use": len(mine)}
            found[key] = row | {"reserved": reserved, "used": used}
        return found


def _merged(*limits: dict[str, Any] | None) -> dict[str, Any]:
    """The later ones come first, field by field."""
    found: dict[str, Any] = {"units": {}}
    for limit in limits:
        if limit is not None:
            units = found["units"] | limit.get("units", {})
            found = found | limit | {"units": units}
    return found
