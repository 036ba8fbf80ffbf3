//! The rules by which results hold, one at a time.

use convoke_invoke::{Ran, RequestId};
use convoke_model::{Fields, Ids, Index, Plan, Position, Range, Read, ReadSet, SeenRows};
use uuid::Uuid;

use super::*;
use crate::changes::{Row, What, Written};
use crate::due::Patience;
use crate::evaluation::{Outcome, Verdict};
use crate::history::{IDS_MAX, RECENT_MAX};
use crate::memory::Memory;

const ID: Uuid = Uuid::from_u128(7);

fn key(name: &str) -> QueryKey {
    QueryKey { path: Arc::from(name), args: Arc::from("{}"), journal: None }
}

fn evaluation(from: u64, snapshot: &str) -> Arc<Evaluation> {
    page(from, snapshot, None)
}

/// A page that ends at this journal.
fn page(from: u64, snapshot: &str, journal: Option<&str>) -> Arc<Evaluation> {
    let outcome = Outcome {
        path: "a:b".into(),
        ran: Ran { result: Ok("1".into()), log: Arc::default(), version: None, request_id: RequestId::random() },
        journal: journal.map(str::to_owned),
        from,
        snapshot: Some(snapshot.parse().expect("a snapshot")),
        verdict: Verdict::Result,
    };
    Arc::new(Evaluation::new(outcome, Memory::new(1 << 20).hold_anyway(100)))
}

fn failure() -> Arc<Evaluation> {
    let outcome = Outcome::failed("a:b".into(), Failure::system(Code::Overloaded, "busy"));
    Arc::new(Evaluation::new(outcome, Memory::new(1 << 20).hold_anyway(100)))
}

/// Reads everything of table 1, and was given the row [`ID`].
fn reads() -> Arc<ReadSet> {
    let index = Arc::new(Index { name: "by_creation_time".to_owned(), fields: Vec::new(), unique: false });
    let ranges = vec![Range { lower: Position::default(), upper: None }];
    Arc::new(ReadSet { reads: vec![Read::Range { table: 1, index, ranges, ids: Ids::Known(vec![ID]) }] })
}

