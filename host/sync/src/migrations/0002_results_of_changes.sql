-- What writes make of documents is held to the form and the size that a write of the whole is held to.

-- Refuses a document that a write would make, in the words in which the host refuses those that it sees itself.
create or replace function convoke.refuse(table_name text, field text, expected text, instead text) returns void
language plpgsql immutable parallel safe
as $$
begin
  raise exception 'the document of table `%` is refused: field `%`: expected %, found %', table_name, field, expected, instead
    using errcode = 'check_violation', table = table_name, column = field, hint = expected, detail = instead;
end
$$;

-- A document that is not too large: its text without the blanks that jsonb puts in. The text is made of large ones alone;
-- none is 32 times the size of its binary form, as numbers have at most 309 digits before the point.
create or replace function convoke.bounded(data jsonb, table_name text, bytes_max integer) returns jsonb
language plpgsql immutable parallel safe
as $$
declare
  bytes integer;
begin
  if pg_column_size(data) > bytes_max / 32 then
    bytes := octet_length(replace(replace(data::text, '": ', '":'), ', ', ','));
    if bytes > bytes_max then
      perform convoke.refuse(table_name, 'document', format('at most %s bytes', bytes_max), format('%s bytes', bytes));
    end if;
  end if;
  return data;
end
$$;

-- Whether a number or an array fits one of several schemas, which have these keywords and no others.
create or replace function convoke.fits(value jsonb, forms jsonb) returns boolean
language plpgsql immutable parallel safe
as $$
declare
  form jsonb;
  number numeric;
begin
  if jsonb_typeof(value) = 'number' then
    number := (value #>> '{}')::numeric;
    for form in select jsonb_array_elements(forms) loop
      if number >= coalesce((form ->> 'minimum')::numeric, number)
        and number <= coalesce((form ->> 'maximum')::numeric, number)
        and coalesce(number > (form ->> 'exclusiveMinimum')::numeric, true)
        and coalesce(number < (form ->> 'exclusiveMaximum')::numeric, true)
        and coalesce(number % (form ->> 'multipleOf')::numeric = 0, true)
        and (not form ? 'type' or number = trunc(number))
        and coalesce(form -> 'enum' @> value, true) then
        return true;
      end if;
    end loop;
    return false;
  end if;
  for form in select jsonb_array_elements(forms) loop
    if jsonb_array_length(value) >= coalesce((form ->> 'minItems')::numeric, 0)
      and coalesce(jsonb_array_length(value) <= (form ->> 'maxItems')::numeric, true)
      and (coalesce((form ->> 'uniqueItems')::boolean, false) = false
        or (select count(*) = count(distinct item) from jsonb_array_elements(value) as item)) then
      return true;
    end if;
  end loop;
  return false;
end
$$;

-- Changes fields by what is there: inc, append, max, min. A missing field counts as 0, [] or nothing. Each operation says
-- beside it, as `within`, which schemas its result may fit.
create or replace function convoke.apply(data jsonb, operations jsonb, table_name text, bytes_max integer) returns jsonb
language plpgsql immutable strict parallel safe
as $$
declare
  field text;
  operation jsonb;
  before jsonb;
  result jsonb;
begin
  for field, operation in select key, value from jsonb_each(operations) loop
    before := data -> field;
    if operation ? 'inc' then
      if jsonb_typeof(coalesce(before, '0')) <> 'number' then
        raise exception 'field "%" is no number, so it cannot be increased', field
          using errcode = 'datatype_mismatch', table = table_name, column = field;
      end if;
      result := to_jsonb((coalesce(before, '0') #>> '{}')::numeric + (operation ->> 'inc')::numeric);
      if abs((result #>> '{}')::numeric) > 1.7976931348623157e308 then
        perform convoke.refuse(table_name, field, 'a number that a 64-bit float holds', 'a larger one');
      end if;
    elsif operation ? 'append' then
      if jsonb_typeof(coalesce(before, '[]')) <> 'array' then
        raise exception 'field "%" is no array, so nothing can be appended', field
          using errcode = 'datatype_mismatch', table = table_name, column = field;
      end if;
      result := coalesce(before, '[]') || (operation -> 'append');
    elsif operation ? 'max' then
      continue when before is not null and convoke.key(operation -> 'max') <= convoke.key(before);
      result := operation -> 'max';
    else
      continue when before is not null and convoke.key(operation -> 'min') >= convoke.key(before);
      result := operation -> 'min';
    end if;
    if operation ? 'within' and not convoke.fits(result, operation -> 'within') then
      perform convoke.refuse(table_name, field,
        'what fits ' || case jsonb_array_length(operation -> 'within') when 1 then operation -> 'within' ->> 0
          else 'one of ' || (operation ->> 'within') end,
        case jsonb_typeof(result) when 'number' then 'the number ' || (result #>> '{}')
          else 'an array of ' || jsonb_array_length(result) end);
    end if;
    data := jsonb_set(data, array[field], result);
  end loop;
  return convoke.bounded(data, table_name, bytes_max);
end
$$;
