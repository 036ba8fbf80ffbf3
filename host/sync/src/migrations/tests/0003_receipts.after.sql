do $$
begin
  assert (select (digest is null, result) = (true, '"kept"')
    from convoke.find_receipt('demo', '3b9f3c9e-6d0f-4a6e-8f0e-0f3c1f8f2a11', '7'));
  perform convoke.leave_receipt('demo', 'a', 'b', '\x01', null);
  assert (select (digest, result is null) = ('\x01'::bytea, true) from convoke.find_receipt('demo', 'a', 'b'));
  assert not exists (select from convoke.find_receipt('other', 'a', 'b'));
  begin
    perform convoke.leave_receipt('demo', 'a', 'b', '\x02', '1');
    raise exception 'a second receipt';
  exception when unique_violation then
    null;
  end;
  update convoke.receipts set at = now() - interval '15 days' where scope = 'a';
  assert convoke.forget(10) = 1;
end
$$;
