-- Who may see what. A tenant reads its own rows and nothing else, by the `tenant_id` that the
-- project's administrator has put into the `app_metadata` of its users; nobody but the projector's
-- role writes. Where Supabase's roles do not exist, only the owner of the tables gets at them.

-- The tenant of the request, out of its verified token. `user_metadata` is the user's own to change.
create or replace function public.callboard_tenant() returns text
language sql stable set search_path = '' as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb
    -> 'app_metadata' ->> 'tenant_id'
$$;

do $$
declare
  shown constant text[] := array['callboard_workflows', 'callboard_tasks', 'callboard_schedules',
    'callboard_commands', 'callboard_merges', 'callboard_events', 'callboard_audit',
    'callboard_allocations', 'callboard_performance', 'callboard_attempts', 'callboard_budgets',
    'callboard_failures'];
  hidden constant text[] := array['callboard_migrations', 'callboard_streams', 'callboard_secrets',
    'callboard_parked'];
  functions constant text[] := array['callboard_project(text)', 'callboard_write(jsonb)',
    'callboard_forget(text, text, jsonb)', 'callboard_sum(jsonb, jsonb)', 'callboard_observe(text)', 'callboard_find(text)',
    'callboard_versions(text)'];
  name text;
  role text;
begin
  foreach name in array shown || hidden loop
    execute format('alter table public.%I enable row level security', name);
    execute format('revoke all on public.%I from public', name);
    foreach role in array array['anon', 'authenticated'] loop
      if exists (select from pg_catalog.pg_roles where rolname = role) then
        execute format('revoke all on public.%I from %I', name, role);
      end if;
    end loop;
    if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
      execute format('grant select, insert, update, delete on public.%I to service_role', name);
    end if;
  end loop;
  foreach name in array functions loop
    execute format('revoke execute on function public.%s from public', name);
    foreach role in array array['anon', 'authenticated'] loop
      if exists (select from pg_catalog.pg_roles where rolname = role) then
        execute format('revoke execute on function public.%s from %I', name, role);
      end if;
    end loop;
    if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
      execute format('grant execute on function public.%s to service_role', name);
    end if;
  end loop;
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    foreach name in array shown loop
      execute format('drop policy if exists own_tenant on public.%I', name);
      execute format('create policy own_tenant on public.%I for select to authenticated '
        'using (tenant = (select public.callboard_tenant()))', name);
      execute format('grant select on public.%I to authenticated', name);
    end loop;
  end if;
end $$;

insert into public.callboard_migrations (version) values ('20261126000200') on conflict do nothing;
