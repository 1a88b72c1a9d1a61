-- The functions that a projector calls. Each takes and returns one JSON document, as text on the
-- way in, so that numbers arrive as they were written.

-- One batch, its rows and the new position, in one transaction. Nothing is written unless the
-- stored position is the batch's `after`: so of two projectors one wins, and a batch whose answer
-- was lost is not applied twice. trial: undone at the end.
create or replace function public.callboard_project(batch text) returns jsonb
language plpgsql set search_path = '' as $$
declare
  b jsonb := batch::jsonb;
  reached bigint;
begin
  select position into reached from public.callboard_streams where stream = b->>'stream' for update;
  if not found then
    insert into public.callboard_streams (stream, board) values (b->>'stream', b->>'board')
      on conflict do nothing;
    select position into reached
      from public.callboard_streams where stream = b->>'stream' for update;
  end if;
  if reached <> (b->>'after')::bigint then
    return jsonb_build_object('position', reached, 'stored', false);
  end if;
  if b ? 'trial' then
    begin
      perform public.callboard_write(b);
      raise exception using errcode = 'CB000', message = 'only a trial';
    exception when sqlstate 'CB000' then
      return jsonb_build_object('position', reached, 'stored', false);
    end;
  end if;
  perform public.callboard_write(b);
  update public.callboard_streams set
      position = (b->>'position')::bigint, at = (b->>'at')::bigint, epoch = (b->>'epoch')::bigint,
      void = (b->>'void')::bigint, malformed = (b->>'malformed')::bigint, updated_at = now()
    where stream = b->>'stream';
  return jsonb_build_object('position', (b->>'position')::bigint, 'stored', true, 'parked',
    (select count(*) from public.callboard_parked where stream = b->>'stream'));
end $$;

