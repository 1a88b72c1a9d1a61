-- What a projector keeps of a journal. Plain Postgres 15 or later and Supabase take it unchanged, by
-- `callboard projector migrate`, psql or `supabase db push`; a second time changes nothing.
--
-- stream: the journal's name and when it was created, so that another journal never mixes with it.
-- seq: a sequence of that journal. Names that end in _at are Unix milliseconds of the server's clock.
-- last_seq: the position of the journal at which the row was written last.

create table if not exists public.callboard_migrations (
  version text primary key,
  applied_at timestamptz not null default now()
);

-- How far each journal was projected. The position moves in the transaction that writes the rows.
create table if not exists public.callboard_streams (
  stream text primary key,
  board text not null,
  position bigint not null default 0,
  at bigint not null default 0,
  epoch bigint not null default 0,
  void bigint not null default 0,
  malformed bigint not null default 0,
  updated_at timestamptz not null default now()
);

create table if not exists public.callboard_workflows (
  stream text not null,
  seq bigint not null,
  id text not null,
  tenant text not null,
  name text not null,
  state text not null,
  generation integer not null,
  posted_at bigint not null,
  ended_at bigint,
  end_seq bigint,
  shard integer,
  flow text,
  step text,
  idx bigint,
  cancel text,
  paused boolean not null,
  used jsonb,
  error jsonb,
  steps jsonb not null,  -- as `callboard status` shows them
  waits jsonb not null,  -- open gates
  plan jsonb not null,   -- as the ledger keeps them, for a restore
  past jsonb,
  edits jsonb,
  woken boolean not null,
  last_seq bigint not null,
  primary key (stream, seq)
);

create table if not exists public.callboard_tasks (
  stream text not null,
  seq bigint not null,
  id text not null,
  tenant text not null,
  capability text not null,
  state text not null,
  attempt integer not null,
  lost integer not null,
  unstarted integer not null,
  errors integer not null,
  generation integer not null,
  priority integer not null,
  shard integer,
  posted_at bigint,
  dispatched_at bigint,
  ended_at bigint,
  host text,
  dispatch_seq bigint,
  end_seq bigint,
  flow text,
  step text,
  idx bigint,
  parent text,
  not_before bigint,
  cancel text,
  paused boolean not null,
  used jsonb,
  error jsonb,
  past jsonb,
  payload_seq bigint,
  agent jsonb,  -- name and version of the handler that failed last
  draws jsonb,  -- further budgets by name, and units that an attempt reserves
  last_seq bigint not null,
  primary key (stream, seq)
);

create table if not exists public.callboard_schedules (
  stream text not null,
  seq bigint not null,
  id text not null,
  tenant text not null,
  capability text not null,
  cron jsonb not null,
  state text not null,
  priority integer not null,
  posted_at bigint not null,
  ended_at bigint,
  end_seq bigint,
  shard integer,
  error jsonb,
  number bigint not null,
  next_at bigint,
  cancel text,
  paused boolean not null,
  draws jsonb,
  last_seq bigint not null,
  primary key (stream, seq)
);

create table if not exists public.callboard_commands (
  stream text not null,
  seq bigint not null,
  tenant text not null,
  verb text not null,
  target text not null,
  "by" text not null,
  reason text not null,
  shard integer,
  posted_at bigint not null,
  end_seq bigint,
  state text not null,
  error jsonb,
  source text,
  edits boolean not null,
  done boolean not null,
  last_seq bigint not null,
  primary key (stream, seq)
);

-- A post that repeats another one.
create table if not exists public.callboard_merges (
  stream text not null,
  seq bigint not null,
  tenant text not null,
  same_as text not null,
  last_seq bigint not null,
  primary key (stream, seq)
);

-- Every message of the journal. data: null where it is too long, or no JSON object; secrets of
-- attempts are left out. verdict: accepted, void or malformed.
create table if not exists public.callboard_events (
  stream text not null,
  seq bigint not null,
  at bigint not null,
  tenant text not null,
  kind text not null,
  task text not null,
  actor text not null,
  verdict text not null,
  bytes integer not null,
  payload_hash bytea not null,
  data jsonb,
  primary key (stream, seq)
);

-- One row for each leaf of the audit log. proof: room for an inclusion proof.
create table if not exists public.callboard_audit (
  stream text not null,
  seq bigint not null,
  at bigint not null,
  tenant text not null,
  actor text not null,
  action text not null,
  resource text not null,
  event_hash bytea not null,
  payload_hash bytea not null,
  proof jsonb,
  primary key (stream, seq)
);

-- What hosts have to give and have promised, as they said last.
create table if not exists public.callboard_allocations (
  board text not null,
  pool text not null,
  host text not null,
  tenant text not null,  -- whose pool it is; empty for the shared one
  incarnation text not null,
  node text not null,
  seen_at bigint not null,
  gone boolean not null,
  cpus double precision not null,
  cpu_used double precision not null,
  cpu_allocated double precision not null,
  memory_mb double precision not null,
  memory_mb_free double precision not null,
  memory_mb_allocated double precision not null,
  slots integer not null,
  free integer not null,
  attempts jsonb not null,  -- [task, attempt] of each that runs there
  offers jsonb not null,
  primary key (board, pool, host)
);

