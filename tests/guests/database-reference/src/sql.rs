//! SQL.

use convoke::prelude::*;

/// What a genre is worth.
#[value]
pub struct Worth {
    pub genre: String,
    pub worth: f64,
}

/// A statement that reads.
#[query]
fn worth(ctx: &QueryCtx, at_least: f64) -> Result<Vec<Worth>> {
    let statement = "
        select data->>'genre' as genre, sum((data->>'price')::float8 * (data->>'copies')::int) as worth
        from books group by 1 having sum((data->>'price')::float8 * (data->>'copies')::int) >= $1::float8 order by 1";
    ctx.sql(statement, (at_least,))?.rows()
}

/// A statement that writes.
#[mutation]
fn raise_prices(ctx: &MutationCtx, genre: String, percent: i32) -> Result<u64> {
    let statement = "
        update books set data = jsonb_set(data, '{price}', to_jsonb((data->>'price')::numeric * (100 + $2::int) / 100))
        where data->>'genre' = $1";
    Ok(ctx.sql(statement, (genre, percent))?.count())
}
