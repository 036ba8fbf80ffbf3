//! Rounds over queries that are no functions: what fails, panics, or takes much.

use std::collections::{BTreeMap, HashSet};

use convoke_invoke::{Ran, RequestId, VersionTag};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::sleep;

use super::*;
use crate::evaluation::Verdict;
use crate::runner::Running;
use crate::state::Bounds;

/// As usual, but quick.
const RETRIES: Retries = Retries {
    pause_first: Duration::from_millis(2),
    pause_longest: Duration::from_millis(20),
    patience: Duration::from_millis(200),
};

/// What a run gives, by its query and how often that was run before.
type Script = Box<dyn Fn(&QueryKey, usize) -> Outcome + Send + Sync>;

struct Scripted {
    script: Script,
    runs: Mutex<BTreeMap<String, usize>>,
    /// Runs that may end.
    permits: Semaphore,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Scripted")
    }
}

impl Runner for Scripted {
    fn run<'a>(&'a self, key: &'a QueryKey, _: Option<SharedSnapshot>) -> Running<'a> {
        Box::pin(async move {
            self.permits.acquire().await.expect("permits").forget();
            let before = {
                let mut runs = self.runs.lock();
                let runs = runs.entry(key.args.to_string()).or_default();
                *runs += 1;
                *runs - 1
            };
            ((self.script)(key, before), ReadSet::default())
        })
    }

    fn request_position(&self) {}
}

struct Scene {
    rounds: Arc<Rounds>,
    runner: Arc<Scripted>,
    next: u64,
}

fn outcome(key: &QueryKey, result: Result<String, Failure>, verdict: Verdict) -> Outcome {
    let (path, version) = (Arc::clone(&key.path), VersionTag::of("0123456789ab"));
    let ran = Ran { result: result.map(Arc::from), log: Arc::default(), version, request_id: RequestId::random() };
    Outcome { path, ran, journal: None, from: 100, snapshot: None, verdict }
}

fn good(key: &QueryKey, result: &str) -> Outcome {
    outcome(key, Ok(result.to_owned()), Verdict::Result)
}

fn busy(key: &QueryKey) -> Outcome {
    Outcome::failed(Arc::clone(&key.path), Failure::system(Code::Overloaded, "busy"))
}

fn key(args: &str) -> QueryKey {
    QueryKey { path: Arc::from("a:b"), args: Arc::from(args), journal: None }
}

impl Scene {
    fn new(results_bytes_max: usize, script: impl Fn(&QueryKey, usize) -> Outcome + Send + Sync + 'static) -> Self {
        let permits = Semaphore::new(Semaphore::MAX_PERMITS);
        let runner = Arc::new(Scripted { script: Box::new(script), runs: Mutex::default(), permits });
        let mut state = State::new(Bounds { cache_bytes_max: 1 << 20, subscriptions_max: 10_000 });
        state.start(100);
        let state = Arc::new(Mutex::new(state));
        let memory = Memory::new(results_bytes_max);
        let rounds = Rounds::new(state, Arc::clone(&runner) as _, memory, Arc::default(), 4, RETRIES);
        Self { rounds: Arc::new(rounds), runner, next: 0 }
    }

    /// A subscription, and what tells of its changes.
    fn subscribe(&mut self, watcher: u64, args: &str) -> (u64, Arc<Notify>) {
        self.next += 1;
        let (subscription, notify) = (self.next, Arc::<Notify>::default());
        let subscriber = Subscriber { subscription, watcher, notify: Arc::clone(&notify) };
        self.rounds.subscribe(&key(args), subscriber).expect("a subscription");
        (subscription, notify)
    }

    fn current(&self, subscription: u64) -> Option<Arc<Evaluation>> {
        self.rounds.state.lock().subscribed(subscription)?.current.clone()
    }

    fn runs(&self, args: &str) -> usize {
        self.runner.runs.lock().get(args).copied().unwrap_or_default()
    }

    fn expire(&self) {
        let effects = self.rounds.state.lock().expire_all();
        self.rounds.take(effects);
    }
}

