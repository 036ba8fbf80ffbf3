-- What mutations leave under the key that their client gave them: what was called, and what it returned. A project's role
-- reaches its own only, by the functions. Takes the place of `convoke.requests`, which hosts of the version before still
-- write.
create table convoke.receipts (
  project text not null,
  -- Whose keys these are: a client's session, say.
  scope text not null,
  key text not null,
  -- SHA-256 of what was called. Null where the version before kept the result.
  digest bytea,
  -- Null where it was too large to be kept.
  result text,
  at timestamptz not null default now(),
  primary key (project, scope, key)
);
create index receipts_at_idx on convoke.receipts (at);
insert into convoke.receipts (project, scope, key, result, at)
  select project, session::text, request::text, result, at from convoke.requests;

create function convoke.find_receipt(project text, scope text, key text)
returns table (digest bytea, result text)
language plpgsql stable security definer set search_path = pg_catalog
as $$
begin
  perform convoke.check_project(project);
  return query select r.digest, r.result from convoke.receipts as r
    where r.project = $1 and r.scope = $2 and r.key = $3;
end
$$;

create function convoke.leave_receipt(project text, scope text, key text, digest bytea, result text) returns void
language plpgsql volatile security definer set search_path = pg_catalog
as $$
begin
  perform convoke.check_project(project);
  insert into convoke.receipts (project, scope, key, digest, result) values ($1, $2, $3, $4, $5);
end
$$;

-- Deletes receipts that no client will ask for any more, the oldest first, of all projects: some have no host now. Gives
-- their number, and null where another host is at it; the lock's number is Convoke's alone ("convforg" in ASCII).
create or replace function convoke.forget(rows_max integer) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog
as $$
declare
  deleted bigint;
begin
  if not pg_try_advisory_xact_lock(7165066986973524583) then
    return null;
  end if;
  delete from convoke.requests where at < now() - interval '14 days';
  delete from convoke.receipts as r where (r.project, r.scope, r.key) in (
    select o.project, o.scope, o.key from convoke.receipts as o
      where o.at < now() - interval '14 days' order by o.at limit rows_max);
  get diagnostics deleted = row_count;
  return deleted;
end
$$;
