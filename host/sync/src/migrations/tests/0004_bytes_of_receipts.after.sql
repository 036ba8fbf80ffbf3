delete from convoke.receipts;
-- A thousand receipts of 700 bytes each for one project, one a minute, and as many for another one.
insert into convoke.receipts (project, scope, key, digest, result, at)
  select project, 's', n::text, '\x01', string_agg(md5(project || n || part), ''), timestamptz '2100-01-01' + n * interval '1 minute'
  from unnest(array['demo', 'other']) as project, generate_series(1, 1000) as n, generate_series(1, 12) as part
  group by project, n;
do $$
declare
  horizon bigint := convoke.receipts_horizon('demo', 350000);
  left_bytes bigint;
begin
  assert convoke.receipts_horizon('demo', 100000000) is null;
  assert convoke.receipts_horizon('none', 350000) is null;
  assert convoke.expire_receipts('demo', null, 100) = 0;
  assert convoke.expire_receipts('demo', horizon, 100) = 100;
  assert (select min(key::integer) from convoke.receipts where project = 'demo') = 101, 'the oldest go first';
  assert convoke.expire_receipts('demo', horizon, 10000) between 350 and 450;
  select sum(pg_column_size(result) + 300) into left_bytes from convoke.receipts where project = 'demo';
  assert left_bytes between 349000 and 350000, left_bytes;
  assert convoke.receipts_horizon('demo', 350000) is null;
  assert (select count(*) from convoke.receipts where project = 'other') = 1000;
  update convoke.receipts set at = now() - interval '15 days' where project = 'other' and key = '7';
  assert convoke.expire_receipts('demo', null, 10) = 1;
end
$$;