#[tokio::test]
async fn a_result_outlives_failures_of_the_system() {
    let mut scene = Scene::new(1 << 20, |key, before| match before {
        0 => good(key, "1"),
        1..=4 => busy(key),
        _ => good(key, "2"),
    });
    let (subscription, changed) = scene.subscribe(1, "");
    changed.notified().await;
    scene.expire();
    while scene.runs("") <= 3 {
        let current = scene.current(subscription).expect("a result");
        assert_eq!(current.result.as_deref(), Ok("1"));
        sleep(Duration::from_millis(1)).await;
    }
    changed.notified().await;
    assert_eq!(scene.current(subscription).expect("a result").result.as_deref(), Ok("2"));
    assert_eq!(scene.runs(""), 6);
}

#[tokio::test]
async fn who_has_a_stale_result_is_shown_the_failure_after_a_while() {
    let mut scene = Scene::new(1 << 20, |key, before| match before {
        0 => good(key, "1"),
        1..=40 => busy(key),
        _ => good(key, "2"),
    });
    let (subscription, changed) = scene.subscribe(1, "");
    changed.notified().await;
    scene.expire();
    changed.notified().await;
    assert!(scene.runs("") > 2, "it was tried again");
    let shown = scene.current(subscription).expect("a failure");
    assert_eq!(shown.result.as_ref().map_err(|failure| failure.code.clone()), Err(Code::Overloaded));
    while scene.current(subscription).is_some_and(|current| current.result.is_err()) {
        changed.notified().await;
    }
    assert_eq!(scene.current(subscription).expect("a result").result.as_deref(), Ok("2"));
}

#[tokio::test]
async fn who_has_no_result_is_shown_the_failure_after_a_while() {
    let mut scene = Scene::new(1 << 20, |key, before| if before < 40 { busy(key) } else { good(key, "1") });
    let (subscription, changed) = scene.subscribe(1, "");
    changed.notified().await;
    assert!(scene.runs("") > 1, "it was tried again");
    let shown = scene.current(subscription).expect("a failure");
    assert_eq!(shown.result.as_ref().map_err(|failure| failure.code.clone()), Err(Code::Overloaded));
    assert!(scene.runs("") < 40, "pauses grow");
    while scene.current(subscription).is_some_and(|current| current.result.is_err()) {
        changed.notified().await;
    }
    assert_eq!(scene.runs(""), 41);
}

#[tokio::test]
async fn a_failure_of_the_function_is_a_result() {
    let script = |key: &QueryKey, _| {
        outcome(key, Err(Failure::function(Code::Application("NO".to_owned()), "no")), Verdict::Result)
    };
    let mut scene = Scene::new(1 << 20, script);
    let (subscription, changed) = scene.subscribe(1, "");
    changed.notified().await;
    assert!(scene.current(subscription).is_some_and(|current| current.result.is_err()));
    sleep(2 * RETRIES.patience).await;
    assert_eq!(scene.runs(""), 1);
}

#[tokio::test]
async fn a_round_that_panics_is_run_again() {
    // The first runs of one query panic; the others share its rounds.
    let mut scene = Scene::new(1 << 20, |key, before| {
        assert!(&*key.args != "7" || ![1, 2, 3].contains(&before), "a panic that the test has made");
        good(key, &before.to_string())
    });
    let all: Vec<_> = (0..100).map(|query| scene.subscribe(query % 3, &query.to_string())).collect();
    for (_, changed) in &all {
        changed.notified().await;
    }
    scene.expire();
    for (number, (subscription, changed)) in all.iter().enumerate() {
        changed.notified().await;
        let wanted = if number == 7 { "4" } else { "1" };
        assert_eq!(scene.current(*subscription).expect("a result").result.as_deref(), Ok(wanted), "query {number}");
    }
    // No place is lost: whatever comes next is run.
    scene.expire();
    for (_, changed) in &all {
        changed.notified().await;
    }
    assert!(scene.rounds.state.lock().entries.values().all(|entry| entry.until.is_none()));
}

#[tokio::test]
async fn a_query_that_always_panics_is_shown_as_a_failure() {
    let mut scene = Scene::new(1 << 20, |key, _| match &*key.args {
        "bad" => panic!("a panic that the test has made"),
        _ => good(key, "1"),
    });
    let (bad, changed) = scene.subscribe(1, "bad");
    changed.notified().await;
    let shown = scene.current(bad).expect("a failure");
    assert_eq!(shown.result.as_ref().map_err(|failure| failure.code.clone()), Err(Code::Internal));
    let (_, changed) = scene.subscribe(1, "good");
    changed.notified().await;
}

