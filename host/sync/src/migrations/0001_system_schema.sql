-- The schema `convoke` as it was before there were migrations. It changes nothing where its objects are there, so that a
-- database that was made without migrations is taken over as it is. Later migrations need not be repeatable.
create schema if not exists convoke;

-- The number of a table is part of every id of its rows, so it is given once and never used again.
create table if not exists convoke.tables (
  number integer generated always as identity (start with 10001) primary key,
  project text not null,
  name text not null,
  unique (project, name)
);

-- Secrets of this database, made once: `role` for the passwords of the projects' roles, `cursor` for what pages end with.
-- Whoever may read them is every project, so nobody but their owner may.
create table if not exists convoke.keys (
  name text primary key,
  key bytea not null
);
insert into convoke.keys (name, key)
select name, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
from unnest(array['role', 'cursor']) as name
on conflict (name) do nothing;

-- The role that a project's functions run under. Roles belong to the whole server, projects to one of its databases.
create table if not exists convoke.projects (
  name text primary key,
  role text not null
);

-- What syncs have made, or set out to make: whatever else is found in a project's schema was made by hand.
create table if not exists convoke.objects (
  project text not null,
  table_name text not null,
  kind text not null,
  name text not null,
  definition text not null,
  declared boolean not null,
  made boolean not null default false,
  primary key (project, table_name, kind, name)
);

create table if not exists convoke.sync_log (
  id bigint generated always as identity primary key,
  project text not null,
  started timestamptz not null default clock_timestamp(),
  finished timestamptz,
  actor text not null,
  host text not null,
  tool text not null,
  base text not null,
  target text not null,
  hash text not null,
  plan jsonb not null,
  steps jsonb not null default '[]',
  error text,
  outcome text not null default 'running'
    check (outcome in ('running', 'done', 'nothing', 'failed', 'abandoned'))
);
create index if not exists sync_log_project_idx on convoke.sync_log (project, id);

create or replace function convoke.now_ms() returns double precision
language sql volatile parallel safe
as $$ select extract(epoch from clock_timestamp())::double precision * 1000 $$;

-- RFC 9562, version 7: 48 bits of milliseconds, the rest random but for version and variant.
create or replace function convoke.uuid_v7() returns uuid
language sql volatile parallel safe
as $$
  select encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
        placing substring(int8send(floor(convoke.now_ms())::bigint) from 3) from 1 for 6),
      52, 1), 53, 1),
    'hex')::uuid
$$;

-- A write that must hit its rows fails in its own statement, so that a commit already on its way rolls back.
create or replace function convoke.require_rows(actual bigint, expected bigint, table_name text) returns void
language plpgsql volatile
as $$
begin
  if actual <> expected then
    raise exception 'table "%" lacks % of % documents', table_name, expected - actual, expected
      using errcode = 'no_data_found', table = table_name;
  end if;
end
$$;

create or replace function convoke.fletcher16(bytes bytea) returns integer
language plpgsql immutable strict parallel safe
as $$
declare
  low integer := 0;
  high integer := 0;
begin
  for position in 0 .. length(bytes) - 1 loop
    low := (low + get_byte(bytes, position)) % 255;
    high := (high + low) % 255;
  end loop;
  return (high << 8) | low;
end
$$;

create or replace function convoke.encode_id(table_number integer, id uuid) returns text
language plpgsql immutable strict parallel safe
as $$
declare
  alphabet constant text := '0123456789abcdefghjkmnpqrstvwxyz';
  rest integer := table_number;
  bytes bytea := '';
  checksum integer;
  bits integer := 0;
  held integer := 0;
  result text := '';
begin
  loop
    if rest < 128 then
      bytes := bytes || set_byte('\x00', 0, rest);
      exit;
    end if;
    bytes := bytes || set_byte('\x00', 0, (rest & 127) | 128);
    rest := rest >> 7;
  end loop;
  bytes := bytes || uuid_send(id);
  checksum := convoke.fletcher16(bytes);
  bytes := bytes || set_byte('\x00', 0, checksum & 255) || set_byte('\x00', 0, checksum >> 8);
  for position in 0 .. length(bytes) - 1 loop
    bits := ((bits << 8) | get_byte(bytes, position)) & 65535;
    held := held + 8;
    while held >= 5 loop
      held := held - 5;
      result := result || substr(alphabet, ((bits >> held) & 31) + 1, 1);
    end loop;
  end loop;
  if held > 0 then
    result := result || substr(alphabet, ((bits << (5 - held)) & 31) + 1, 1);
  end if;
  return result;
