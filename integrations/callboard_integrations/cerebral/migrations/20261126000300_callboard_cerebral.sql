-- Mirrors tasks and workflows into the tracker's own tables (`cerebral_tasks`, `cerebral_activities`, or
-- a table such as `cerebraflow_tasks`), in the transaction that moves a projector's position.
--
-- Nothing here makes or alters a table of the tracker. Every statement on one names the tenant, and
-- touches only rows whose metadata has an object `callboard`: those made here, and those claimed by a pull.

-- Which boards are mirrored, and into which tables.
create table if not exists public.callboard_cerebral (
  board text primary key,
  tasks text not null,
  activities text
);

-- The columns of a table and their types; nothing if there is no such table.
create or replace function public.callboard_cerebral_columns(name text) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(attname, case format_type(atttypid, null)
      when 'character varying' then 'text' when 'bigint' then 'integer'
      when 'smallint' then 'integer' else format_type(atttypid, null) end), '{}')
    from pg_attribute
    where attrelid = to_regclass(case when strpos(name, '.') > 0 then name else 'public.' || name end)
      and attnum > 0 and not attisdropped
$$;

-- How the tables look: id, its type, the columns, and what keeps them from being written (`problems`).
create or replace function public.callboard_cerebral_shape(tasks text, activities text)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  large constant jsonb := '{"task_id": "uuid", "tenant_id": "uuid", "project_id": "uuid",
    "status": "text", "priority": "text", "title": "text", "description": "text",
    "acceptance_criteria": "jsonb", "dependencies": "jsonb", "metadata": "jsonb",
    "bmad_story_id": "text", "actual_hours": "integer",
    "created_at": "timestamp with time zone", "updated_at": "timestamp with time zone"}';
  small constant jsonb := '{"id": "uuid or text", "title": "text", "description": "text",
    "status": "text", "priority": "text", "metadata": "jsonb"}';
  acts constant jsonb := '{"activity_id": "uuid", "tenant_id": "uuid", "actor": "uuid",
    "action": "text", "resource_type": "text", "resource_id": "uuid", "metadata": "jsonb",
    "bmad_workflow_id": "text", "timestamp": "timestamp with time zone"}';
  columns jsonb := public.callboard_cerebral_columns(tasks);
  is_small boolean := columns ? 'id' and not columns ? 'task_id';
  id text := case when is_small then 'id' else 'task_id' end;
  problems jsonb := '[]';
  wanted record;
  place regclass;
begin
  for wanted in
    select tasks as name, columns as there, case when is_small then small else large end as needs
    union all
    select activities, public.callboard_cerebral_columns(activities), acts
      where activities is not null
  loop
    if wanted.there = '{}' then
      problems := problems || to_jsonb(format('there is no table %s', wanted.name));
      continue;
    end if;
    problems := problems || coalesce((
      select jsonb_agg(case when not wanted.there ? key
          then format('%s has no column %s (%s)', wanted.name, key, value)
          else format('%s.%s is %s, and must be %s', wanted.name, key, wanted.there->>key, value)
        end order by key)
      from jsonb_each_text(wanted.needs)
      where not coalesce(wanted.there->>key = any (string_to_array(value, ' or ')), false)), '[]');
    place := to_regclass(case when strpos(wanted.name, '.') > 0 then wanted.name
      else 'public.' || wanted.name end);
    if not (has_table_privilege(place, 'select') and has_table_privilege(place, 'insert')
        and (wanted.needs = acts or has_table_privilege(place, 'update'))) then
      problems := problems || to_jsonb(format('%s may not read and write %s', current_user, place));
    end if;
  end loop;
  if columns ? id and not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
      where i.indrelid = to_regclass(case when strpos(tasks, '.') > 0 then tasks
          else 'public.' || tasks end)
        and i.indisunique and i.indnkeyatts = 1 and i.indpred is null and a.attname = id)
  then
    problems := problems || to_jsonb(format('%s.%s is no primary key', tasks, id));
  end if;
  return jsonb_build_object('id', id, 'id_type', columns->>id, 'columns', columns,
    'place', case when strpos(tasks, '.') > 0 then tasks else 'public.' || tasks end,
    'acts', case when strpos(activities, '.') > 0 then activities else 'public.' || activities end,
    'owner', case when columns ? 'tenant_id' then 't.tenant_id = %s::uuid'
      else 't.metadata->>''tenant_id'' = %s' end,
    'problems', problems);
end $$;

