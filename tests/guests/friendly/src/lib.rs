//! Functions that behave, for measuring and for what works.

use std::hint::black_box;

use convoke::prelude::*;

/// Returns its argument.
#[query]
fn echo(_: &QueryCtx, value: Value) -> Value {
    value
}

/// Does nothing: what is left is the cost of a call.
#[query]
fn empty(_: &QueryCtx) {}

/// Adds two numbers, as a rule does: from the arguments alone.
#[rule]
fn add(left: i64, right: i64) -> Option<i64> {
    left.checked_add(right)
}

/// Keeps the processor busy for this long by the host's clock, which goes on in actions only.
#[action]
fn spin(ctx: &ActionCtx, ms: f64) {
    let end = ctx.now() + ms;
    while ctx.now() < end {
        // Some tens of microseconds, so that it is time which ends the call and not the number of calls to the host.
        black_box(sum(20_000));
    }
}

/// Adds up numbers; takes as long as it takes.
#[query]
fn compute(_: &QueryCtx, rounds: u64) -> u64 {
    sum(rounds)
}

/// Takes memory, writes to every page of it, and returns how many bytes there were.
#[query]
fn allocates(_: &QueryCtx, bytes: u32) -> usize {
    let mut memory = vec![0_u8; bytes as usize];
    memory.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
    black_box(&memory).len()
}

/// Logs a line at every level.
#[query]
fn logs(ctx: &QueryCtx, message: String) {
    ctx.log().debug(&message);
    ctx.log().log(&message);
    ctx.log().info(&message);
    ctx.log().warn(&message);
    ctx.log().error(&message);
}

/// Writes a line to standard output and one to standard error.
#[query]
fn prints(_: &QueryCtx, message: String) {
    println!("{message}");
    eprintln!("{message}");
}

/// Returns an application error with this code and these data.
#[query]
fn fails(_: &QueryCtx, code: String, message: String, data: Value) -> Result<()> {
    bail!(Error::new(code, message).with_data(data))
}

fn sum(rounds: u64) -> u64 {
    (0..rounds).fold(0, |sum, number| black_box(sum).wrapping_add(number))
}
