//! The tables of the benchmark, in the form that Convoke gives them.

/// The schema that holds them.
#[derive(Debug, Clone)]
pub struct Tables {
    schema: String,
}

impl Tables {
    pub fn new(schema: &str) -> Self {
        Self { schema: format!("\"{}\"", schema.replace('"', "\"\"")) }
    }

    /// Makes the tables where Convoke has not made them already.
    pub fn create(&self) -> String {
        let schema = &self.schema;
        let table = |name: &str, index: &str, field: &str| {
            format!(
                "create table if not exists {schema}.{name} (\
                   _id uuid primary key, _creation_time double precision not null, data jsonb not null);\
                 create index if not exists {name}_{index}_idx on {schema}.{name} \
                   (convoke.key(data->'{field}'), _creation_time, _id);"
            )
        };
        let messages = table("messages", "by_channel", "channel");
        let accounts = table("accounts", "by_number", "number");
        format!("create schema if not exists {schema};{messages}{accounts}")
    }

    /// Fills the empty tables with new rows. Ids are of version 7, as those of Convoke.
    pub fn fill(&self, counts: &Counts) -> String {
        let schema = &self.schema;
        let Counts { channels, messages_per_channel, accounts, balance } = counts;
        let uuid_v7 = |milliseconds: &str| {
            format!(
                "(lpad(to_hex({milliseconds}::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3) \
                      || '8' || substr(md5(random()::text), 1, 15))::uuid"
            )
        };
        let id = uuid_v7("1760000000000 + n");
        format!(
            "truncate {schema}.messages, {schema}.accounts;\
             insert into {schema}.messages (_id, _creation_time, data) \
               select {id}, 1760000000000 + n, jsonb_build_object(\
                 'channel', 'channel-' || n % {channels}, 'author', 'author-' || n % 97, 'body', repeat('lorem ipsum ', 10)) \
               from generate_series(0, {channels} * {messages_per_channel} - 1) as n;\
             insert into {schema}.accounts (_id, _creation_time, data) \
               select {id}, 1760000000000 + n, jsonb_build_object('number', n, 'balance', {balance}) \
               from generate_series(0, {accounts} - 1) as n"
        )
    }

    /// Statistics and the visibility map as they are in a database that has been up for a while. One statement a table:
    /// none of them runs inside a transaction.
    pub fn vacuum(&self) -> [String; 2] {
        ["messages", "accounts"].map(|table| format!("vacuum analyze {}.{table}", self.schema))
    }

    pub fn get(&self) -> String {
        format!("select _id, _creation_time, data from {}.messages where _id = $1", self.schema)
    }

    pub fn list(&self) -> String {
        format!(
            "select _id, _creation_time, data from {}.messages where convoke.key(data->'channel') = convoke.key($1::jsonb) \
             order by _creation_time desc, _id desc limit $2",
            self.schema
        )
    }

    pub fn accounts(&self) -> String {
        format!(
            "select _id, data from {}.accounts where convoke.key(data->'number') in \
               (select convoke.key(n) from unnest($1::jsonb[]) as n) \
             order by convoke.key(data->'number'), _creation_time, _id limit 2",
            self.schema
        )
    }

    pub fn patch_accounts(&self) -> String {
        format!(
            "update {}.accounts as t set data = t.data || w.fields \
             from unnest($1::uuid[], $2::jsonb[]) as w(id, fields) where t._id = w.id",
            self.schema
        )
    }

    /// What no transfer may change.
    pub fn total(&self) -> String {
        format!("select count(*), coalesce(sum((data->>'balance')::bigint), 0)::bigint from {}.accounts", self.schema)
    }
}

/// How many rows.
#[derive(Debug, Clone)]
pub struct Counts {
    pub channels: u32,
    pub messages_per_channel: u32,
    pub accounts: u32,
    pub balance: i64,
}