#[tokio::test]
async fn a_newcomer_does_not_wait_for_who_asks_for_very_much() {
    let mut scene = Scene::new(64 << 20, |key, _| good(key, "1"));
    let (listener, mut runs) = mpsc::unbounded_channel();
    scene.rounds.listen(listener);
    // So that the function is known to be quick.
    let (_, changed) = scene.subscribe(0, "first");
    changed.notified().await;
    while runs.try_recv().is_ok() {}
    scene.runner.permits.forget_permits(Semaphore::MAX_PERMITS);
    for query in 0..5_000 {
        scene.subscribe(1, &query.to_string());
    }
    // Its rounds have begun.
    tokio::task::yield_now().await;
    let (_, changed) = scene.subscribe(2, "newcomer");
    scene.runner.permits.add_permits(10_000);
    changed.notified().await;
    let mut before = 0;
    while &*runs.try_recv().expect("its run").key.args != "newcomer" {
        before += 1;
    }
    // What runs already, and a turn.
    assert!(before <= 4 * 64 + 64, "{before} runs before it");
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_not_run() {
    let mut scene = Scene::new(1 << 20, |key, _| good(key, "1"));
    scene.runner.permits.forget_permits(Semaphore::MAX_PERMITS);
    let left: Vec<_> = (0..1_000).map(|query| scene.subscribe(1, &query.to_string()).0).collect();
    tokio::task::yield_now().await;
    for subscription in left {
        scene.rounds.state.lock().unsubscribe(subscription);
    }
    let (_, changed) = scene.subscribe(1, "stays");
    scene.runner.permits.add_permits(10_000);
    changed.notified().await;
    sleep(RETRIES.pause_longest).await;
    let ran = scene.runner.runs.lock().len();
    assert!(ran <= 5, "{ran} queries");
    assert_eq!(scene.rounds.state.lock().entries.len(), 1);
}

#[tokio::test]
async fn readers_that_are_slow_hold_no_more_than_there_is_room_for() {
    const RESULT_BYTES: usize = 1 << 20;
    const ROOM: usize = 16 << 20;
    let mut scene = Scene::new(ROOM, |key, before| good(key, &format!("{before}").repeat(RESULT_BYTES)));
    let all: Vec<_> = (0..200_u64).map(|reader| scene.subscribe(reader, &reader.to_string()).0).collect();
    let small = scene.subscribe(1_000, "small").0;
    let mut waiting: HashSet<u64> = all.iter().copied().collect();
    let mut most = 0;
    // Each reader takes its result, holds it for a while, and leaves.
    while !waiting.is_empty() {
        sleep(RETRIES.pause_longest).await;
        let bytes = scene.rounds.memory.bytes();
        assert!(bytes <= ROOM + (1 << 20), "{bytes} bytes, failures and all");
        most = most.max(bytes);
        let held: Vec<_> = waiting
            .iter()
            .filter_map(|reader| Some((*reader, scene.current(*reader).filter(|current| current.result.is_ok())?)))
            .collect();
        assert!(held.len() <= ROOM / RESULT_BYTES);
        sleep(RETRIES.pause_longest).await;
        for (reader, result) in held {
            scene.rounds.state.lock().unsubscribe(reader);
            waiting.remove(&reader);
            drop(result);
        }
    }
    assert!(most > ROOM / 2, "there was no pressure: {most}");
    assert!(scene.current(small).is_some());
}

#[tokio::test]
async fn small_results_have_room_beside_large_ones() {
    let mut scene = Scene::new(16 << 20, |key, _| match &*key.args {
        "small" => good(key, "1"),
        _ => good(key, &"x".repeat(1 << 20)),
    });
    for reader in 0..50 {
        scene.subscribe(reader, &reader.to_string());
    }
    sleep(RETRIES.pause_longest).await;
    let (small, changed) = scene.subscribe(100, "small");
    changed.notified().await;
    assert!(scene.current(small).is_some_and(|current| current.result.is_ok()));
    sleep(2 * RETRIES.patience).await;
    let refused = (1..=50).filter_map(|subscription| scene.current(subscription)?.result.clone().err());
    let codes: Vec<_> = refused.map(|failure| failure.code).collect();
    assert!(codes.len() > 30 && codes.iter().all(|code| *code == Code::LiveMemoryLimit), "{codes:?}");
}
