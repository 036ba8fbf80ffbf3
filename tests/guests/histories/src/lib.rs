//! Transactions whose histories show whether they were serialisable.
//!
//! Every mutation may name a `gate`, a document that it changes last: who holds that document's row holds the mutation at its
//! commit.

use convoke::prelude::*;
use convoke::serde_json;

/// A list that is only ever appended to: its content tells the order of its writers.
#[table("lists", index(by_name = [name]))]
struct List {
    name: String,
    values: Vec<i64>,
}

#[table("accounts", index(by_owner = [owner]))]
struct Account {
    owner: String,
    balance: i64,
}

#[table("doctors", index(by_shift = [shift, on_call]))]
struct Doctor {
    shift: String,
    on_call: bool,
}

/// The batch that is open.
#[table("batches")]
struct Batch {
    open: i64,
    total: i64,
}

#[table("receipts", index(by_batch = [batch]))]
struct Receipt {
    batch: i64,
    amount: i64,
}

/// What a batch came to when it was closed.
#[table("reports", index(by_batch = [batch]))]
struct Report {
    batch: i64,
    total: i64,
}

#[table("claims", unique(by_name = [name]))]
struct Claim {
    name: String,
}

#[table("gates")]
struct Gate {
    passed: i64,
}

fn pass(ctx: &MutationCtx, gate: Option<&Id<Gate>>) -> Result<()> {
    gate.map_or(Ok(()), |gate| ctx.db().update(gate, Change::new().inc("passed", 1)))
}

fn found<T>(document: Option<T>) -> Result<T> {
    document.ok_or_else(|| Error::new("MISSING", "a document that every test makes"))
}

#[mutation]
fn make_gate(ctx: &MutationCtx) -> Result<Id<Gate>> {
    ctx.db().insert(&Gate { passed: 0 })
}

#[mutation]
fn make_lists(ctx: &MutationCtx, names: Vec<String>) -> Result<Vec<Id<List>>> {
    let lists: Vec<List> = names.into_iter().map(|name| List { name, values: Vec::new() }).collect();
    ctx.db().insert_many(&lists)
}

/// Runs steps, and gives what the reads among them gave: `{"read": id}`, `{"append": id, "value"}`, which reads the list and
/// writes it, and `{"add": id, "value"}`, which appends without reading.
#[mutation]
fn lists_run(ctx: &MutationCtx, steps: Vec<Value>) -> Result<Vec<Vec<i64>>> {
    let mut read = Vec::new();
    for step in &steps {
        let id = |name: &str| serde_json::from_value::<Id<List>>(step[name].clone());
        let value = step["value"].as_i64().unwrap_or_default();
        if let Ok(id) = id("read") {
            read.push(found(ctx.db().get(&id)?)?.values.clone());
        } else if let Ok(id) = id("append") {
            let mut values = found(ctx.db().get(&id)?)?.values.clone();
            values.push(value);
            ctx.db().patch(&id, json!({ "values": values }))?;
        } else if let Ok(id) = id("add") {
            ctx.db().update(&id, Change::new().append("values", [value]))?;
        } else {
            bail!("STEP", "no such step: {step}");
        }
    }
    Ok(read)
}

/// Reads one list after another.
#[query]
fn lists_read(ctx: &QueryCtx, ids: Vec<Id<List>>) -> Result<Vec<Vec<i64>>> {
    ids.iter().map(|id| Ok(found(ctx.db().get(id)?)?.values.clone())).collect()
}

/// Reads them at once.
#[query]
fn lists_read_at_once(ctx: &QueryCtx, ids: Vec<Id<List>>) -> Result<Vec<Vec<i64>>> {
    ctx.db().get_many(&ids)?.into_iter().map(|list| Ok(found(list)?.values.clone())).collect()
}

#[mutation]
fn make_accounts(ctx: &MutationCtx, count: i64, balance: i64) -> Result<Vec<Id<Account>>> {
    let accounts: Vec<Account> = (0..count).map(|n| Account { owner: format!("o{n}"), balance }).collect();
    ctx.db().insert_many(&accounts)
}

/// Moves money that is there; tells whether it was.
#[mutation]
fn transfer(ctx: &MutationCtx, from: Id<Account>, to: Id<Account>, amount: i64) -> Result<bool> {
    let (source, target) = (found(ctx.db().get(&from)?)?, found(ctx.db().get(&to)?)?);
    if source.balance < amount {
        return Ok(false);
    }
    ctx.db().patch(&from, json!({ "balance": source.balance - amount }))?;
    ctx.db().patch(&to, json!({ "balance": target.balance + amount }))?;
    Ok(true)
}

/// Moves money, whether it is there or not.
#[mutation]
fn transfer_blindly(ctx: &MutationCtx, from: Id<Account>, to: Id<Account>, amount: i64) -> Result<()> {
    ctx.db().update(&from, Change::new().inc("balance", -amount))?;
    ctx.db().update(&to, Change::new().inc("balance", amount))
}

#[mutation]
fn deposit(ctx: &MutationCtx, to: Id<Account>, amount: i64) -> Result<()> {
    ctx.db().update(&to, Change::new().inc("balance", amount))
}

#[query]
fn balances(ctx: &QueryCtx) -> Result<Vec<i64>> {
    Ok(ctx.db().query::<Account>().collect()?.into_iter().map(|account| account.balance).collect())
}

