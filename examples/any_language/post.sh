#!/bin/sh
# Posts a task with the `nats` command of github.com/nats-io/natscli, and shows its outcome.
# Needs `callboard up --agents ../hello/hello_agents.py`; NATS_URL says where, if not here.
set -eu
export NATS_URL="${NATS_URL:-nats://127.0.0.1:4222}"

# Shard 7 is where we listen: any number from 0 to 255. Listen first, then post.
told="$(mktemp)"
trap 'rm -f "$told"' EXIT
nats sub cb.told.acme.7 --count=1 --raw --wait=20s >"$told" &
listening=$!
sleep 1

nats pub cb.task.acme.hello '{"payload": {"name": "shell"}, "shard": 7}'
wait "$listening"
cat "$told"
