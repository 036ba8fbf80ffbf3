use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use lanes::TURN_MAX;

fn due(id: EntryId, path: &str, watcher: u64, wanted: Wanted) -> Due {
    Due::new(id, Arc::from(path), Reader::Watcher(watcher), wanted)
}

fn queue() -> Queue {
    let mut queue = Queue::new(4);
    queue.took(&Arc::from("quick:it"), Duration::from_millis(1));
    queue
}

fn queue_of(paths: &[&str]) -> Queue {
    let mut queue = queue();
    for (id, path) in paths.iter().enumerate() {
        queue.push(due(id as u64, path, 0, Wanted::Again));
    }
    queue
}

/// The lengths of rounds that run one at a time.
fn rounds(queue: &mut Queue) -> Vec<usize> {
    std::iter::from_fn(|| {
        let (pace, round) = queue.next_round()?;
        queue.end(pace);
        Some(round.len())
    })
    .collect()
}

/// What comes next, one round at a time.
fn ids(queue: &mut Queue) -> impl Iterator<Item = EntryId> {
    std::iter::from_fn(|| {
        let (pace, round) = queue.next_round()?;
        queue.end(pace);
        Some(round.into_iter().map(|due| due.id))
    })
    .flatten()
}

#[test]
fn quick_queries_share_a_round_and_others_have_their_own() {
    let mut queue = queue_of(&["quick:it", "quick:it", "new:it", "new:it", "new:it", "quick:it"]);
    assert_eq!(queue.begin(), 3, "one for the quick ones, and half of all for the others");
    assert_eq!(queue.begin(), 1, "no more than there is room for");
    assert_eq!(rounds(&mut queue), [3, 1, 1, 1]);
    assert_eq!(queue.rounds, 3);
}

#[test]
fn a_long_queue_is_shared_out_in_long_rounds() {
    let mut queue = queue_of(&["quick:it"; 1_000]);
    assert_eq!(queue.begin(), 4);
    let lengths = rounds(&mut queue);
    assert_eq!((lengths[0], lengths.iter().sum()), (ROUND_MAX, 1_000));
    assert!(lengths.iter().all(|length| *length <= ROUND_MAX), "{lengths:?}");
}

#[test]
fn what_turned_slow_runs_alone_until_it_is_quick_again() {
    let mut queue = queue_of(&["quick:it"; 4]);
    queue.begin();
    queue.took(&Arc::from("quick:it"), 2 * SLOW);
    assert_eq!(queue.next_round().map(|(_, round)| round.len()), Some(1));
    queue.took(&Arc::from("quick:it"), SLOW);
    // What changed over stays there, to run alone.
    assert_eq!(queue.next_round().map(|(pace, round)| (pace, round.len())), Some((Pace::Slow, 1)));
}

#[test]
fn slow_queries_have_half_of_the_rounds() {
    let mut queue = queue_of(&["slow:it"; 10]);
    assert_eq!(queue.begin(), 2);
    let [first, second] = [(); 2].map(|()| queue.next_round().expect("a round"));
    assert_eq!((first.0, second.0), (Pace::Slow, Pace::Slow));
    queue.push(due(100, "quick:it", 1, Wanted::Again));
    assert_eq!(queue.begin(), 1);
    assert_eq!(queue.next_round().map(|(_, round)| round[0].id), Some(100));
    assert!(queue.next_round().is_none(), "the rest waits for a slow round to end");
    queue.end(Pace::Slow);
    assert_eq!(queue.next_round().map(|(pace, _)| pace), Some(Pace::Slow));
}

#[test]
fn a_round_that_is_broken_off_leaves_its_place_and_its_queries() {
    let mut queue = queue_of(&["slow:it", "quick:it"]);
    let begun = queue.begin();
    let (pace, round) = queue.next_round().expect("a round");
    queue.put_back(round.into_iter());
    queue.break_off(pace);
    assert_eq!(queue.rounds, begun - 1);
    assert_eq!(ids(&mut queue).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
}

#[test]
fn a_newcomer_waits_for_a_turn_of_each_and_no_more() {
    for wanted in [Wanted::First, Wanted::Again] {
        let mut queue = queue();
        for id in 0..100_000 {
            queue.push(due(id, "quick:it", 1, wanted));
        }
        queue.begin();
        queue.next_round().expect("a round");
        queue.push(due(200_000, "quick:it", 2, Wanted::First));
        let before = ids(&mut queue).take_while(|id| *id != 200_000).count();
        assert!(before <= TURN_MAX, "{before} before it");
    }
}

#[test]
fn who_joins_a_query_that_waits_in_a_long_lane_brings_it_forward() {
    let mut queue = queue();
    for id in 0..1_000 {
        queue.push(due(id, "quick:it", 1, Wanted::First));
    }
    queue.begin();
    queue.join(999, Reader::Watcher(2));
    let order: Vec<_> = ids(&mut queue).collect();
    assert!(order.iter().position(|id| *id == 999).is_some_and(|at| at <= TURN_MAX));
    assert_eq!(order.len(), 1_000, "and runs once");
}

#[test]
fn who_asks_over_and_over_adds_nothing() {
    let mut queue = queue_of(&["quick:it"; 10]);
    for _ in 0..10_000 {
        queue.join(5, Reader::Watcher(1));
    }
    assert!(queue.quick.len() < 200, "{}", queue.quick.len());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Push {
        path: u8,
        watcher: u64,
        wanted: bool,
    },
    Next,
    /// The oldest round that runs ends, or gives some of its queries back first.
    End {
        back: usize,
    },
    Took {
        path: u8,
        slow: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..3, 0_u64..4, any::<bool>()).prop_map(|(path, watcher, wanted)| Step::Push { path, watcher, wanted }),
        3 => Just(Step::Next),
        2 => (0_usize..3).prop_map(|back| Step::End { back }),
        1 => (0_u8..3, any::<bool>()).prop_map(|(path, slow)| Step::Took { path, slow }),
    ]
}

