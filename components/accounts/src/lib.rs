//! The bank of the demo: accounts, and transfers that never overdraw.

use convoke::prelude::*;

/// As many as one transaction takes in good time.
const ACCOUNTS_MAX: u32 = 100_000;

/// All accounts together stay below 2^53, up to which a number of JavaScript is exact.
const BALANCE_MAX: i64 = 90_000_000_000;

/// An account, by its number.
#[table("accounts", index(by_number = [number]))]
pub struct Account {
    /// Counted from 0.
    pub number: u32,
    /// In the smallest unit, never below 0.
    pub balance: i64,
}

/// What two accounts hold after a transfer.
#[value]
pub struct Balances {
    /// The balance of the account that paid.
    pub from: i64,
    /// The balance of the account that was paid.
    pub to: i64,
}

/// The first accounts and all of them together, in one snapshot.
#[value]
pub struct Overview {
    /// The balances of the first accounts, from account 0 on.
    pub balances: Vec<i64>,
    /// What all accounts hold together.
    pub total: i64,
}

/// Makes the accounts from 0 on have this balance, creates those that are missing, and leaves all others. Returns how
/// many accounts it set.
#[mutation]
fn seed(
    ctx: &MutationCtx,
    /// How many accounts.
    accounts: u32,
    /// What each of them holds.
    balance: i64,
) -> Result<u32> {
    ensure!(accounts <= ACCOUNTS_MAX, "TOO_MANY_ACCOUNTS", "at most {ACCOUNTS_MAX} accounts, not {accounts}");
    ensure!(
        (0..=BALANCE_MAX).contains(&balance),
        "INVALID_BALANCE",
        "a balance is 0 to {BALANCE_MAX}, which {balance} isn't"
    );
    let existing = ctx.db().query::<Account>().index("by_number").lt("number", accounts).collect()?;
    let mut missing = vec![true; accounts as usize];
    for account in &existing {
        missing[account.number as usize] = false;
        // What holds the balance already costs no write.
        if account.balance != balance {
            ctx.db().patch(account.id(), json!({ "balance": balance }))?;
        }
    }
    for number in (0..accounts).filter(|number| missing[*number as usize]) {
        ctx.db().insert(&Account { number, balance })?;
    }
    Ok(accounts)
}

/// Moves an amount from one account to another, and returns what both hold then.
#[mutation]
fn transfer(ctx: &MutationCtx, from: u32, to: u32, amount: i64) -> Result<Balances> {
    ensure!(from != to, "SAME_ACCOUNT", "account {from} can't pay itself");
    ensure!(amount > 0, "INVALID_AMOUNT", "an amount is above 0, but {amount} isn't");
    let both = ctx.db().query::<Account>().index("by_number").is_in("number", [from, to]).collect()?;
    let source = find(&both, from)?;
    let target = find(&both, to)?;
    if source.balance < amount {
        let message = format_args!("account {from} holds {}, which is less than {amount}", source.balance);
        let data = json!({ "account": from, "balance": source.balance, "amount": amount });
        bail!(Error::new("INSUFFICIENT_FUNDS", message).with_data(data));
    }
    let Some(increased) = target.balance.checked_add(amount) else {
        bail!("BALANCE_TOO_LARGE", "account {to} can't hold {amount} more");
    };
    let after = Balances { from: source.balance - amount, to: increased };
    ctx.db().patch(source.id(), json!({ "balance": after.from }))?;
    ctx.db().patch(target.id(), json!({ "balance": after.to }))?;
    Ok(after)
}

/// What an account holds.
#[query]
fn balance(ctx: &QueryCtx, account: u32) -> Result<i64> {
    let found = ctx.db().query::<Account>().index("by_number").eq("number", account).unique()?;
    Ok(found.ok_or_else(|| unknown(account))?.balance)
}

/// What all accounts hold together.
#[query]
fn total(ctx: &QueryCtx) -> Result<i64> {
    let accounts = ctx.db().query::<Account>().collect()?;
    Ok(accounts.iter().map(|account| account.balance).sum())
}

/// What the first accounts hold, and all of them together: one query for a page that shows both.
#[query]
fn overview(
    ctx: &QueryCtx,
    /// How many accounts, from 0 on.
    first: u32,
) -> Result<Overview> {
    let shown = ctx.db().query::<Account>().index("by_number").lt("number", first).take(ACCOUNTS_MAX)?;
    let (total,) = ctx.db().query::<Account>().aggregate([Aggregate::sum("balance")])?;
    Ok(Overview { balances: shown.iter().map(|account| account.balance).collect(), total })
}

fn find(accounts: &[Doc<Account>], number: u32) -> Result<&Doc<Account>> {
    accounts.iter().find(|account| account.number == number).ok_or_else(|| unknown(number))
}

fn unknown(number: u32) -> Error {
    Error::new("UNKNOWN_ACCOUNT", format_args!("there is no account {number}")).with_data(json!({ "account": number }))
}
