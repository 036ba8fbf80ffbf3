//! Functions that misbehave. The component itself is of a proper form: what is wrong happens in the calls.

use std::hint::black_box;

use convoke::__private::{Function, Kind, inventory, schema_of_arguments, schema_of_result};
use convoke::prelude::*;

/// What the mutations leave, or shouldn't.
#[table("marks", index(by_name = [name]))]
struct Mark {
    name: String,
}

/// Never ends.
#[query]
fn endless_loop(_: &QueryCtx) {
    let mut number = 0_u64;
    loop {
        number = black_box(number).wrapping_add(1);
    }
}

/// Takes memory until there is none, 16 MiB a time.
#[query]
fn memory_bomb(_: &QueryCtx) -> usize {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 16 << 20]));
    }
}

/// Calls itself this deep, for ever unless said otherwise, with frames on the machine's stack alone.
#[query]
fn deep_recursion(_: &QueryCtx, depth: Option<u32>) -> u32 {
    #[inline(never)]
    fn descend(left: u32) -> u32 {
        if left == 0 { 1 } else { descend(left - 1).rotate_left(1) ^ left }
    }
    descend(black_box(depth.unwrap_or(u32::MAX)))
}

/// Calls itself this deep, for ever unless said otherwise, with frames in the memory of WASM, which ends first.
#[query]
fn deep_recursion_in_memory(_: &QueryCtx, depth: Option<u32>) -> u32 {
    #[inline(never)]
    fn descend(left: u32) -> u32 {
        let frame = black_box([left; 256]);
        if left == 0 { 1 } else { descend(left - 1) ^ frame[0] }
    }
    descend(black_box(depth.unwrap_or(u32::MAX)))
}

/// Panics with a message, which goes to standard error.
#[query]
fn panic(_: &QueryCtx, message: String) {
    panic!("{message}");
}

/// Calls the host this many times, cheaply.
#[query]
fn host_call_flood(ctx: &QueryCtx, calls: u32) {
    for _ in 0..calls {
        black_box(ctx.now());
    }
}

/// Reads from the database this many times.
#[query]
fn read_flood(ctx: &QueryCtx, reads: u32) -> Result<u32> {
    for read in 0..reads {
        ctx.db().query::<Mark>().index("by_name").eq("name", read.to_string()).first()?;
    }
    Ok(reads)
}

/// Inserts this many documents.
#[mutation]
fn write_flood(ctx: &MutationCtx, writes: u32) -> Result<u32> {
    for write in 0..writes {
        ctx.db().insert(&Mark { name: write.to_string() })?;
    }
    Ok(writes)
}

/// Logs this many lines.
#[query]
fn log_flood(ctx: &QueryCtx, lines: u32) {
    for line in 0..lines {
        ctx.log().info(line);
    }
}

/// Logs one line of this length.
#[query]
fn long_log_line(ctx: &QueryCtx, bytes: u32) {
    ctx.log().info("x".repeat(bytes as usize));
}

/// Returns a text of this length: 20 MiB unless said otherwise.
#[query]
fn large_result(_: &QueryCtx, bytes: Option<u32>) -> String {
    "x".repeat(bytes.unwrap_or(20 << 20) as usize)
}

/// Inserts a document of this size.
#[mutation]
fn large_document(ctx: &MutationCtx, bytes: u32) -> Result<Id<Mark>> {
    ctx.db().insert(&Mark { name: "x".repeat(bytes as usize) })
}

/// Inserts a document, then panics: the document must not be there afterwards.
#[mutation]
fn trap_after_write(ctx: &MutationCtx, name: String) -> Result<()> {
    ctx.db().insert(&Mark { name })?;
    panic!("after the write");
}

/// Inserts a document, then returns an error: the document must not be there afterwards.
#[mutation]
fn error_after_write(ctx: &MutationCtx, name: String) -> Result<()> {
    ctx.db().insert(&Mark { name })?;
    bail!("AFTER_WRITE", "after the write");
}