/// The same, of which it looked at `a` alone, which was this.
fn reads_of_a(a: i64) -> Arc<ReadSet> {
    let mut reads = ReadSet::clone(&reads());
    if let Some(Read::Range { index, ids, .. }) = reads.reads.first_mut() {
        let plan = Plan::parse(r#"{"table":"t","fields":["a"]}"#).expect("a plan");
        let projection = plan.projection(index).expect("a projection");
        let a = a.to_string();
        let rows = vec![(ID, projection.seen(1.0, |_| Some(a.as_str())))];
        *ids = Ids::Seen(Box::new(SeenRows { projection, rows, whole: Vec::new() }));
    }
    Arc::new(reads)
}

/// An update of that row.
fn updated(a: i64) -> Vec<Written> {
    let data = Fields::parse(&format!(r#"{{"a": {a}, "b": 5}}"#)).expect("fields");
    let row = Row { id: ID, creation_time: 1.0, is_newest: true, data: Some(data) };
    let what = What::Update { old_id: None, row };
    vec![Written { schema: "demo".to_owned(), relation: "table1".to_owned(), table: Some(1), what }]
}

fn wrote(table: u32) -> Vec<Written> {
    let row = Row { id: Uuid::from_u128(9), creation_time: 1.0, is_newest: true, data: None };
    let relation = format!("table{table}");
    vec![Written { schema: "demo".to_owned(), relation, table: Some(table), what: What::Insert(row) }]
}

fn streaming() -> State {
    let mut state = State::new(Bounds { cache_bytes_max: 1 << 20, subscriptions_max: 60 });
    state.start(100);
    state
}

fn subscriber(subscription: u64) -> Subscriber {
    Subscriber { subscription, watcher: 1, notify: Arc::default() }
}

/// A query with a subscriber, which runs.
fn subscribed(state: &mut State, name: &str) -> EntryId {
    let id = state.entry(&key(name));
    assert_eq!(state.subscribe(&key(name), subscriber(id)), Ok(Subscribed::Runs(id)));
    id
}

fn apply(state: &mut State, xid: u32, end_lsn: u64, table: u32) -> Effects {
    state.apply(xid, end_lsn, wrote(table), |_, _| {})
}

fn receive(state: &mut State, id: EntryId, from: u64, snapshot: &str) -> Received {
    let begun = state.begun();
    state.receive(id, begun, evaluation(from, snapshot), reads()).0
}

fn validity(state: &State, id: EntryId) -> (u64, Option<u64>) {
    let entry = &state.entries[&id];
    (entry.from, entry.until)
}

#[test]
fn a_write_ends_a_result_at_its_position_and_another_one_does_not() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    assert_eq!(receive(&mut state, id, 100, "10:10:"), Received::Kept);
    assert_eq!(apply(&mut state, 10, 110, 2).run, [0_u64; 0]);
    assert_eq!(validity(&state, id), (100, None));
    assert_eq!(apply(&mut state, 11, 120, 1).run, [id]);
    assert_eq!(apply(&mut state, 12, 130, 1).run, [0_u64; 0], "it runs already");
    assert_eq!(validity(&state, id), (100, Some(120)), "the first one counts");
}

#[test]
fn what_the_snapshot_contains_runs_nothing_whenever_it_comes() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    apply(&mut state, 9, 101, 1);
    assert_eq!(receive(&mut state, id, 110, "11:13:11"), Received::Kept);
    assert_eq!(apply(&mut state, 10, 105, 1).run, [0_u64; 0]);
    assert_eq!(apply(&mut state, 12, 106, 1).run, [0_u64; 0]);
    assert_eq!(apply(&mut state, 11, 112, 1).run, [id], "it was running when the snapshot was taken");
}

#[test]
fn ids_are_widened_towards_the_snapshot() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    let epoch = 1_u64 << 32;
    let snapshot = format!("{}:{}:", epoch - 2, epoch + 2);
    assert_eq!(receive(&mut state, id, 100, &format!("{snapshot}{}", epoch - 1)), Received::Kept);
    assert_eq!(apply(&mut state, 1, 110, 1).run, [0_u64; 0], "of the new epoch, and contained");
    assert_eq!(apply(&mut state, u32::MAX, 120, 1).run, [id], "of the old epoch, and running");
}

#[test]
fn a_result_that_lacks_what_came_before_it_is_not_shown() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    apply(&mut state, 10, 110, 1);
    assert_eq!(receive(&mut state, id, 110, "10:11:10"), Received::TooOld, "at the boundary");
    assert_eq!(receive(&mut state, id, 109, "10:11:10"), Received::KeptButStale, "it held until then");
    assert_eq!(validity(&state, id), (109, Some(110)));
    assert_eq!(receive(&mut state, id, 110, "11:11:"), Received::Kept);
}

#[test]
fn a_result_that_contains_what_comes_after_it_holds_from_there() {
    // `synchronous_commit = off`: visible before it is in the log.
    let mut state = streaming();
    let early = subscribed(&mut state, "early");
    assert_eq!(receive(&mut state, early, 100, "11:11:"), Received::Kept);
    apply(&mut state, 10, 120, 1);
    assert_eq!(validity(&state, early), (120, None));
    let late = subscribed(&mut state, "late");
    assert_eq!(receive(&mut state, late, 105, "11:11:"), Received::Kept);
    assert_eq!(validity(&state, late), (120, None));
}