end
$$;

-- The id that clients see for a row: convoke.id('demo.messages', _id). Definer, because nobody else may read the
-- registry; it answers about those tables only that the caller's role reaches by name.
create or replace function convoke.id(relation regclass, id uuid) returns text
language sql stable strict parallel safe security definer set search_path = pg_catalog, pg_temp
as $$
  select convoke.encode_id(t.number, id)
  from convoke.tables t
  join pg_catalog.pg_namespace n on n.nspname = t.project
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.name
  where c.oid = relation and pg_catalog.has_schema_privilege(session_user, n.oid, 'usage')
$$;

-- The row that an id of clients means: select * from demo.messages where _id = convoke.uuid('…').
create or replace function convoke.uuid(id text) returns uuid
language plpgsql immutable strict parallel safe
as $$
declare
  alphabet constant text := '0123456789abcdefghjkmnpqrstvwxyz';
  bits integer := 0;
  held integer := 0;
  digit integer;
  bytes bytea := '';
  body bytea;
  checksum integer;
begin
  if length(id) not between 31 and 37 then
    raise exception 'not a document id: %', id using errcode = 'invalid_text_representation';
  end if;
  for position in 1 .. length(id) loop
    digit := strpos(alphabet, substr(id, position, 1)) - 1;
    if digit < 0 then
      raise exception 'not a document id: %', id using errcode = 'invalid_text_representation';
    end if;
    bits := ((bits << 5) | digit) & 65535;
    held := held + 5;
    if held >= 8 then
      held := held - 8;
      bytes := bytes || set_byte('\x00', 0, (bits >> held) & 255);
    end if;
  end loop;
  body := substring(bytes from 1 for length(bytes) - 2);
  checksum := get_byte(bytes, length(bytes) - 2) | (get_byte(bytes, length(bytes) - 1) << 8);
  if checksum <> convoke.fletcher16(body) then
    raise exception 'not a document id, its checksum does not match: %', id
      using errcode = 'invalid_text_representation';
  end if;
  return encode(substring(body from length(body) - 15), 'hex')::uuid;
end
$$;

-- The order of values: a value's key is bytes, ordered byte by byte whatever the database's collation. Indexes hold
-- keys, conditions compare them, and the host makes the same bytes (host/model/src/key.rs has the table of forms).
-- These are single expressions of immutable parts, so that Postgres writes them into plans and indexes in place.
create or replace function convoke.key_float(value double precision) returns bytea
language sql immutable parallel safe
as $$
  select case when (get_byte(float8send(value), 0) & 128) = 0
    then set_bit(float8send(value), 7, 1)
    else int8send(~(('x' || encode(float8send(value), 'hex'))::bit(64)::bigint))
  end
$$;