-- The same, unless something keeps them from being written.
create or replace function public.callboard_cerebral_ready(tasks text, activities text)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  shape jsonb := public.callboard_cerebral_shape(tasks, activities);
begin
  if shape->'problems' <> '[]' then
    raise exception '%', shape->'problems'->>0 using errcode = '42P01';
  end if;
  return shape;
end $$;

-- The same as a call of its own.
create or replace function public.callboard_cerebral_check(question text) returns jsonb
language sql stable set search_path = '' as $$
  select public.callboard_cerebral_shape(question::jsonb->>'tasks', question::jsonb->>'activities')
$$;

-- From here on this board is mirrored. Refused if the tables cannot be written.
create or replace function public.callboard_cerebral_begin(batch text) returns jsonb
language plpgsql set search_path = '' as $$
declare
  b jsonb := batch::jsonb;
begin
  perform public.callboard_cerebral_ready(b->>'tasks', b->>'activities');
  insert into public.callboard_cerebral as t values (b->>'board', b->>'tasks', b->>'activities')
    on conflict (board) do update set tasks = excluded.tasks, activities = excluded.activities;
  return 'true';
end $$;

-- A projector that does not mirror must not move the position of a board that is mirrored.
create or replace function public.callboard_cerebral_only() returns trigger
language plpgsql set search_path = '' as $$
begin
  if coalesce(current_setting('callboard.cerebral', true), '') <> 'on'
      and exists (select from public.callboard_cerebral where board = new.board) then
    raise exception 'the board % is mirrored: run `callboard cerebral mirror` instead', new.board
      using errcode = '55000';
  end if;
  return new;
end $$;
create or replace trigger callboard_cerebral_only before insert or update on public.callboard_streams
  for each row execute function public.callboard_cerebral_only();

-- One batch with everything that `callboard_project` writes, and the tracker's rows.
create or replace function public.callboard_cerebral_project(batch text) returns jsonb
language plpgsql set search_path = '' as $$
declare
  b jsonb := batch::jsonb;
  answer jsonb;
begin
  perform set_config('callboard.cerebral', 'on', true);
  answer := public.callboard_project(batch);
  if b ? 'trial' and answer->'position' = b->'after' then
    begin
      perform public.callboard_cerebral_write(b);
      raise exception using errcode = 'CB000', message = 'only a trial';
    exception when sqlstate 'CB000' then
      null;
    end;
  elsif (answer->>'stored')::boolean then
    perform public.callboard_cerebral_write(b);
    answer := answer || jsonb_build_object('parked',
      (select count(*) from public.callboard_parked where stream = b->>'stream'));
  end if;
  return answer;
end $$;