#[test]
fn an_update_that_left_alone_what_was_looked_at_runs_nothing() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    let receive = |state: &mut State, from: u64, snapshot: &str, a: i64| {
        let begun = state.begun();
        state.receive(id, begun, evaluation(from, snapshot), reads_of_a(a)).0
    };
    // Whether it comes before the result or after.
    state.apply(10, 110, updated(1), |_, _| {});
    assert_eq!(receive(&mut state, 105, "10:10:", 1), Received::Kept);
    assert_eq!(state.apply(11, 120, updated(1), |_, _| {}).run, [0_u64; 0]);
    assert_eq!(validity(&state, id), (105, None));
    assert_eq!(state.apply(12, 130, updated(2), |_, _| {}).run, [id]);
    assert_eq!(state.apply(13, 140, updated(1), |_, _| {}).run, [0_u64; 0]);
    assert_eq!(validity(&state, id), (105, Some(130)), "that it is as it was does not undo what was between");
}

#[test]
fn what_a_result_shows_of_a_transaction_that_comes_after_it_holds_from_there() {
    // `synchronous_commit = off`: what is in the row is what was seen, because the transaction was seen.
    let mut state = streaming();
    let early = subscribed(&mut state, "early");
    let begun = state.begun();
    let received = state.receive(early, begun, evaluation(100, "11:11:"), reads_of_a(2)).0;
    assert_eq!(received, Received::Kept);
    state.apply(10, 120, updated(2), |_, _| {});
    assert_eq!(validity(&state, early), (120, None));
    let late = subscribed(&mut state, "late");
    let begun = state.begun();
    assert_eq!(state.receive(late, begun, evaluation(105, "11:11:"), reads_of_a(2)).0, Received::Kept);
    assert_eq!(validity(&state, late), (120, None));
}

#[test]
fn of_what_is_not_kept_the_id_still_counts() {
    let mut state = streaming();
    let slow = subscribed(&mut state, "a");
    let begun = state.begun();
    apply(&mut state, 10, 110, 1);
    for n in 0..RECENT_MAX as u32 {
        apply(&mut state, 11 + n, 120 + u64::from(n), 2);
    }
    let (received, _) = state.receive(slow, begun, evaluation(105, "10:10:"), reads());
    assert_eq!(received, Received::KeptButStale, "a slow query is shown as it was");
    assert_eq!(validity(&state, slow), (105, Some(110)));
    assert_eq!(receive(&mut state, slow, 9_000, "9000:9000:"), Received::Kept);
}

#[test]
fn a_run_that_is_slower_than_all_memory_is_run_again() {
    let mut state = streaming();
    let slow = subscribed(&mut state, "a");
    let begun = state.begun();
    apply(&mut state, 10, 110, 1);
    for n in 0..(RECENT_MAX + IDS_MAX) as u32 {
        state.apply(11 + n, 120 + u64::from(n), Vec::new(), |_, _| {});
    }
    let (received, _) = state.receive(slow, begun, evaluation(105, "10:10:"), reads());
    assert_eq!(received, Received::TooOld);
    let begun = state.begun();
    let (received, _) = state.receive(slow, begun, evaluation(400_000, "400000:400000:"), reads());
    assert_eq!(received, Received::Kept);
}

#[test]
fn an_interruption_ends_every_run_and_a_start_every_result() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    let begun = state.begun();
    state.interrupt();
    let (received, _) = state.receive(id, begun, evaluation(100, "10:10:"), reads());
    assert_eq!(received, Received::TooOld, "nobody can say what it missed");
    assert_eq!(receive(&mut state, id, 150, "10:10:"), Received::Kept);
    assert_eq!(state.horizon(&state.entries[&id]), 150, "of what comes after, nothing is known");
    assert_eq!(state.position, 100);
    assert_eq!(state.start(160).run, [id]);
    assert_eq!(state.position, 160);
    assert_eq!(receive(&mut state, id, 170, "10:10:"), Received::Kept);
    assert_eq!(state.horizon(&state.entries[&id]), 160);
}

