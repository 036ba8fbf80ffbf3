//! Whether a history of lists that are only appended to can have come about by one transaction after another.
//!
//! What Adya's and Elle's papers do: the lists tell in which order their writers came, hence who wrote before whom (ww), who read
//! whose write (wr), and who read what somebody overwrote (rw). No serial order has a cycle of these.

use std::collections::BTreeMap;

/// What a transaction did with a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Appended a value; each value is appended once in a history.
    Append(usize, i64),
    /// Read the list, and found these.
    Read(usize, Vec<i64>),
}

/// What its client knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed,
    Undone,
    Unknown,
}

/// A transaction: what it did, in order. Reads of one that did not commit are left out.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub(crate) fate: Fate,
    pub(crate) ops: Vec<Op>,
}

/// Why one transaction comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    WriteWrite,
    WriteRead,
    ReadWrite,
}

/// What no serial execution does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// A committed value is not in the list at the end.
    Lost { list: usize, value: i64 },
    /// A value is there that no transaction wrote, or one that was undone.
    Unwritten { list: usize, value: i64 },
    /// Two reads of a list that are not one the beginning of the other.
    Incompatible { list: usize, reader: usize },
    /// A transaction did not see its own write, or saw two states of a list.
    Inconsistent { list: usize, reader: usize },
    /// Each transaction comes before the next, and the last before the first.
    Cycle(Vec<(usize, Why, usize)>),
}

/// What is wrong with a history. `last` holds each list as it was at the end.
pub(crate) fn check(transactions: &[Transaction], last: &BTreeMap<usize, Vec<i64>>) -> Vec<Anomaly> {
    let mut writers = BTreeMap::new();
    for (number, transaction) in transactions.iter().enumerate() {
        for op in &transaction.ops {
            if let Op::Append(list, value) = op {
                writers.insert((*list, *value), number);
            }
        }
    }
    let mut anomalies = Vec::new();
    for (list, values) in last {
        for value in values {
            let written = writers.get(&(*list, *value)).map(|writer| transactions[*writer].fate);
            if !matches!(written, Some(Fate::Committed | Fate::Unknown)) {
                anomalies.push(Anomaly::Unwritten { list: *list, value: *value });
            }
        }
    }
    for ((list, value), writer) in &writers {
        let there = last.get(list).is_some_and(|values| values.contains(value));
        if transactions[*writer].fate == Fate::Committed && !there {
            anomalies.push(Anomaly::Lost { list: *list, value: *value });
        }
    }
    let mut edges = Edges::default();
    for (list, values) in last {
        for pair in values.windows(2) {
            edges.add(writers.get(&(*list, pair[0])), Why::WriteWrite, writers.get(&(*list, pair[1])));
        }
    }
    for (reader, transaction) in transactions.iter().enumerate() {
        reads(reader, transaction, last, &writers, &mut edges, &mut anomalies);
    }
    if anomalies.is_empty() {
        anomalies.extend(cycle(transactions.len(), &edges.of).map(Anomaly::Cycle));
    }
    anomalies
}

/// The edges of one transaction's reads, each of which is held against the list at the end.
fn reads(
    reader: usize,
    transaction: &Transaction,
    last: &BTreeMap<usize, Vec<i64>>,
    writers: &BTreeMap<(usize, i64), usize>,
    edges: &mut Edges,
    anomalies: &mut Vec<Anomaly>,
) {
    let mut own: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    let mut seen: BTreeMap<usize, &[i64]> = BTreeMap::new();
    for op in &transaction.ops {
        let (list, found) = match op {
            Op::Append(list, value) => {
                own.entry(*list).or_default().push(*value);
                continue;
            }
            Op::Read(list, found) => (*list, found.as_slice()),
        };
        let Some(others) = found.strip_suffix(own.entry(list).or_default().as_slice()) else {
            anomalies.push(Anomaly::Inconsistent { list, reader });
            continue;
        };
        if *seen.entry(list).or_insert(others) != others {
            anomalies.push(Anomaly::Inconsistent { list, reader });
        }
        let Some(rest) = last.get(&list).and_then(|values| values.strip_prefix(others)) else {
            anomalies.push(Anomaly::Incompatible { list, reader });
            continue;
        };
        edges.add(others.last().and_then(|value| writers.get(&(list, *value))), Why::WriteRead, Some(&reader));
        edges.add(Some(&reader), Why::ReadWrite, rest.first().and_then(|value| writers.get(&(list, *value))));
    }
}

#[derive(Debug, Default)]
struct Edges {
    of: BTreeMap<usize, BTreeMap<usize, Why>>,
}

impl Edges {
    fn add(&mut self, from: Option<&usize>, why: Why, to: Option<&usize>) {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            self.of.entry(*from).or_default().entry(*to).or_insert(why);
        }
    }
}

