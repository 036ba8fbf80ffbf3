//! Which tables are followed.

use std::collections::HashSet;

use convoke_postgres::Config;
use convoke_sql::{quote_identifier, quote_literal};
use tokio_postgres::Client;

use crate::error::FeedError;

/// What a publication covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coverage {
    /// Every table of the schema, those made later too.
    Schema,
    /// These tables of the schema; [`ensure_publication`] has to run again when one is added.
    Tables(Vec<String>),
}

/// Makes sure that a publication exists and covers the tables of a schema: the whole schema where the role is a
/// superuser, else the tables that it has now. What else the publication covers stays. May run inside of a transaction;
/// several hosts may run it at once.
///
/// A published table needs a primary key (or a replica identity), or Postgres refuses updates and deletes of it. In a
/// list of tables such ones are left out; in a schema they cannot be.
///
/// # Errors
/// [`FeedError::Statement`] when Postgres refuses: without a superuser the role has to own the tables and to have
/// CREATE on the database.
pub async fn ensure_publication(client: &Client, publication: &str, schema: &str) -> Result<Coverage, FeedError> {
    let row = client.query_one("select rolsuper from pg_roles where rolname = current_user", &[]).await?;
    let superuser: bool = row.try_get(0)?;
    if superuser {
        client.batch_execute(&publish_schema(publication, schema)).await?;
        return Ok(Coverage::Schema);
    }
    client.batch_execute(&publish_tables(publication, schema)).await?;
    if client.query_opt(SCHEMA_COVERED, &[&publication, &schema]).await?.is_some() {
        return Ok(Coverage::Schema);
    }
    let rows = client.query(TABLES_COVERED, &[&publication, &schema]).await?;
    let tables = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok(Coverage::Tables(tables))
}

/// What [`publish`] found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The schema's tables that were not listed before.
    pub added: Vec<String>,
    /// All tables that the log names, by schema and name: of a partitioned one its partitions.
    pub tables: HashSet<(String, String)>,
    pub state: PublicationState,
}

/// What a publication covers, to be compared: another table under the same name, another operation or a filter of rows is
/// another state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationState(String);

/// Has the publication list the tables that the schema has now, as [`ensure_publication`] does for who is no superuser.
/// One connection, and two queries where there is nothing to do.
///
/// # Errors
/// When Postgres cannot be reached or refuses.
pub async fn publish(postgres: &Config, publication: &str, schema: &str) -> Result<Published, FeedError> {
    let (client, connection) = postgres.connect().await?;
    let connection = tokio::spawn(connection);
    let asked = client.query_one(&missing_tables(publication, schema), &[]).await?;
    let (exists, missing): (bool, Vec<String>) = (asked.try_get(0)?, asked.try_get(1)?);
    if !exists || !missing.is_empty() {
        client.batch_execute(&publish_tables(publication, schema)).await?;
    }
    let listed = "select schemaname::text, tablename::text from pg_publication_tables where pubname = $1";
    let rows = client.query(listed, &[&publication]).await?;
    let tables = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, FeedError>>()?;
    let state = state(&client, publication, schema).await?;
    drop(client);
    connection.abort();
    Ok(Published { added: missing, tables, state })
}

/// A connection that asks from time to time what a publication covers: the log does not tell of that.
#[derive(Debug)]
pub struct PublicationWatch {
    postgres: Config,
    publication: String,
    schema: String,
    turn: &'static str,
    client: Option<Client>,
}

impl PublicationWatch {
    /// `turn`: an expression for the advisory lock of those who make the schema's tables, with the schema as `$1`.
    pub fn new(postgres: Config, publication: String, schema: String, turn: &'static str) -> Self {
        Self { postgres, publication, schema, turn, client: None }
    }

    /// Takes the turn of those who make tables, where nobody has it: a table that is made is published by whoever makes it.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn begin_turn(&mut self) -> Result<bool, FeedError> {
        let Some(client) = &self.client else { return Ok(false) };
        let row = client.query_one(&format!("select pg_try_advisory_lock({})", self.turn), &[&self.schema]).await?;
        Ok(row.try_get(0)?)
    }

    /// Gives the turn back, with the connection where it cannot be said.
    pub async fn end_turn(&mut self) {
        let Some(client) = self.client.take() else { return };
        let unlock = format!("select pg_advisory_unlock({})", self.turn);
        if client.query_one(&unlock, &[&self.schema]).await.is_ok() {
            self.client = Some(client);
        }
    }

    /// What the publication covers now.
    ///
    /// # Errors
    /// When Postgres cannot be reached or refuses; the next question is asked by another connection.
    pub async fn look(&mut self) -> Result<PublicationState, FeedError> {
        let client = if let Some(client) = self.client.take() {
            client
        } else {
            let (client, connection) = self.postgres.connect().await?;
            tokio::spawn(connection);
            client
        };
        let state = state(&client, &self.publication, &self.schema).await?;
        self.client = Some(client);
        Ok(state)
    }
}