create or replace function public.callboard_write(b jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  s text := b->>'stream';
  p bigint := (b->>'position')::bigint;
  common jsonb := jsonb_build_object('stream', s, 'last_seq', p);
begin
  if b ? 'event' then
    with e as materialized (
      select * from jsonb_to_recordset(b->'event') as e (
        seq bigint, at bigint, tenant text, kind text, task text, actor text, verdict text,
        bytes integer, event_hash text, payload_hash text, data jsonb)
    ), audited as (
      insert into public.callboard_audit
        (stream, seq, at, tenant, actor, action, resource, event_hash, payload_hash)
      select s, seq, at, tenant, actor, kind, task,
          decode(event_hash, 'hex'), decode(payload_hash, 'hex') from e
        on conflict (stream, seq) do nothing
    )
    insert into public.callboard_events
      (stream, seq, at, tenant, kind, task, actor, verdict, bytes, payload_hash, data)
    select s, seq, at, tenant, kind, task, actor, verdict, bytes, decode(payload_hash, 'hex'), data
      from e
      on conflict (stream, seq) do nothing;
  end if;
  if b ? 'gone' then
    delete from public.callboard_tasks t
      where t.stream = s and t.seq in (select g::bigint from jsonb_array_elements_text(b->'gone') g);
  end if;
  if b ? 'task' then
    insert into public.callboard_tasks as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_tasks, common), b->'task')
      on conflict (stream, seq) do update set
        (state, attempt, lost, unstarted, errors, generation, priority, shard, dispatched_at,
         ended_at, host, dispatch_seq, end_seq, flow, parent, capability, not_before, cancel,
         paused, used, error, past, payload_seq, agent, last_seq) =
        (excluded.state, excluded.attempt, excluded.lost, excluded.unstarted, excluded.errors,
         excluded.generation, excluded.priority, excluded.shard, excluded.dispatched_at,
         excluded.ended_at, excluded.host, excluded.dispatch_seq, excluded.end_seq, excluded.flow,
         excluded.parent, excluded.capability, excluded.not_before, excluded.cancel,
         excluded.paused, excluded.used, excluded.error, excluded.past, excluded.payload_seq,
         excluded.agent, excluded.last_seq)
      where t.last_seq < excluded.last_seq;
    delete from public.callboard_secrets x
      where x.stream = s and x.seq in
        (select (d->>'seq')::bigint from jsonb_array_elements(b->'task') d where not d ? 'secret');
    insert into public.callboard_secrets as x (stream, seq, secret, void)
    select s, (d->>'seq')::bigint, d->>'secret', nullif(d->'void', 'null')
      from jsonb_array_elements(b->'task') d where d ? 'secret'
      on conflict (stream, seq) do update set secret = excluded.secret, void = excluded.void;
  end if;
  if b ? 'flow' then
    insert into public.callboard_workflows as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_workflows, common), b->'flow')
      on conflict (stream, seq) do update set
        (state, generation, ended_at, end_seq, shard, cancel, paused, used, error, steps, waits,
         plan, past, edits, woken, last_seq) =
        (excluded.state, excluded.generation, excluded.ended_at, excluded.end_seq, excluded.shard,
         excluded.cancel, excluded.paused, excluded.used, excluded.error, excluded.steps,
         excluded.waits, excluded.plan, excluded.past, excluded.edits, excluded.woken,
         excluded.last_seq)
      where t.last_seq < excluded.last_seq;
  end if;
  if b ? 'schedule' then
    insert into public.callboard_schedules as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_schedules, common), b->'schedule')
      on conflict (stream, seq) do update set
        (state, ended_at, end_seq, error, number, next_at, cancel, paused, last_seq) =
        (excluded.state, excluded.ended_at, excluded.end_seq, excluded.error, excluded.number,
         excluded.next_at, excluded.cancel, excluded.paused, excluded.last_seq)
      where t.last_seq < excluded.last_seq;
  end if;
  if b ? 'command' then
    insert into public.callboard_commands as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_commands, common), b->'command')
      on conflict (stream, seq) do update set
        (state, end_seq, error, done, last_seq) =
        (excluded.state, excluded.end_seq, excluded.error, excluded.done, excluded.last_seq)
      where t.last_seq < excluded.last_seq;
  end if;
  if b ? 'merge' then
    insert into public.callboard_merges (stream, seq, tenant, same_as, last_seq)
    select s, (d->>'seq')::bigint, d->>'tenant', d->>'same_as', p
      from jsonb_array_elements(b->'merge') d
      on conflict (stream, seq) do nothing;
    perform public.callboard_forget(name, s, b->'merge') from unnest(array[
      'callboard_tasks', 'callboard_workflows', 'callboard_schedules', 'callboard_commands']) name;
  end if;
  if b ? 'performance' then
    insert into public.callboard_performance as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_performance, common), b->'performance')
      on conflict (stream, hour, tenant, capability, agent, version) do update set
        succeeded = t.succeeded + excluded.succeeded,
        failed = t.failed + excluded.failed,
        lost = t.lost + excluded.lost,
        wait = public.callboard_sum(t.wait, excluded.wait),
        handoff = public.callboard_sum(t.handoff, excluded.handoff),
        run = public.callboard_sum(t.run, excluded.run),
        used = public.callboard_sum(t.used, excluded.used),
        last_seq = excluded.last_seq
      where t.last_seq < excluded.last_seq;
  end if;
  if b ? 'failure' then
    insert into public.callboard_failures as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_failures, common), b->'failure')
      on conflict (stream, tenant, type, pattern, capability, agent, version) do update set
        count = t.count + excluded.count,
        first_at = least(t.first_at, excluded.first_at),
        last_at = excluded.last_at,
        example = excluded.example,
        message = excluded.message,
        last_seq = excluded.last_seq
      where t.last_seq < excluded.last_seq;
  end if;
  if b ? 'attempt' then
    insert into public.callboard_attempts as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_attempts, common), b->'attempt')
      on conflict (stream, seq) do update set
        (host, end_seq, returned_at, ending, started_at, ended_at, last_seq) =
        (excluded.host, excluded.end_seq, excluded.returned_at, excluded.ending,
         excluded.started_at, excluded.ended_at, excluded.last_seq)
      where t.last_seq < excluded.last_seq;
  end if;
  if b ? 'closed' then
    delete from public.callboard_budgets t
      where t.stream = s and t.key in (select jsonb_array_elements_text(b->'closed'));
  end if;
  if b ? 'budget' then
    insert into public.callboard_budgets as t
    select * from jsonb_populate_recordset(
        jsonb_populate_record(null::public.callboard_budgets, common), b->'budget')
      on conflict (stream, key) do update set
        (base, changed, "limit", in_use, most, exceeded, reserved, used, last_seq) =
        (excluded.base, excluded.changed, excluded."limit", excluded.in_use, excluded.most,
         excluded.exceeded, excluded.reserved, excluded.used, excluded.last_seq)
      where t.last_seq < excluded.last_seq;
  end if;
  if exists (select from public.callboard_parked where stream = s) then
    -- A row that is right now is parked no longer; an event is never written again.
    delete from public.callboard_parked x using (
      select kind, (d->>'seq')::bigint as seq
        from unnest(array['task', 'flow', 'schedule', 'command', 'merge']) kind,
          jsonb_array_elements(coalesce(b->kind, '[]')) d
      union all select 'task', g::bigint
        from jsonb_array_elements_text(coalesce(b->'gone', '[]')) g
      union all select kind, (d->>'seq')::bigint
        from unnest(array['task', 'flow', 'schedule', 'command']) kind,
          jsonb_array_elements(coalesce(b->'merge', '[]')) d
    ) right_now where x.stream = s and x.kind = right_now.kind and x.seq = right_now.seq;
  end if;
  if b ? 'parked' then
    insert into public.callboard_parked
      (stream, kind, seq, id, sqlstate, reason, doc, last_seq)
    select s, d->>'kind', (d->>'seq')::bigint, d->>'id', d->>'sqlstate', d->>'reason',
        decode(d->>'doc', 'base64'), p
      from jsonb_array_elements(b->'parked') d
      on conflict (stream, kind, seq, id) do update set
        sqlstate = excluded.sqlstate, reason = excluded.reason, doc = excluded.doc,
        last_seq = excluded.last_seq, parked_at = now();
  end if;