/// A cycle, if there is one: what is left when those that nothing comes before are taken away, again and again, holds it.
fn cycle(count: usize, edges: &BTreeMap<usize, BTreeMap<usize, Why>>) -> Option<Vec<(usize, Why, usize)>> {
    let mut incoming = vec![0; count];
    for to in edges.values().flat_map(BTreeMap::keys) {
        incoming[*to] += 1;
    }
    let mut free: Vec<usize> = (0..count).filter(|number| incoming[*number] == 0).collect();
    while let Some(number) = free.pop() {
        for to in edges.get(&number).into_iter().flat_map(BTreeMap::keys) {
            incoming[*to] -= 1;
            if incoming[*to] == 0 {
                free.push(*to);
            }
        }
    }
    // Each that is left has one before it that is left: going back leads into a circle.
    let mut before = BTreeMap::new();
    for (from, targets) in edges.iter().filter(|(from, _)| incoming[**from] > 0) {
        for (to, why) in targets.iter().filter(|(to, _)| incoming[**to] > 0) {
            before.insert(*to, (*from, *why));
        }
    }
    let mut path = vec![*before.keys().next()?];
    let begin = loop {
        let (from, _) = before[path.last()?];
        if let Some(position) = path.iter().position(|number| *number == from) {
            break position;
        }
        path.push(from);
    };
    let mut cycle: Vec<_> = path[begin..].iter().map(|to| (before[to].0, before[to].1, *to)).collect();
    cycle.reverse();
    Some(cycle)
}

fn done(ops: impl Into<Vec<Op>>) -> Transaction {
    Transaction { fate: Fate::Committed, ops: ops.into() }
}

#[test]
fn serial_histories_pass() {
    let history = [
        done([Op::Read(0, vec![]), Op::Append(0, 1), Op::Read(0, vec![1])]),
        done([Op::Append(0, 2), Op::Append(1, 3), Op::Append(1, 4), Op::Read(1, vec![3, 4])]),
        done([Op::Read(0, vec![1, 2]), Op::Read(1, vec![3, 4])]),
        done([Op::Read(0, vec![1]), Op::Read(1, vec![])]),
        Transaction { fate: Fate::Undone, ops: vec![Op::Append(0, 5)] },
        Transaction { fate: Fate::Unknown, ops: vec![Op::Append(0, 6)] },
        Transaction { fate: Fate::Unknown, ops: vec![Op::Append(0, 7)] },
    ];
    let last = BTreeMap::from([(0, vec![1, 2, 7]), (1, vec![3, 4])]);
    assert_eq!(check(&history, &last), []);
}

#[test]
fn planted_cycles_are_found() {
    use Why::{ReadWrite, WriteRead, WriteWrite};
    let last = BTreeMap::from([(0, vec![1, 3]), (1, vec![2, 4])]);
    let cases: [(&str, Vec<Transaction>, Vec<Why>); 4] = [
        (
            "two that overwrote what the other read",
            vec![
                done([Op::Read(1, vec![2]), Op::Append(0, 3)]),
                done([Op::Read(0, vec![1]), Op::Append(1, 4)]),
                done([Op::Append(0, 1), Op::Append(1, 2)]),
            ],
            vec![ReadWrite, ReadWrite],
        ),
        (
            "two orders of writes",
            vec![done([Op::Append(0, 1), Op::Append(1, 4)]), done([Op::Append(1, 2), Op::Append(0, 3)])],
            vec![WriteWrite, WriteWrite],
        ),
        (
            "half of what another wrote",
            vec![
                done([Op::Append(0, 1), Op::Append(1, 2)]),
                done([Op::Append(0, 3), Op::Append(1, 4)]),
                done([Op::Read(0, vec![1, 3]), Op::Read(1, vec![2])]),
            ],
            vec![ReadWrite, WriteRead],
        ),
        (
            "a reader that sees the later of two and not the earlier, as by snapshots alone",
            vec![
                done([Op::Append(0, 1), Op::Append(1, 2)]),
                done([Op::Read(1, vec![2]), Op::Append(0, 3)]),
                done([Op::Append(1, 4)]),
                done([Op::Read(0, vec![1]), Op::Read(1, vec![2, 4])]),
            ],
            vec![ReadWrite, ReadWrite, WriteRead],
        ),
    ];
    for (name, history, mut wanted) in cases {
        let found = check(&history, &last);
        let [Anomaly::Cycle(cycle)] = found.as_slice() else { panic!("{name}: {found:?}") };
        let mut kinds: Vec<Why> = cycle.iter().map(|(_, why, _)| *why).collect();
        kinds.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(kinds, wanted, "{name}: {cycle:?}");
        for (step, (_, _, to)) in cycle.iter().enumerate() {
            assert_eq!(*to, cycle[(step + 1) % cycle.len()].0, "{name}: {cycle:?}");
        }
    }
}

#[test]
fn what_is_wrong_without_a_cycle_is_found() {
    let last = BTreeMap::from([(0, vec![1, 2])]);
    let both = [done([Op::Append(0, 1)]), done([Op::Append(0, 2)])];
    let with = |more: Transaction| check(&[both[0].clone(), both[1].clone(), more], &last);
    assert_eq!(with(done([Op::Append(0, 3)])), [Anomaly::Lost { list: 0, value: 3 }]);
    assert_eq!(with(done([Op::Read(0, vec![2])])), [Anomaly::Incompatible { list: 0, reader: 2 }]);
    let twice = done([Op::Read(0, vec![1]), Op::Read(0, vec![1, 2])]);
    assert_eq!(with(twice), [Anomaly::Inconsistent { list: 0, reader: 2 }]);
    let blind = Transaction { fate: Fate::Committed, ops: vec![Op::Append(1, 9), Op::Read(1, vec![])] };
    assert!(with(blind).contains(&Anomaly::Inconsistent { list: 1, reader: 2 }));
    assert_eq!(check(&both[..1], &last), [Anomaly::Unwritten { list: 0, value: 2 }]);
    let undone = [both[0].clone(), Transaction { fate: Fate::Undone, ops: vec![Op::Append(0, 2)] }];
    assert_eq!(check(&undone, &last), [Anomaly::Unwritten { list: 0, value: 2 }]);
}
