//! What an idle subscription costs in the index. A binary of its own: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convoke_live::ReadSetIndex;
use convoke_model::{Ids, Index, IndexField, Plan, Read, ReadSet, SeenRows};
use uuid::Uuid;

/// A server holds tens of thousands of subscriptions beside everything else.
const SUBSCRIPTION_BYTES_MAX: usize = 4096;
/// Of each row a digest and a time are known too.
const SUBSCRIPTION_TO_FIELDS_BYTES_MAX: usize = 6144;
const ROWS_HANDED_OUT: usize = 50;

static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without; this one only counts what goes through")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The messages of a channel: one range of an index, and the rows in it.
fn reads(index: &Arc<Index>, subscription: usize, more: &str) -> Arc<ReadSet> {
    let plan = format!(
        r#"{{"table":"messages","index":"channel","where":[{{"field":"channel","op":"eq","value":"{}"}}]{more}}}"#,
        Uuid::from_u128(subscription as u128)
    );
    let plan = Plan::parse(&plan).expect("the plan is valid");
    let ranges = plan.ranges(index);
    assert_eq!(ranges.len(), 1);
    let first = subscription * ROWS_HANDED_OUT;
    let ids = (first..first + ROWS_HANDED_OUT).map(|row| Uuid::from_u128(row as u128));
    let ids = match plan.projection(index) {
        None => Ids::Known(ids.collect()),
        Some(projection) => {
            let rows = ids.map(|id| (id, projection.seen(0.0, |_| Some("1")))).collect();
            Ids::Seen(Box::new(SeenRows { projection, rows, whole: Vec::new() }))
        }
    };
    Arc::new(ReadSet { reads: vec![Read::Range { table: 1, index: Arc::clone(index), ranges, ids }] })
}

#[test]
fn an_idle_subscription_is_small() {
    let most = bytes_of_one("");
    assert!(most < SUBSCRIPTION_BYTES_MAX, "{most} bytes");
    let most = bytes_of_one(r#","fields":["author"]"#);
    assert!(most < SUBSCRIPTION_TO_FIELDS_BYTES_MAX, "{most} bytes");
}

/// The bytes of a subscription, of which there are many.
fn bytes_of_one(more: &str) -> usize {
    let fields = vec![IndexField::ascending("channel")];
    let index = Arc::new(Index { name: "channel".to_owned(), fields, unique: false });
    let sets: Vec<_> = (0..20_000).map(|subscription| reads(&index, subscription, more)).collect();
    let mut live = ReadSetIndex::new();
    let before = BYTES.load(Ordering::Relaxed);
    let mut most = 0;
    for (id, reads) in sets.iter().enumerate() {
        live.insert(id as u64, Arc::clone(reads));
        // A map that has just doubled is half empty: it is the worst number of subscriptions that counts.
        if id >= 1_000 {
            most = most.max((BYTES.load(Ordering::Relaxed) - before) / live.len());
        }
    }
    most
}