/// Inserts a document and returns its id, as it should be done.
#[mutation]
fn write(ctx: &MutationCtx, name: String) -> Result<Id<Mark>> {
    ctx.db().insert(&Mark { name })
}

/// How many marks have this name.
#[query]
fn count(ctx: &QueryCtx, name: String) -> Result<usize> {
    Ok(ctx.db().query::<Mark>().index("by_name").eq("name", name).collect()?.len())
}

/// Returns an error whose message is this long.
#[query]
fn long_error_message(_: &QueryCtx, bytes: u32) -> Result<()> {
    bail!("LONG", "{}", "x".repeat(bytes as usize));
}

/// Returns an error whose code is this long.
#[query]
fn long_error_code(_: &QueryCtx, bytes: u32) -> Result<()> {
    bail!(Error::new("X".repeat(bytes as usize), "long"));
}

/// Returns an error whose data are this long.
#[query]
fn long_error_data(_: &QueryCtx, bytes: u32) -> Result<()> {
    bail!(Error::new("LONG", "long").with_data("x".repeat(bytes as usize)));
}

/// Panics with a message of this length.
#[query]
fn long_panic(_: &QueryCtx, bytes: u32) {
    panic!("{}", "x".repeat(bytes as usize));
}

/// Asks for this many documents by ids that are all the same text of this length, which lies in memory once: the host
/// would have each of them.
#[query]
fn aliased_arguments(_: &QueryCtx, ids: u32, bytes: u32) {
    use convoke::__private::bindings::database_read;
    let text = "x".repeat(bytes as usize);
    let (start, length) = (text.as_ptr().cast_mut(), text.len());
    // SAFETY: unsound on purpose, and nothing in here frees them: the host is what has to cope.
    let ids: Vec<String> = (0..ids).map(|_| unsafe { String::from_raw_parts(start, length, length) }).collect();
    drop(database_read::get_many("marks", &ids));
    std::mem::forget(ids);
}

/// What a function without arguments takes.
#[derive(convoke::__private::serde::Deserialize, JsonSchema)]
#[serde(crate = "convoke::__private::serde", deny_unknown_fields)]
#[schemars(crate = "convoke::__private::schemars")]
struct NoArguments {}

/// Registers a function that answers as no macro would let it.
macro_rules! raw_query {
    ($name:literal, $call:expr) => {
        inventory::submit! {
            Function {
                name: $name,
                kind: Kind::Query,
                call: $call,
                args: schema_of_arguments::<NoArguments>,
                returns: schema_of_result::<()>,
            }
        }
    };
}

// A result that is no JSON.
raw_query!("not_json", |_| Ok("{\"half\": ".to_owned()));

// A result of another type than the manifest says.
raw_query!("wrong_type", |_| Ok("\"text instead of null\"".to_owned()));

// An error whose data are no JSON.
raw_query!("error_not_json", |_| Err(forged_error()));

// A result that claims to be 1 GiB long and isn't there.
raw_query!("huge_result", |_| Ok(forged_text(1 << 30)));

// A result that isn't UTF-8.
raw_query!("not_utf8", |_| {
    // SAFETY: unsound on purpose, and nothing in here reads it: the host is what has to cope.
    Ok(unsafe { String::from_utf8_unchecked(vec![b'"', 0xff, 0xfe, b'"']) })
});

/// An error with text where JSON is expected. The SDK wouldn't write it, so the fields come from a database error.
fn forged_error() -> Error {
    use convoke::__private::bindings::types;
    types::Error { code: "FORGED".to_owned(), message: "forged".to_owned(), data: Some("{half".to_owned()) }.into()
}

/// Text with a length that has no memory behind it.
fn forged_text(length: usize) -> String {
    let start = Box::leak(Box::new([b'x'; 16])).as_mut_ptr();
    // SAFETY: unsound on purpose, and nothing in here reads it: the host is what has to cope.
    unsafe { String::from_raw_parts(black_box(start), black_box(length), black_box(length)) }
}
