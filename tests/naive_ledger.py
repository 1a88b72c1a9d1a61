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
        elif words[3] in ("dispatch", "mailbox"):
            box = words[4] if words[3] == "mailbox" else None
            if body.get("host") == box:
                self._event("dispatch", words[2], record.seq, body)
        elif body and body.get("kind") == words[3] and len(words[-1]) < 4:
            self._event(words[3], words[2], record.seq, body)

    # -- what is posted

    def _post(self, record: Record, tenant: str, capability: str, body: Any) -> None:
        name = str(record.seq)
        good = isinstance(body, dict) and body.get("priority", 5) <= 9
        task = self._new(tenant, capability, failed=not good)
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
        else:
            self.tasks[name] = task

    def _flow(self, name: str, tenant: str, verb: str, body: Any) -> None:
        if verb != "run":
            known = verb in _VERBS and isinstance(body, dict) and "id" in body
            target = body["id"] if known else ""
            self.commands[name] = {"tenant": tenant, "verb": verb, "target": target}
            return
        ids = [step["id"] for step in body["steps"]] if body and "steps" in body else []
        self.flows[name] = self._layout(tenant, ids if "plan" in ids else [])

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
            return False
        error = "error" in body
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
        return self._new(tenant, CAPABILITIES[step]) if step in home["steps"] else None