create or replace function convoke.key_number(value numeric) returns bytea
language sql immutable parallel safe
as $$
  select '\x03'::bytea || convoke.key_float(value::double precision) || case
    when abs(value::double precision) < 9007199254740992 then ''::bytea
    when value >= 9223372036854775808 then '\xffffffffffffffff'::bytea
    when value < -9223372036854775808 then '\x0000000000000000'::bytea
    else int8send(trunc(value)::bigint # (-9223372036854775808)::bigint)
  end
$$;

create or replace function convoke.key_text(value text) returns bytea
language sql immutable parallel safe
as $$ select '\x05'::bytea || replace(value, '\', '\\')::bytea $$;

-- A zero inside becomes 00 FF, a lone zero ends.
create or replace function convoke.key_escape(value bytea) returns bytea
language sql immutable parallel safe
as $$ select decode(replace(regexp_replace(encode(value, 'hex'), '(..)', '\1 ', 'g'), '00 ', '00ff '), 'hex') || '\x00'::bytea $$;

create or replace function convoke.key_nested(value jsonb) returns bytea
language plpgsql immutable parallel safe
as $$
declare
  result bytea;
  item jsonb;
  name text;
begin
  if jsonb_typeof(value) = 'array' then
    result := '\x07';
    for item in select jsonb_array_elements(value) loop
      result := result || convoke.key_escape(convoke.key(item));
    end loop;
    return result;
  end if;
  if (value ? '$bytes' or value ? '$float') and (select count(*) = 1 from jsonb_object_keys(value)) then
    if jsonb_typeof(value -> '$bytes') = 'string' then
      result := '\x06'::bytea || convoke.unmark(value ->> '$bytes');
    elsif jsonb_typeof(value -> '$float') = 'string' then
      result := convoke.key_special(convoke.unmark(value ->> '$float'));
    end if;
    if result is not null then
      return result;
    end if;
  end if;
  result := '\x08';
  for name, item in select e.key, e.value from jsonb_each(value) as e order by e.key collate "C" loop
    result := result || convoke.key_escape(replace(name, '\', '\\')::bytea) || convoke.key_escape(convoke.key(item));
  end loop;
  return result;
end
$$;

-- Base64 in its one canonical spelling; null for anything else.
create or replace function convoke.unmark(value text) returns bytea
language plpgsql immutable strict parallel safe
as $$
declare
  bytes bytea;
begin
  bytes := decode(value, 'base64');
  return case when replace(encode(bytes, 'base64'), chr(10), '') = value then bytes end;
exception when others then
  return null;
end
$$;

-- The key of what JSON cannot hold (the infinities, NaN, -0) from its eight bytes, the lowest first; null for others.
create or replace function convoke.key_special(bytes bytea) returns bytea
language plpgsql immutable strict parallel safe
as $$
declare
  digits text := '';
  bits bigint;
begin
  if length(bytes) <> 8 then
    return null;
  end if;
  for position in reverse 7 .. 0 loop
    digits := digits || encode(substring(bytes from position + 1 for 1), 'hex');
  end loop;
  bits := ('x' || digits)::bit(64)::bigint;
  if bits = -9223372036854775808 then
    return '\x037fffffffffffffff';
  elsif (bits & 9218868437227405312) <> 9218868437227405312 then
    return null;
  elsif bits < 0 then
    return '\x03'::bytea || int8send(~bits) || '\x0000000000000000'::bytea;
  else
    return '\x03'::bytea || int8send(bits # (-9223372036854775808)::bigint) || '\xffffffffffffffff'::bytea;
  end if;
end
$$;

create or replace function convoke.key(value jsonb) returns bytea
language sql immutable parallel safe
as $$
  select case jsonb_typeof(value)
    when 'string' then convoke.key_text(value #>> '{}')
    when 'number' then convoke.key_number((value #>> '{}')::numeric)
    when 'boolean' then case when value = 'true'::jsonb then '\x0401'::bytea else '\x0400'::bytea end
    when 'null' then '\x02'::bytea
    when 'array' then convoke.key_nested(value)
    when 'object' then convoke.key_nested(value)
    else '\x01'::bytea
  end
$$;

-- Changes fields by what is there: inc, append, max, min. A missing field counts as 0, [] or nothing.
create or replace function convoke.apply(data jsonb, operations jsonb) returns jsonb
language plpgsql immutable strict parallel safe
as $$
declare
  field text;
  operation jsonb;
  before jsonb;
  operand jsonb;
begin
  for field, operation in select key, value from jsonb_each(operations) loop
    before := data -> field;
    if operation ? 'inc' then
      operand := operation -> 'inc';
      if jsonb_typeof(coalesce(before, '0')) <> 'number' then
        raise exception 'field "%" is no number, so it cannot be increased', field using errcode = 'datatype_mismatch';
      end if;
      data := jsonb_set(data, array[field],
        to_jsonb((coalesce(before, '0') #>> '{}')::numeric + (operand #>> '{}')::numeric));
    elsif operation ? 'append' then
      if jsonb_typeof(coalesce(before, '[]')) <> 'array' then
        raise exception 'field "%" is no array, so nothing can be appended', field using errcode = 'datatype_mismatch';
      end if;
      data := jsonb_set(data, array[field], coalesce(before, '[]') || (operation -> 'append'));
    elsif operation ? 'max' then
      operand := operation -> 'max';
      if before is null or convoke.key(operand) > convoke.key(before) then
        data := jsonb_set(data, array[field], operand);
      end if;
    elsif operation ? 'min' then
      operand := operation -> 'min';
      if before is null or convoke.key(operand) < convoke.key(before) then
        data := jsonb_set(data, array[field], operand);
      end if;
    end if;
  end loop;
  return data;
end
$$;

-- What mutations returned to clients that send them again after a lost connection. A project's role reaches its own
-- only, by the two functions.
create table if not exists convoke.requests (
  project text not null,
  session uuid not null,
  request bigint not null,
  result text not null,
  at timestamptz not null default now(),
  primary key (project, session, request)
);
create index if not exists requests_at_idx on convoke.requests (at);

create or replace function convoke.check_project(project text) returns void
language plpgsql stable
as $$
begin
  -- By the record, not by the name: a role whose name was taken has another one.
  if not pg_has_role(session_user, current_user, 'member')
    and not exists (select from convoke.projects as p where p.name = project and p.role = session_user) then
    raise exception 'role "%" does not belong to project "%"', session_user, project
      using errcode = 'insufficient_privilege';
  end if;
end
$$;

create or replace function convoke.recall(project text, session uuid, request bigint) returns text
language plpgsql stable security definer set search_path = pg_catalog
as $$
begin
  perform convoke.check_project(project);
  return (select r.result from convoke.requests as r
    where r.project = $1 and r.session = $2 and r.request = $3);
end
$$;

create or replace function convoke.remember(project text, session uuid, request bigint, result text) returns void
language plpgsql volatile security definer set search_path = pg_catalog
as $$
begin
  perform convoke.check_project(project);
  insert into convoke.requests (project, session, request, result) values ($1, $2, $3, $4);
end
$$;

-- Deletes results that no client will ask for any more, the oldest first, of all projects: some have no host now. Gives
-- their number, and null where another host is at it; the lock's number is Convoke's alone ("convforg" in ASCII).
create or replace function convoke.forget(rows_max integer) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog
as $$
declare
  forgotten bigint;
begin
  if not pg_try_advisory_xact_lock(7165066986973524583) then
    return null;
  end if;
  delete from convoke.requests as r where (r.project, r.session, r.request) in (
    select o.project, o.session, o.request from convoke.requests as o
      where o.at < now() - interval '14 days' order by o.at limit rows_max);
  get diagnostics forgotten = row_count;
  return forgotten;
end
$$;

-- The moment from which this database counts the timestamps that clients see, in nanoseconds since 1970, and the
-- position of the log at that moment.
create table if not exists convoke.incarnation (
  only_one boolean primary key default true check (only_one),
  nanoseconds bigint not null,
  lsn pg_lsn not null,
  -- The cluster and its timeline.
  system text
);
insert into convoke.incarnation (nanoseconds, lsn)
  select (extract(epoch from clock_timestamp()) * 1000000000)::bigint, pg_current_wal_lsn()
  on conflict do nothing;

-- A restored or promoted server counts anew, from now: what its clients have seen may be ahead of what it has.
create or replace function convoke.count_from(system_id text, out nanoseconds bigint, out lsn pg_lsn)
language plpgsql volatile security definer set search_path = pg_catalog
as $$
begin
  update convoke.incarnation as i
    set system = system_id,
      nanoseconds = case when i.system is null then i.nanoseconds
        else (extract(epoch from clock_timestamp()) * 1000000000)::bigint end,
      lsn = case when i.system is null then i.lsn else pg_current_wal_lsn() end
    where i.system is distinct from system_id;
  select i.nanoseconds, i.lsn into count_from.nanoseconds, count_from.lsn from convoke.incarnation as i;
end
$$;
revoke all on function convoke.count_from(text) from public;
