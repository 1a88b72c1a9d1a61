-- A tracker to try things out with. A real one has these tables already: Callboard makes none of them.
create table cerebral_tasks (
  task_id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null,
  project_id uuid not null,
  derived_from_story uuid,
  status text not null default 'pending'
    check (status in ('pending', 'in_progress', 'completed', 'blocked', 'cancelled')),
  priority text not null default 'medium' check (priority in ('low', 'medium', 'high', 'critical')),
  title text not null,
  description text,
  acceptance_criteria jsonb default '[]',
  dependencies jsonb default '[]', -- task_ids
  metadata jsonb default '{}',
  bmad_story_id text,
  estimated_hours integer,
  actual_hours integer,
  assigned_to uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table cerebral_activities (
  activity_id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null,
  actor uuid not null,
  action text not null,
  resource_type text not null,
  resource_id uuid not null,
  metadata jsonb default '{}',
  bmad_workflow_id text,
  timestamp timestamptz default now()
);
