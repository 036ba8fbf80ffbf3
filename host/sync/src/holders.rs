//! Who holds a table that a step waits for.

use tokio_postgres::Client;

/// Up to three sessions, in words.
pub(crate) async fn of(client: &Client, project: &str, table: &str) -> Vec<String> {
    const HOLDERS: &str = "\
select distinct a.pid, coalesce(nullif(a.application_name, ''), a.usename, 'a session')::text,
  coalesce(extract(epoch from clock_timestamp() - a.xact_start), 0)::float8, a.state, left(a.query, 80)
from pg_locks l
join pg_stat_activity a on a.pid = l.pid
join pg_class c on c.oid = l.relation
join pg_namespace n on n.oid = c.relnamespace
where l.granted and n.nspname = $1 and c.relname = $2 and a.pid <> pg_backend_pid()
  and a.application_name <> 'convoke-sync'
order by 3 desc limit 3";
    // For the words of a message only: without it the message is shorter.
    let Ok(rows) = client.query(HOLDERS, &[&project, &table]).await else { return Vec::new() };
    rows.iter()
        .map(|row| {
            let (pid, name, seconds): (i32, String, f64) = (row.get(0), row.get(1), row.get(2));
            let (state, query): (Option<String>, Option<String>) = (row.get(3), row.get(4));
            format!(
                "process {pid} ({name}), {} for {seconds:.0} s: {}",
                state.unwrap_or_default(),
                query.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
            )
        })
        .collect()
}