-- Attempts of an hour (of Unix time) by how they ended and how long they took. wait: from when a task
-- could run to its first dispatch; handoff: from a dispatch to its handler's start; run: the handler.
-- Each of these counts durations by bucket: bucket 0 is less than a millisecond, bucket n is
-- 1.08^(n-1) to 1.08^n of them.
create table if not exists public.callboard_performance (
  stream text not null,
  hour bigint not null,
  tenant text not null,
  capability text not null,
  agent text not null,
  version text not null,
  succeeded bigint not null,
  failed bigint not null,
  lost bigint not null,
  wait jsonb not null,
  handoff jsonb not null,
  run jsonb not null,
  used jsonb not null,
  last_seq bigint not null,
  primary key (stream, hour, tenant, capability, agent, version)
);

-- What each attempt held: a place in a queue of a pool, from its dispatch (seq, since) to its outcome
-- or loss (end_seq, returned_at, ending). started_at, ended_at: by the host's clock.
create table if not exists public.callboard_attempts (
  stream text not null,
  seq bigint not null,
  task text not null,
  attempt integer not null,
  tenant text not null,
  pool text not null,
  capability text not null,
  since bigint not null,
  host text,
  end_seq bigint,
  returned_at bigint,
  ending text,
  started_at bigint,
  ended_at bigint,
  last_seq bigint not null,
  primary key (stream, seq)
);

-- Budgets that are limited or in use. tenant: whose it is, if it is a tenant's; else empty.
create table if not exists public.callboard_budgets (
  stream text not null,
  key text not null,
  tenant text not null,
  base jsonb,     -- what the settings say
  changed jsonb,  -- what was set on the running board
  "limit" jsonb,  -- what holds
  in_use integer not null,
  most integer not null,
  exceeded bigint not null,
  reserved jsonb not null,
  used jsonb not null,
  last_seq bigint not null,
  primary key (stream, key)
);

-- Tasks that failed or expired alike: how many, and the last one as an example.
create table if not exists public.callboard_failures (
  stream text not null,
  tenant text not null,
  type text not null,
  pattern text not null,
  capability text not null,
  agent text not null,
  version text not null,
  count bigint not null,
  first_at bigint not null,
  last_at bigint not null,
  example text not null,
  message text not null,
  last_seq bigint not null,
  primary key (stream, tenant, type, pattern, capability, agent, version)
);

-- Secrets of running attempts and of lost ones whose cost may still come: the fold needs them, no
-- tenant sees them.
create table if not exists public.callboard_secrets (
  stream text not null,
  seq bigint not null,
  secret text not null,
  void jsonb,
  primary key (stream, seq)
);

-- Rows that the database refused, with its reason. doc: the row's JSON, as bytes.
create table if not exists public.callboard_parked (
  stream text not null,
  kind text not null,
  seq bigint not null,
  id text not null,
  sqlstate text not null,
  reason text not null,
  doc bytea not null,
  last_seq bigint not null,
  parked_at timestamptz not null default now(),
  primary key (stream, kind, seq, id)
);

create unique index if not exists callboard_workflows_id on public.callboard_workflows (stream, id);
create index if not exists callboard_workflows_tenant on public.callboard_workflows (tenant, seq);
create index if not exists callboard_workflows_flow
  on public.callboard_workflows (stream, flow, seq) where flow is not null;
create index if not exists callboard_workflows_state
  on public.callboard_workflows (stream, state, seq) where state <> 'succeeded';
create unique index if not exists callboard_tasks_id on public.callboard_tasks (stream, id);
create index if not exists callboard_tasks_tenant on public.callboard_tasks (tenant, seq);
create index if not exists callboard_tasks_capability
  on public.callboard_tasks (stream, capability, seq);
create index if not exists callboard_tasks_flow
  on public.callboard_tasks (stream, flow, seq) where flow is not null;
create index if not exists callboard_tasks_state
  on public.callboard_tasks (stream, state, seq) where state <> 'succeeded';
create index if not exists callboard_tasks_dead on public.callboard_tasks (stream, end_seq)
  where state in ('failed', 'cancelled', 'expired');
create index if not exists callboard_schedules_tenant on public.callboard_schedules (tenant, seq);
create index if not exists callboard_commands_target
  on public.callboard_commands (stream, target, seq);
create index if not exists callboard_performance_tenant
  on public.callboard_performance (tenant, hour);
create index if not exists callboard_attempts_held
  on public.callboard_attempts (stream, seq) where end_seq is null;
create index if not exists callboard_attempts_tenant on public.callboard_attempts (tenant, seq);
create index if not exists callboard_events_tenant on public.callboard_events (tenant, seq);
create index if not exists callboard_events_task on public.callboard_events (stream, task, seq);
create index if not exists callboard_audit_tenant on public.callboard_audit (tenant, seq);

-- What happened stays as it was written.
create or replace function public.callboard_append_only() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception '% is append-only: no % of what is there', tg_table_name, lower(tg_op)
    using errcode = '42501';
end $$;

do $$
declare
  name text;
begin
  foreach name in array array['callboard_events', 'callboard_audit'] loop
    execute format('drop trigger if exists append_only on public.%I', name);
    execute format(
      'create trigger append_only before update or delete or truncate on public.%I '
      'for each statement execute function public.callboard_append_only()', name);
  end loop;
end $$;

insert into public.callboard_migrations (version) values ('20261126000000') on conflict do nothing;