#[test]
fn a_deploy_runs_everything_once() {
    let mut state = streaming();
    let (a, b) = (subscribed(&mut state, "a"), subscribed(&mut state, "b"));
    assert_eq!(receive(&mut state, a, 100, "10:10:"), Received::Kept);
    let begun = state.begun();
    assert_eq!(state.expire_all().run, [a], "the other one runs already");
    let (received, _) = state.receive(b, begun, evaluation(100, "10:10:"), reads());
    assert_eq!(received, Received::TooOld);
    assert_eq!(state.expire_all().run, [0_u64; 0]);
}

#[test]
fn a_result_that_nobody_wants_is_kept_while_it_holds() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    assert_eq!(receive(&mut state, id, 100, "10:10:"), Received::Kept);
    state.unsubscribe(id);
    assert!(state.cached_bytes() > 0);
    assert_eq!(state.subscribe(&key("a"), subscriber(5)), Ok(Subscribed::Holds));
    assert_eq!(state.cached_bytes(), 0);
    state.unsubscribe(5);
    assert_eq!(apply(&mut state, 10, 110, 1).run, [0_u64; 0]);
    assert!(state.entries.is_empty() && state.cached_bytes() == 0, "and goes when it does not");
    let id = subscribed(&mut state, "a");
    state.unsubscribe(id);
    assert_eq!(receive(&mut state, id, 120, "11:11:"), Received::Unwanted);
    assert!(state.entries.is_empty());
}

#[test]
fn who_has_seen_a_page_follows_that_page() {
    let mut state = streaming();
    let first = subscribed(&mut state, "a");
    let begun = state.begun();
    let (received, effects) = state.receive(first, begun, page(100, "10:10:", Some("end")), reads());
    assert_eq!((received, effects.wake.len()), (Received::Kept, 1));
    let pinned = state.by_subscription[&first];
    assert_ne!(pinned, first);
    assert_eq!(state.entries[&pinned].key.journal.as_deref(), Some("end"));
    assert_eq!(validity(&state, pinned), (100, None));

    // A result that is kept is a page that is seen at once.
    assert_eq!(state.subscribe(&key("a"), subscriber(50)), Ok(Subscribed::Holds));
    assert_eq!(state.by_subscription[&50], pinned);

    // A write runs the page again, and not the query that begins anew.
    assert_eq!(apply(&mut state, 10, 110, 1).run, [pinned]);
    assert!(state.find(&key("a")).is_none());
    let Ok(Subscribed::Runs(later)) = state.subscribe(&key("a"), subscriber(51)) else { panic!("it holds") };
    let begun = state.begun();
    let (received, effects) = state.receive(later, begun, page(105, "10:10:", Some("other end")), reads());
    assert_eq!((received, effects.run.len()), (Received::Unwanted, 1), "stale already: the page runs again");
    assert_ne!(state.by_subscription[&51], pinned);
    assert_eq!(state.subscriptions(), 3);
}

#[test]
fn who_waits_for_a_position_is_woken_when_it_is_reached() {
    let mut state = streaming();
    let waiting = [110, 120].map(|position| (position, Arc::new(Notify::new())));
    for (position, notify) in &waiting {
        state.wake_at(*position, notify);
    }
    assert_eq!(state.advance(109).wake.len(), 0);
    assert_eq!(apply(&mut state, 10, 110, 2).wake.len(), 1);
    assert_eq!(state.advance(300).wake.len(), 1);
}

#[test]
fn runs_of_one_snapshot_hold_together_unless_they_lack_a_change() {
    let mut state = streaming();
    let begun = state.begun();
    let runs = |snapshot| vec![(evaluation(150, snapshot), reads()), (evaluation(150, snapshot), Arc::default())];
    apply(&mut state, 11, 140, 1);
    assert_eq!(state.hold_together(begun, &runs("12:12:")), None, "nothing is known of what comes after 140");
    state.advance(200);
    assert_eq!(state.hold_together(begun, &runs("12:12:")), Some(200));
    assert_eq!(state.hold_together(begun, &runs("11:12:11")), None, "the log is ahead of the snapshot");
    apply(&mut state, 12, 230, 1);
    assert_eq!(state.hold_together(begun, &runs("12:12:")), Some(229));
    state.interrupt();
    assert_eq!(state.hold_together(begun, &runs("12:12:")), None);
}