async fn state(client: &Client, publication: &str, schema: &str) -> Result<PublicationState, FeedError> {
    let (publication, schema) = (quote_literal(publication), quote_literal(schema));
    let missing = from_missing(&publication, &schema);
    let asked = format!(
        "select concat_ws(e'\\n', \
         (select format('%s %s %s %s %s', p.oid, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate) \
         from pg_publication p where p.pubname = {publication}), \
         (select string_agg(format('%s %s %s %s', r.prrelid, r.prrelid::regclass, r.prattrs, r.prqual is not null), ',' \
         order by r.prrelid) from pg_publication_rel r join pg_publication p on p.oid = r.prpubid \
         where p.pubname = {publication}), \
         (select string_agg(n.pnnspid::text, ',' order by n.pnnspid) from pg_publication_namespace n \
         join pg_publication p on p.oid = n.pnpubid where p.pubname = {publication}), \
         (select string_agg(c.oid::text, ',' order by c.oid) {missing}))"
    );
    let row = client.query_one(&asked, &[]).await?;
    Ok(PublicationState(row.try_get(0)?))
}

/// Whether there is such a publication, and what it lacks.
fn missing_tables(publication: &str, schema: &str) -> String {
    format!(
        "select exists (select from pg_publication where pubname = {}), array(select c.relname::text {} order by 1)",
        quote_literal(publication),
        from_missing(&quote_literal(publication), &quote_literal(schema))
    )
}

/// The tables of a schema (`c`) that can be published and are not.
fn from_missing(publication: &str, schema: &str) -> String {
    format!(
        "from pg_class c
    join pg_namespace s on s.oid = c.relnamespace
    left join pg_publication p on p.pubname = {publication}
    where s.nspname = {schema} and c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence = 'p'
      and (
        c.relreplident = 'f'
        or exists (
          select from pg_index i
          where i.indrelid = c.oid and (i.indisreplident or (c.relreplident = 'd' and i.indisprimary))
        )
      )
      and p.puballtables is not true
      and not exists (select from pg_publication_namespace n where n.pnpubid = p.oid and n.pnnspid = s.oid)
      and not exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = c.oid)"
    )
}

const SCHEMA_COVERED: &str = "select 1 from pg_publication_namespace n join pg_publication p on p.oid = n.pnpubid \
     join pg_namespace s on s.oid = n.pnnspid where p.pubname = $1 and s.nspname = $2";
const TABLES_COVERED: &str = "select c.relname::text from pg_publication_rel r join pg_publication p on p.oid = r.prpubid \
     join pg_class c on c.oid = r.prrelid join pg_namespace s on s.oid = c.relnamespace \
     where p.pubname = $1 and s.nspname = $2 order by 1";

/// Two hosts take turns; the number is Convoke's alone ("convfeed" in ASCII).
const TURNS: &str = "perform pg_advisory_xact_lock(7165066986972865892);";

/// For a superuser.
fn publish_schema(publication: &str, schema: &str) -> String {
    let (name, text) = (quote_identifier(publication), quote_literal(publication));
    let (schema, schema_text) = (quote_identifier(schema), quote_literal(schema));
    block(&format!(
        "begin
  {TURNS}
  if not exists (select from pg_publication where pubname = {text}) then
    create publication {name} for tables in schema {schema};
  elsif not exists (
    select from pg_publication p
      left join pg_publication_namespace n on n.pnpubid = p.oid
      left join pg_namespace s on s.oid = n.pnnspid
      where p.pubname = {text} and (p.puballtables or s.nspname = {schema_text})
  ) then
    alter publication {name} add tables in schema {schema};
  end if;
end"
    ))
}

/// For everybody else: adds what is missing, and nothing where the schema is covered already.
fn publish_tables(publication: &str, schema: &str) -> String {
    let (name, text) = (quote_identifier(publication), quote_literal(publication));
    let from_missing = from_missing(&text, &quote_literal(schema));
    block(&format!(
        "declare
  missing text;
begin
  {TURNS}
  if not exists (select from pg_publication where pubname = {text}) then
    create publication {name};
  end if;
  select string_agg(format('%I.%I', s.nspname, c.relname), ', ' order by c.relname) into missing
    {from_missing};
  if missing is not null then
    execute 'alter publication ' || quote_ident({text}) || ' add table ' || missing;
  end if;
end"
    ))
}

/// An anonymous block, its text quoted: names in it may hold anything.
fn block(body: &str) -> String {
    format!("do {}", quote_literal(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        let text = publish_schema("a'b\"c", "$$;");
        assert!(text.starts_with("do 'begin"), "{text}");
        assert!(text.contains("pubname = ''a''''b\"c''"), "{text}");
        assert!(text.contains("create publication \"a''b\"\"c\" for tables in schema \"$$;\";"), "{text}");
    }
}