end $$;

-- Two objects of numbers, added name by name.
create or replace function public.callboard_sum(a jsonb, b jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_object_agg(name, total), '{}') from (
    select name, sum(amount::numeric) as total
      from (select * from jsonb_each_text(a) union all select * from jsonb_each_text(b))
        both_of_them (name, amount)
      group by name) sums
$$;

-- Rows of one table that turned out to be none.
create or replace function public.callboard_forget(name text, s text, merged jsonb) returns void
language plpgsql set search_path = '' as $$
begin
  execute format('delete from public.%I where stream = $1 and seq in '
    '(select (d->>''seq'')::bigint from jsonb_array_elements($2) d)', name) using s, merged;
end $$;

-- What hosts said of themselves; the later word wins.
create or replace function public.callboard_observe(batch text) returns jsonb
language plpgsql set search_path = '' as $$
begin
  insert into public.callboard_allocations as t
  select * from jsonb_populate_recordset(null::public.callboard_allocations, batch::jsonb)
    on conflict (board, pool, host) do update set
      (tenant, incarnation, node, seen_at, gone, cpus, cpu_used, cpu_allocated, memory_mb,
       memory_mb_free, memory_mb_allocated, slots, free, attempts, offers) =
      (excluded.tenant, excluded.incarnation, excluded.node, excluded.seen_at, excluded.gone,
       excluded.cpus, excluded.cpu_used, excluded.cpu_allocated, excluded.memory_mb,
       excluded.memory_mb_free, excluded.memory_mb_allocated, excluded.slots, excluded.free,
       excluded.attempts, excluded.offers)
    where t.seen_at < excluded.seen_at;
  return 'true';