#[test]
fn a_failure_of_the_system_takes_nothing_away_until_patience_is_over() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    assert_eq!(receive(&mut state, id, 100, "10:10:"), Received::Kept);
    assert_eq!(apply(&mut state, 10, 110, 1).run, [id]);
    let (received, effects) = state.receive_failure(id, &failure(), Patience::Waits);
    assert_eq!((received, effects.wake.len()), (Received::Failed, 0));
    assert_eq!(validity(&state, id), (100, Some(110)), "and is not shown as newer than it is");
    assert!(state.entries[&id].current.as_ref().is_some_and(|current| current.result.is_ok()));
    let (received, effects) = state.receive_failure(id, &failure(), Patience::Over);
    assert_eq!((received, effects.wake.len()), (Received::Failed, 1));
    assert!(state.entries[&id].current.as_ref().is_some_and(|current| current.result.is_err()));
    assert!(apply(&mut state, 11, 115, 1).run.is_empty());
    assert_eq!(validity(&state, id), (0, None), "no write ends a failure");
    assert_eq!(receive(&mut state, id, 120, "12:12:"), Received::Kept);
    assert!(state.entries[&id].current.as_ref().is_some_and(|current| current.result.is_ok()));
}

#[test]
fn without_a_result_a_failure_is_shown_when_patience_is_over_and_until_there_is_one() {
    let mut state = streaming();
    let id = subscribed(&mut state, "a");
    let (received, effects) = state.receive_failure(id, &failure(), Patience::Waits);
    assert_eq!((received, effects.wake.len()), (Received::Failed, 0));
    assert!(state.entries[&id].current.is_none());
    let (received, effects) = state.receive_failure(id, &failure(), Patience::Over);
    assert_eq!((received, effects.wake.len()), (Received::Failed, 1));
    assert!(state.entries[&id].current.as_ref().is_some_and(|current| current.result.is_err()));
    assert_eq!(state.subscribe(&key("a"), subscriber(50)), Ok(Subscribed::Joins(id)), "a failure is no result");
    assert_eq!(receive(&mut state, id, 120, "11:11:"), Received::Kept);
    assert!(state.entries[&id].current.as_ref().is_some_and(|current| current.result.is_ok()));
}

#[test]
fn a_plain_callers_run_is_kept_or_given_up() {
    let mut state = streaming();
    let (id, run) = state.begin_kept(&key("a")).expect("a run");
    assert!(state.begin_kept(&key("a")).is_none(), "it is one run");
    assert_eq!(receive(&mut state, id, 100, "10:10:"), Received::Kept);
    drop(run);
    assert!(state.holding(&key("a")).is_some());

    let (id, run) = state.begin_kept(&key("b")).expect("a run");
    drop(run);
    assert!(state.abandon(id).run.is_empty());
    assert!(!state.entries.contains_key(&id), "nothing is left of it");

    // Whoever subscribed meanwhile waits for a run: he gets one.
    let (id, _run) = state.begin_kept(&key("c")).expect("a run");
    assert_eq!(state.subscribe(&key("c"), subscriber(50)), Ok(Subscribed::Joins(id)));
    assert_eq!(state.abandon(id).run, [id]);
    assert!(state.begin_kept(&key("c")).is_none());
}

#[test]
fn subscriptions_are_bounded() {
    let mut state = streaming();
    for subscription in 0..60 {
        assert!(state.subscribe(&key("a"), subscriber(subscription)).is_ok());
    }
    let refused = state.subscribe(&key("a"), subscriber(60)).expect_err("too many");
    assert_eq!(refused.code, Code::SubscriptionLimit);
    state.unsubscribe(5);
    assert!(state.subscribe(&key("a"), subscriber(60)).is_ok());
}
