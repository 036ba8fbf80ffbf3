-- Receipts are bounded in bytes, a project. A receipt counts with the stored size of its result, and 300 bytes for the rest
-- of the row and its entries in two indexes.

-- The moment up to which a project's receipts have to go so that the others are no more than so many bytes, in
-- microseconds since 1970; null where all may stay.
create function convoke.receipts_horizon(project text, bytes_max bigint) returns bigint
language plpgsql stable security definer set search_path = pg_catalog
as $$
begin
  perform convoke.check_project(project);
  -- Cheap, and mostly enough: what a receipt counts with is what it takes.
  if pg_total_relation_size('convoke.receipts') <= bytes_max then
    return null;
  end if;
  return (
    select (extract(epoch from max(s.at)) * 1000000)::bigint
    from (
      select r.at, sum(coalesce(pg_column_size(r.result), 0) + 300) over (order by r.at desc) as bytes
      from convoke.receipts as r where r.project = $1
    ) as s
    where s.bytes > bytes_max);
end
$$;

-- Deletes receipts, the oldest first: of the project those up to a moment, in microseconds since 1970; of all projects, as
-- some have no host now, those that no client will ask for any more. Gives their number, and null where another host is
-- at it; the lock's number is Convoke's alone ("convforg" in ASCII).
create function convoke.expire_receipts(project text, horizon bigint, rows_max integer) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog
as $$
declare
  up_to timestamptz := timestamptz 'epoch' + horizon * interval '1 microsecond';
  deleted bigint;
begin
  perform convoke.check_project(project);
  if not pg_try_advisory_xact_lock(7165066986973524583) then
    return null;
  end if;
  delete from convoke.receipts as r where r.ctid = any (array(
    select o.ctid from convoke.receipts as o
    where o.at < now() - interval '14 days' or (o.project = $1 and o.at <= up_to)
    order by o.at limit rows_max));
  get diagnostics deleted = row_count;
  return deleted;
end
$$;