end $$;

-- Rows of one kind, at most `most` of them, as an array. Filters that are left out do not count.
create or replace function public.callboard_find(question text) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  q jsonb := question::jsonb;
  name text := case q->>'kind'
    when 'stream' then 'callboard_streams' when 'task' then 'callboard_tasks'
    when 'flow' then 'callboard_workflows' when 'schedule' then 'callboard_schedules'
    when 'command' then 'callboard_commands' when 'merge' then 'callboard_merges'
    when 'secret' then 'callboard_secrets' when 'parked' then 'callboard_parked'
    when 'attempt' then 'callboard_attempts' when 'budget' then 'callboard_budgets'
    when 'performance' then 'callboard_performance'
    when 'failure' then 'callboard_failures' end;
  clauses text[] := '{}';
  sorted text := case when q ? 'after' then 'seq' else 'seq desc' end;
  field text;
  answer jsonb;
begin
  if name is null then
    raise exception 'no kind of row: %', q->>'kind' using errcode = '22023';
  end if;
  foreach field in array array['stream', 'board', 'tenant', 'capability', 'flow', 'id', 'name'] loop
    if q ? field then
      clauses := clauses || format('%I = %L', field, q->>field);
    end if;
  end loop;
  if q ? 'seq' then clauses := clauses || format('seq = %L::bigint', q->>'seq'); end if;
  if q ? 'before' then clauses := clauses || format('seq < %L::bigint', q->>'before'); end if;
  if q ? 'after' then clauses := clauses || format('seq > %L::bigint', q->>'after'); end if;
  if q ? 'states' then
    clauses := clauses || format('state = any(%L::text[])',
      array(select jsonb_array_elements_text(q->'states')));
    if not q->'states' ? 'succeeded' then clauses := clauses || text 'state <> ''succeeded'''; end if;
  end if;
  if q ? 'flows' then
    clauses := clauses || format('flow = any(%L::text[])',
      array(select jsonb_array_elements_text(q->'flows')));
  end if;
  if q ? 'targets' then
    clauses := clauses || format('target = any(%L::text[])',
      array(select jsonb_array_elements_text(q->'targets')));
  end if;
  if q ? 'steps' then clauses := clauses || text 'step is not null and posted_at is null'; end if;
  if q ? 'held' then clauses := clauses || text 'end_seq is null'; end if;
  if q ? 'roots' then clauses := clauses || text 'flow is null'; end if;
  if q ? 'alone' then clauses := clauses || text '(step is null or posted_at is not null)'; end if;
  if q ? 'ended_before' then
    clauses := clauses || format('end_seq < %L::bigint and state in (''failed'', ''cancelled'', '
      '''expired'')', q->>'ended_before');
    sorted := 'end_seq desc';
  end if;
  sorted := case q->>'kind'
    when 'stream' then 'updated_at desc'
    when 'budget' then 'key'
    when 'performance' then 'hour, tenant, capability, agent, version'
    when 'failure' then 'tenant, type, pattern, capability, agent, version'
    else sorted end;
  execute format(
    'select coalesce(jsonb_agg(to_jsonb(t)), ''[]'') from '
    '(select * from public.%I where %s order by %s limit %s offset %s) t',
    name, coalesce(nullif(array_to_string(clauses, ' and '), ''), 'true'), sorted,
    least((q->>'most')::integer, 10000), coalesce((q->>'skip')::bigint, 0)) into answer;
  return answer;
end $$;

-- Which of these migrations are here.
create or replace function public.callboard_versions(question text) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(version order by version), '[]') from public.callboard_migrations
$$;

insert into public.callboard_migrations (version) values ('20261126000100') on conflict do nothing;
