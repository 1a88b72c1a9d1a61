-- What a pull of the tracker's pending rows calls, and who may call any of this: the projector's role
-- alone.

-- For a pull: pending rows of a tenant that did not come from Callboard, or whose post was broken off;
-- or (`ids`) how certain rows of the tenant stand. A row comes as text, so that one that cannot be read
-- keeps no other back; above 256 KB it is only named.
create or replace function public.callboard_cerebral_find(question text) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  q jsonb := question::jsonb;
  shape jsonb := public.callboard_cerebral_ready(q->>'tasks', null);
  owned text := format(shape->>'owner', '($1->>''tenant'')');
  answer jsonb;
begin
  if q ? 'ids' then
    execute format($q$
      select coalesce(jsonb_object_agg(t.%1$I, t.status), '{}') from %2$s t
        where %3$s and t.%1$I::text in (select jsonb_array_elements_text($1->'ids'))
      $q$, shape->>'id', shape->>'place', owned) into answer using q;
    return answer;
  end if;
  execute format($q$
    select coalesce(jsonb_agg(jsonb_build_object('id', r->%1$L) || case
        when length(r::text) > 262144 then jsonb_build_object('too_large', length(r::text))
        else jsonb_build_object('row', r::text) end), '[]')
      from (select to_jsonb(t) as r from %2$s t
        where %3$s and t.status = 'pending'
          and ($1->>'after' is null or t.%1$I > ($1->>'after')::%4$s)
          and ((jsonb_typeof(t.metadata->'callboard') = 'object') is not true
            or t.metadata->'callboard' ? 'claim'
              and t.metadata->'callboard'->>'board' = $1->>'board'
              and not t.metadata->'callboard' ?| array['posted', 'seq'])
        order by t.%1$I limit ($1->>'most')::integer) rows
    $q$, shape->>'id', shape->>'place', owned, shape->>'id_type') into answer using q;
  return answer;
end $$;

-- Claim pending rows of a tenant for one post, all or none; or note (`posted`) that it was made.
create or replace function public.callboard_cerebral_mark(batch text) returns jsonb
language plpgsql set search_path = '' as $$
declare
  b jsonb := batch::jsonb;
  shape jsonb := public.callboard_cerebral_ready(b->>'tasks', null);
  changed integer;
begin
  execute format($q$
    update %1$s t set metadata = case jsonb_typeof(t.metadata) when 'object' then t.metadata
        else '{}' end || jsonb_build_object('callboard',
          case jsonb_typeof(t.metadata->'callboard') when 'object' then t.metadata->'callboard'
            else '{}' end || ($1->'marks'))
      where %2$s and t.%3$I in (select i::%4$s from jsonb_array_elements_text($1->'ids') i)
        and case when $1->'marks' ? 'claim'
          then t.status = 'pending' and (jsonb_typeof(t.metadata->'callboard') = 'object') is not true
          else t.metadata->'callboard'->>'claim' = $1->>'claim' end
    $q$, shape->>'place', format(shape->>'owner', '($1->>''tenant'')'), shape->>'id',
    shape->>'id_type') using b;
  get diagnostics changed = row_count;
  if changed <> jsonb_array_length(b->'ids') and b->'marks' ? 'claim' then
    raise exception using errcode = 'CB000', message = 'somebody else has one of them';
  end if;
  return 'true';
exception when sqlstate 'CB000' then
  return 'false';
end $$;

do $$
declare
  name text;
  role text;
begin
  alter table public.callboard_cerebral enable row level security;
  revoke all on public.callboard_cerebral from public;
  for name in select p.oid::regprocedure::text from pg_catalog.pg_proc p
      where p.pronamespace = 'public'::regnamespace and p.proname like 'callboard\_cerebral\_%' loop
    execute format('revoke execute on function %s from public', name);
  end loop;
  foreach role in array array['anon', 'authenticated', 'service_role'] loop
    continue when not exists (select from pg_catalog.pg_roles where rolname = role);
    execute format('revoke all on public.callboard_cerebral from %I', role);
    if role = 'service_role' then
      grant select, insert, update, delete on public.callboard_cerebral to service_role;
    end if;
    for name in select p.oid::regprocedure::text from pg_catalog.pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname like 'callboard\_cerebral\_%' loop
      execute format(case role when 'service_role' then 'grant execute on function %s to %I'
        else 'revoke execute on function %s from %I' end, name, role);
    end loop;
  end loop;
end $$;

insert into public.callboard_migrations (version) values ('20261126000400') on conflict do nothing;