proptest! {
    /// Whatever happens: nothing is lost and nothing runs twice at a time, slow queries run alone and in half of the
    /// rounds, and nobody is passed over for longer than a turn of each of the others.
    #[test]
    fn everything_has_its_turn(steps in proptest::collection::vec(step(), 1..400)) {
        let path = |path: u8| format!("m:{path}");
        let mut queue = Queue::new(4);
        let mut workers = 0;
        let mut next_id = 0;
        let mut waiting: BTreeMap<EntryId, u64> = BTreeMap::new();
        let mut running: Vec<(Pace, Vec<Due>)> = Vec::new();
        let drain = [Step::Next, Step::End { back: 0 }].repeat(2 * steps.len());
        for step in steps.into_iter().chain(drain) {
            match step {
                Step::Push { path: number, watcher, wanted } => {
                    let wanted = if wanted { Wanted::First } else { Wanted::Again };
                    queue.push(due(next_id, &path(number), watcher, wanted));
                    waiting.insert(next_id, watcher);
                    next_id += 1;
                }
                Step::Next => {
                    workers += queue.begin();
                    if workers == running.len() {
                        continue;
                    }
                    match queue.next_round() {
                        None => workers -= 1,
                        Some((pace, round)) => {
                            prop_assert!(!round.is_empty() && round.len() <= ROUND_MAX);
                            prop_assert!(pace == Pace::Quick || round.len() == 1);
                            for due in &round {
                                prop_assert!(waiting.remove(&due.id).is_some(), "what was not due");
                            }
                            running.push((pace, round));
                        }
                    }
                }
                Step::End { back } => {
                    if running.is_empty() {
                        continue;
                    }
                    let (pace, mut round) = running.remove(0);
                    let back = round.split_off(round.len() - back.min(round.len()));
                    waiting.extend(back.iter().map(|due| (due.id, 0)));
                    queue.put_back(back.into_iter());
                    queue.end(pace);
                }
                Step::Took { path: number, slow } => {
                    queue.took(&Arc::from(path(number)), if slow { 2 * SLOW } else { SLOW });
                }
            }
            prop_assert!(running.len() <= 4);
            prop_assert!(running.iter().filter(|(pace, _)| *pace == Pace::Slow).count() <= 2);
        }
        prop_assert!(waiting.is_empty(), "left over: {waiting:?}");
    }

    /// Of two readers who always have something due, neither gets more than a turn ahead of the other.
    #[test]
    fn turns_are_even(lengths in proptest::collection::vec(1_usize..200, 2..6)) {
        let mut queue = queue();
        let mut id = 0;
        for (watcher, length) in lengths.iter().enumerate() {
            for _ in 0..*length {
                queue.push(due(id, "quick:it", watcher as u64, Wanted::Again));
                id += 1;
            }
        }
        queue.begin();
        let mut had = vec![0; lengths.len()];
        while let Some((pace, round)) = queue.next_round() {
            queue.end(pace);
            for due in round {
                let Reader::Watcher(watcher) = due.reader else { unreachable!("a watcher's") };
                had[watcher as usize] += 1;
                let unfinished = (0..had.len()).filter(|at| had[*at] < lengths[*at]);
                let least = unfinished.map(|at| had[at]).min().unwrap_or(usize::MAX);
                prop_assert!(had[watcher as usize] <= least.saturating_add(TURN_MAX), "{had:?}");
            }
        }
        prop_assert_eq!(had, lengths);
    }
}

#[test]
fn views_apart_and_rounds_take_turns_for_a_place() {
    let mut queue = Queue::new(1);
    assert!(queue.begin_apart());
    for id in 0..2 {
        assert!(!queue.begin_apart(), "there is one place");
        queue.push(due(id, "a:b", 0, Wanted::Again));
    }
    assert_eq!(queue.begin(), 0);
    for _ in 0..2 {
        assert!(matches!(queue.next(), Next::Apart));
        assert!(matches!(queue.next(), Next::Round(Pace::Slow, _)));
        queue.end(Pace::Slow);
    }
    assert!(!queue.begin_apart());
    assert!(matches!(queue.next(), Next::Apart), "nothing else is due");
    assert!(matches!(queue.next(), Next::Nothing));
    assert!(queue.begin_apart(), "the place is free");
}
