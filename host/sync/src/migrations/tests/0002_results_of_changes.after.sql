do $$
declare
  refused boolean;
  attempt text;
begin
  -- What hosts of the version before call stays as it was.
  assert convoke.apply('{"n": 1}', '{"n": {"inc": -2}}') = '{"n": -1}';
  assert convoke.apply('{"n": 1}', '{"n": {"inc": -2}}', 't', 1000) = '{"n": -1}';
  assert convoke.apply('{"n": 3}', '{"n": {"inc": 2, "within": [{"type": "integer", "maximum": 5}]}}', 't', 1000) = '{"n": 5}';
  foreach attempt in array array[
    '{"n": {"inc": 3, "within": [{"type": "integer", "maximum": 5}]}}',
    '{"n": {"inc": 0.5, "within": [{"type": "integer"}]}}',
    '{"n": {"inc": 2, "within": [{"exclusiveMaximum": 5}, {"minimum": 6}]}}',
    '{"n": {"inc": 2, "within": [{"multipleOf": 2}]}}',
    '{"n": {"inc": 2, "within": [{"enum": [4, 6]}]}}',
    '{"n": {"inc": 2, "within": []}}',
    '{"l": {"append": [1], "within": [{"uniqueItems": true}]}}',
    '{"l": {"append": [2, 3], "within": [{"maxItems": 2}]}}',
    '{"m": {"append": [], "within": [{"minItems": 1}]}}',
    '{"n": {"append": []}}',
    '{"l": {"inc": 1}}',
    '{"m": {"max": "0123456789 0123456789 0123456789 0123456789"}}'
  ] loop
    begin
      perform convoke.apply('{"n": 3, "l": [1]}', attempt::jsonb, 't', 40);
      refused := false;
    exception when check_violation or datatype_mismatch then
      refused := true;
    end;
    assert refused, attempt;
  end loop;
end
$$;