-- A row as the table has it: what it has no column for goes into the metadata.
create or replace function public.callboard_cerebral_fit(d jsonb, shape jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select d || jsonb_build_object(shape->>'id', d->'task_id', 'metadata', d->'metadata' || (
    select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(d)
      where not shape->'columns' ? key and value <> 'null'
        and key not in ('task_id', 'existing', 'source', 'repeated', 'terminal', 'quiet')))
$$;

-- Rows that are new are inserted; of others only status, times and `callboard` are written, and never
-- by an older word than the last one. What a person has set as status stands until the end. Ids that
-- belong to somebody else are parked.
create or replace function public.callboard_cerebral_write(b jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  s constant text := b->>'stream';
  known public.callboard_cerebral;
  shape jsonb;
  docs jsonb;
  tasks text;  -- the table
  named text;  -- t is the row of the document d
  owned text;  -- t is of the tenant of d
  listed text;
begin
  select * into strict known from public.callboard_cerebral where board = b->>'board';
  shape := public.callboard_cerebral_ready(known.tasks, known.activities);
  tasks := shape->>'place';
  named := format('t.%I = (d->>%L)::%s', shape->>'id', shape->>'id', shape->>'id_type');
  owned := format(shape->>'owner', '(d->>''tenant_id'')');
  if b ? 'cerebral' then
    select jsonb_agg(public.callboard_cerebral_fit(d, shape)) into docs
      from jsonb_array_elements(b->'cerebral') d;
    select string_agg(quote_ident(name), ', ') into listed from unnest(array[shape->>'id',
      'tenant_id', 'project_id', 'status', 'priority', 'title', 'description',
      'acceptance_criteria', 'dependencies', 'metadata', 'bmad_story_id', 'actual_hours',
      'created_at', 'updated_at']) name
      where shape->'columns' ? name;
    execute format($q$
      insert into %1$s (%2$s)
      select %2$s from jsonb_populate_recordset(null::%1$s,
          (select coalesce(jsonb_agg(d), '[]') from jsonb_array_elements($1) d
            where not d ? 'existing'))
        on conflict (%3$I) do nothing $q$, tasks, listed, shape->>'id') using docs;
    execute format($q$
      update %1$s t set
        status = case when (d->>'terminal')::boolean
            or t.status = t.metadata->'callboard'->>'status' then d->>'status' else t.status end,
        metadata = t.metadata || ((d->'metadata') - array['tenant_id', 'project_id', 'dependencies',
            'acceptance_criteria', 'bmad_story_id', 'created_at'])
          || jsonb_build_object('callboard', ((t.metadata->'callboard') - array['state', 'waits',
            'error', 'host', 'attempt', 'repeats']) || (d->'metadata'->'callboard')) %2$s
      from jsonb_array_elements($1) d
      where %3$s and %4$s and jsonb_typeof(t.metadata->'callboard') = 'object'
        and (t.metadata->'callboard'->>'stream' is distinct from $2
          or (t.metadata->'callboard'->>'seq')::bigint
              < (d->'metadata'->'callboard'->>'seq')::bigint
            and (not d ? 'source'
              or t.metadata->'callboard'->'flow' = d->'metadata'->'callboard'->'flow')
            and (not d ? 'quiet'
              or not t.metadata->'callboard' @> ((d->'metadata'->'callboard') - 'seq')))
      $q$, tasks, case when shape->'columns' ? 'updated_at' then $q$,
        updated_at = (d->>'updated_at')::timestamptz,
        actual_hours = coalesce(t.actual_hours, (d->>'actual_hours')::integer) $q$ else '' end,
      named, owned) using docs, s;
    -- The steps of a workflow that repeats another one; its own row says so already.
    if exists (select from jsonb_array_elements(docs) d where d ? 'repeated') then
      execute format($q$
        update %1$s t set status = 'cancelled', metadata = t.metadata || jsonb_build_object(
          'callboard', t.metadata->'callboard' || '{"state": "cancelled", "status": "cancelled"}')
        from jsonb_array_elements($1) d
        where d ? 'repeated' and %2$s and t.metadata->'callboard'->>'stream' = $2
          and t.metadata->'callboard'->'flow' = d->'metadata'->'callboard'->'task'
          and exists (select from %1$s w where w.%3$I = (d->>'task_id')::%4$s
            and w.metadata->'callboard'->>'kind' = 'workflow')
        $q$, tasks, owned, shape->>'id', shape->>'id_type') using docs, s;
    end if;
    delete from public.callboard_parked x where x.stream = s and x.kind = 'cerebral'
      and x.id in (select d->>'task_id' from jsonb_array_elements(docs) d);
    execute format($q$
      insert into public.callboard_parked (stream, kind, seq, id, sqlstate, reason, doc, last_seq)
      select $2, 'cerebral', 0, d->>'task_id', 'CB001',
          case when %2$s then 'the row is there and not of Callboard'
            else 'the row belongs to another tenant' end,
          convert_to(d::text, 'UTF8'), $3
        from jsonb_array_elements($1) d join %1$s t on %3$s
        where (%2$s and jsonb_typeof(t.metadata->'callboard') = 'object') is not true
      $q$, tasks, owned, named) using docs, s, (b->>'position')::bigint;
  end if;
  -- An activity is of a row that is there; whether of a workflow, the row knows best.
  if b ? 'cerebral_activity' and known.activities is not null then
    execute format($q$
      insert into %1$s (activity_id, tenant_id, actor, action, resource_type, resource_id,
        metadata, bmad_workflow_id, "timestamp")
      select a.activity_id, a.tenant_id, a.actor, a.action,
          case t.metadata->'callboard'->>'kind' when 'workflow' then 'workflow' else 'task' end,
          a.resource_id, a.metadata, t.metadata->'callboard'->>'bmad_workflow_id', a."timestamp"
        from jsonb_populate_recordset(null::%1$s, $1) a
        join %2$s t on t.%3$I = a.resource_id::%4$s and %5$s
          and jsonb_typeof(t.metadata->'callboard') = 'object'
        where not exists (select from %1$s x
          where x.tenant_id = a.tenant_id and x.activity_id = a.activity_id)
      $q$, shape->>'acts', tasks, shape->>'id', shape->>'id_type',
      format(shape->>'owner', 'a.tenant_id::text')) using b->'cerebral_activity';
  end if;
end $$;

insert into public.callboard_migrations (version) values ('20261126000300') on conflict do nothing;
