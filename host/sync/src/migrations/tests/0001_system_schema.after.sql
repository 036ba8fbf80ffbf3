do $$
begin
  assert (select array_agg(relname::text order by relname) from pg_catalog.pg_class
      where relnamespace = 'convoke'::regnamespace and relkind = 'r')
    = array['incarnation', 'keys', 'migrations', 'objects', 'projects', 'requests', 'sync_log', 'tables'];
  assert (select array_agg(length(key) order by name) from convoke.keys) = array[32, 32];
  assert (select count(*) from convoke.incarnation) = 1;
  assert convoke.key('7') < convoke.key('8');
end
$$;
