//! What an idle subscription costs in the index. A binary of its own: the allocator counts for the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convoke_live::ReadSetIndex;
use convoke_model::{Ids, Index, IndexField, Plan, Read, ReadSet};
use uuid::Uuid;

/// A server holds tens of thousands of subscriptions beside everything else.
const SUBSCRIPTION_BYTES_MAX: usize = 4096;
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
fn reads(index: &Arc<Index>, subscription: usize) -> Arc<ReadSet> {
    let plan = format!(
        r#"{{"table":"messages","index":"channel","where":[{{"field":"channel","op":"eq","value":"{}"}}]}}"#,
        Uuid::from_u128(subscription as u128)
    );
    let ranges = Plan::parse(&plan).expect("the plan is valid").ranges(index);
    assert_eq!(ranges.len(), 1);
    let first = subscription * ROWS_HANDED_OUT;
    let ids = (first..first + ROWS_HANDED_OUT).map(|row| Uuid::from_u128(row as u128)).collect();
    Arc::new(ReadSet { reads: vec![Read::Range { table: 1, index: Arc::clone(index), ranges, ids: Ids::Known(ids) }] })
}

#[test]
fn an_idle_subscription_is_small() {
    let fields = vec![IndexField::ascending("channel")];
    let index = Arc::new(Index { name: "channel".to_owned(), fields, unique: false });
    let sets: Vec<_> = (0..20_000).map(|subscription| reads(&index, subscription)).collect();
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
    assert!(most < SUBSCRIPTION_BYTES_MAX, "{most} bytes");
}
