#!/bin/sh
# Posts a task with the `nats` command (github.com/nats-io/natscli), and asks what became of it.
# Needs `callboard up --agents ../hello/hello_agents.py`; NATS_URL says where, if not here.
set -eu
export NATS_URL="${NATS_URL:-nats://127.0.0.1:4222}"

# Post and forget: this line alone is enough.
nats pub cb.task.acme.hello '{"payload": {"name": "shell"}}'

# Post as a request: JetStream answers where the post was stored, and that is the task's id.
stored="$(nats req --raw cb.task.acme.hello '{"payload": {"name": "shell"}, "key": "'"shell-$$"'"}')"
task="$(printf '%s' "$stored" | sed -n 's/.*"seq": *\([0-9]*\).*/\1/p')"
echo "task $task is stored"

# The ledger answers questions. `fresh`: after everything that is stored by now.
while :; do
    view="$(nats req --raw cb.ask.acme.status '{"id": "'"$task"'", "fresh": true}')"
    case "$view" in
        *'"state":"waiting"'* | *'"state":"running"'*) sleep 0.2 ;;
        *) break ;;
    esac
done
echo "$view"