/// The same, a read an account.
#[query]
fn balances_of(ctx: &QueryCtx, ids: Vec<Id<Account>>) -> Result<Vec<i64>> {
    ids.iter().map(|id| Ok(found(ctx.db().get(id)?)?.balance)).collect()
}

#[mutation]
fn make_shift(ctx: &MutationCtx, shift: String, doctors: usize) -> Result<Vec<Id<Doctor>>> {
    let doctors: Vec<Doctor> = (0..doctors).map(|_| Doctor { shift: shift.clone(), on_call: true }).collect();
    ctx.db().insert_many(&doctors)
}

/// Ends somebody's duty if somebody else stays; tells whether it did.
#[mutation]
fn leave(ctx: &MutationCtx, shift: String, doctor: Id<Doctor>) -> Result<bool> {
    let on_call = ctx.db().query::<Doctor>().index("by_shift").eq("shift", &shift).eq("on_call", true).count()?;
    if on_call >= 2 {
        ctx.db().patch(&doctor, json!({ "on_call": false }))?;
    }
    Ok(on_call >= 2)
}

#[query]
fn on_call(ctx: &QueryCtx, shift: String) -> Result<u64> {
    ctx.db().query::<Doctor>().index("by_shift").eq("shift", &shift).eq("on_call", true).count()
}

#[mutation]
fn make_batch(ctx: &MutationCtx) -> Result<Id<Batch>> {
    ctx.db().insert(&Batch { open: 1, total: 0 })
}

/// Adds a receipt to the batch that is open; gives its number.
#[mutation]
fn receive(ctx: &MutationCtx, batch: Id<Batch>, amount: i64, gate: Option<Id<Gate>>) -> Result<i64> {
    let open = found(ctx.db().get(&batch)?)?.open;
    ctx.db().insert(&Receipt { batch: open, amount })?;
    pass(ctx, gate.as_ref())?;
    Ok(open)
}

/// Opens the next batch; gives the number of the one before.
#[mutation]
fn close(ctx: &MutationCtx, batch: Id<Batch>) -> Result<i64> {
    let open = found(ctx.db().get(&batch)?)?.open;
    ctx.db().patch(&batch, json!({ "open": open + 1 }))?;
    Ok(open)
}

/// Adds to the total without a reading.
#[mutation]
fn count_in(ctx: &MutationCtx, batch: Id<Batch>, amount: i64, gate: Option<Id<Gate>>) -> Result<()> {
    ctx.db().update(&batch, Change::new().inc("total", amount))?;
    pass(ctx, gate.as_ref())
}

/// Writes down what the total is.
#[mutation]
fn report(ctx: &MutationCtx, batch: Id<Batch>, gate: Option<Id<Gate>>) -> Result<i64> {
    let found = found(ctx.db().get(&batch)?)?;
    ctx.db().insert(&Report { batch: found.open, total: found.total })?;
    pass(ctx, gate.as_ref())?;
    Ok(found.total)
}

/// The batch that is open, its total, the amounts of the receipts of the one before, and the totals of the reports.
#[query]
fn books(ctx: &QueryCtx, batch: Id<Batch>) -> Result<Value> {
    let found = found(ctx.db().get(&batch)?)?;
    let receipts = ctx.db().query::<Receipt>().index("by_batch").eq("batch", found.open - 1).collect()?;
    let receipts: Vec<i64> = receipts.into_iter().map(|receipt| receipt.amount).collect();
    let reports: Vec<i64> = ctx.db().query::<Report>().collect()?.into_iter().map(|report| report.total).collect();
    Ok(json!({ "open": found.open, "total": found.total, "closed": receipts, "reports": reports }))
}

/// A marked document, for who counts how often it happened.
#[mutation]
fn mark(ctx: &MutationCtx, name: String) -> Result<()> {
    ctx.db().insert(&List { name, values: Vec::new() })?;
    Ok(())
}

/// The same behind a reading, so that the transaction is open when the write comes.
#[mutation]
fn mark_once_read(ctx: &MutationCtx, name: String) -> Result<()> {
    let there = ctx.db().query::<List>().index("by_name").eq("name", &name).count()?;
    ctx.db().insert(&List { name, values: vec![i64::try_from(there).unwrap_or_default()] })?;
    Ok(())
}

/// The same, with a result of this size.
#[mutation]
fn mark_largely(ctx: &MutationCtx, name: String, bytes: usize) -> Result<String> {
    ctx.db().insert(&List { name, values: Vec::new() })?;
    Ok("x".repeat(bytes))
}

/// Computes for a while, so that something can happen meanwhile.
fn spin(rounds: u64) -> u64 {
    (0..rounds).fold(0, |sum, number| std::hint::black_box(sum).wrapping_add(number))
}

/// Computes before it comes to the database.
#[mutation]
fn spin_then_mark(ctx: &MutationCtx, name: String, rounds: u64) -> Result<()> {
    spin(rounds);
    ctx.db().insert(&List { name, values: Vec::new() }).map(drop)
}

/// Makes a claim that nobody has made; tells whether it did. Computes behind the look.
#[mutation]
fn claim(ctx: &MutationCtx, name: String, rounds: u64) -> Result<bool> {
    if ctx.db().query::<Claim>().index("by_name").eq("name", &name).first()?.is_some() {
        return Ok(false);
    }
    spin(rounds);
    ctx.db().insert(&Claim { name })?;
    Ok(true)
}

/// The same without a look.
#[mutation]
fn claim_blindly(ctx: &MutationCtx, name: String) -> Result<()> {
    ctx.db().insert(&Claim { name }).map(drop)
}
