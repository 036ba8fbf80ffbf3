//! The ranges that are read of one index, and which of them lie around a position.
//!
//! An interval tree: a binary tree in the order of the ranges, where each node knows the furthest end below it, so that
//! a search passes over what ends before the position. It is balanced by chance (a treap): as no caller can foresee a
//! node's priority, no order of insertion makes it deep.
//!
//! Ours because no crate at hand fits: those that are looked after want keys that are `Copy`, or read everything that
//! begins before the position.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use convoke_model::{Position, Range};

use super::Slot;

/// Readers by range; a range that many read is there once.
#[derive(Debug, Default)]
pub(super) struct RangeTree {
    root: Tree,
    /// Where priorities come from: the hash of a running number.
    random: RandomState,
    inserted: u64,
}

type Tree = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    lower: Box<[u8]>,
    upper: End<Arc<[u8]>>,
    /// The furthest end in this subtree, shared with the node that has it.
    furthest: End<Arc<[u8]>>,
    /// Not below that of any node under this one.
    priority: u64,
    readers: BTreeSet<Slot>,
    left: Tree,
    right: Tree,
}

/// Where a range ends; in the order of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End<Bytes> {
    Before(Bytes),
    Never,
}

/// A range, in the order of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    lower: &'a [u8],
    upper: End<&'a [u8]>,
}

/// Whether no position lies in the range.
pub(super) fn is_empty(range: &Range) -> bool {
    range.upper.as_ref().is_some_and(|upper| *upper <= range.lower)
}

impl RangeTree {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    pub(super) fn insert(&mut self, range: &Range, slot: Slot) {
        self.inserted = self.inserted.wrapping_add(1);
        insert(&mut self.root, Key::of(range), slot, self.random.hash_one(self.inserted));
    }

    pub(super) fn remove(&mut self, range: &Range, slot: Slot) {
        remove(&mut self.root, Key::of(range), slot);
    }

    /// Calls `reader` with each reader of a range that the position lies in; more than once if there are several.
    pub(super) fn around(&self, position: &Position, mut reader: impl FnMut(Slot)) {
        around(self.root.as_deref(), &position.0, &mut reader);
    }

    /// Calls `reader` with each reader of any range; more than once if there are several.
    pub(super) fn all(&self, mut reader: impl FnMut(Slot)) {
        all(self.root.as_deref(), &mut reader);
    }
}

impl<'a> Key<'a> {
    fn of(range: &'a Range) -> Self {
        let upper = range.upper.as_ref().map_or(End::Never, |upper| End::Before(upper.0.as_slice()));
        Self { lower: &range.lower.0, upper }
    }
}

impl End<Arc<[u8]>> {
    fn borrowed(&self) -> End<&[u8]> {
        match self {
            Self::Before(bytes) => End::Before(bytes),
            Self::Never => End::Never,
        }
    }

    fn is_behind(&self, position: &[u8]) -> bool {
        self.borrowed() > End::Before(position)
    }
}

impl Node {
    fn new(key: Key<'_>, slot: Slot, priority: u64) -> Self {
        let upper = match key.upper {
            End::Before(bytes) => End::Before(Arc::from(bytes)),
            End::Never => End::Never,
        };
        Self {
            lower: Box::from(key.lower),
            furthest: upper.clone(),
            upper,
            priority,
            readers: BTreeSet::from([slot]),
            left: None,
            right: None,
        }
    }

    fn key(&self) -> Key<'_> {
        Key { lower: &self.lower, upper: self.upper.borrowed() }
    }

    /// To be called whenever the children are others, or their furthest end is.
    fn update(&mut self) {
        let below = [&self.left, &self.right].into_iter().flatten().map(|child| &child.furthest);
        self.furthest = below.fold(&self.upper, |furthest, end| furthest.max(end)).clone();
    }
}

fn insert(tree: &mut Tree, key: Key<'_>, slot: Slot, priority: u64) {
    let Some(node) = tree else {
        *tree = Some(Box::new(Node::new(key, slot, priority)));
        return;
    };
    match key.cmp(&node.key()) {
        Ordering::Equal => {
            node.readers.insert(slot);
        }
        Ordering::Less => {
            insert(&mut node.left, key, slot, priority);
            lift_left(node);
        }
        Ordering::Greater => {
            insert(&mut node.right, key, slot, priority);
            lift_right(node);
        }
    }
}

/// Sets things right above a left child that has changed: it goes up if its priority is the higher one.
fn lift_left(node: &mut Box<Node>) {
    if let Some(mut child) = node.left.take_if(|child| child.priority > node.priority) {
        node.left = child.right.take();
        node.update();
        std::mem::swap(node, &mut child);
        node.right = Some(child);
    }
    node.update();
}

fn lift_right(node: &mut Box<Node>) {
    if let Some(mut child) = node.right.take_if(|child| child.priority > node.priority) {
        node.right = child.left.take();
        node.update();
        std::mem::swap(node, &mut child);
        node.left = Some(child);
    }
    node.update();
}

fn remove(tree: &mut Tree, key: Key<'_>, slot: Slot) {
    let Some(node) = tree else { return };
    match key.cmp(&node.key()) {
        Ordering::Less => remove(&mut node.left, key, slot),
        Ordering::Greater => remove(&mut node.right, key, slot),
        Ordering::Equal => {
            node.readers.remove(&slot);
            if node.readers.is_empty() {
                *tree = joined(node.left.take(), node.right.take());
            }
            return;
        }
    }
    node.update();
}

/// One tree of two, of which all of the left one comes before all of the right one.
fn joined(left: Tree, right: Tree) -> Tree {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(mut left), Some(right)) if left.priority > right.priority => {
            left.right = joined(left.right.take(), Some(right));
            left.update();
            Some(left)
        }
        (left, Some(mut right)) => {
            right.left = joined(left, right.left.take());
            right.update();
            Some(right)
        }
    }
}

fn around(node: Option<&Node>, position: &[u8], reader: &mut impl FnMut(Slot)) {
    let Some(node) = node.filter(|node| node.furthest.is_behind(position)) else { return };
    around(node.left.as_deref(), position, reader);
    if *node.lower <= *position {
        if node.upper.is_behind(position) {
            node.readers.iter().for_each(|slot| reader(*slot));
        }
        around(node.right.as_deref(), position, reader);
    }
}

fn all(node: Option<&Node>, reader: &mut impl FnMut(Slot)) {
    let Some(node) = node else { return };
    all(node.left.as_deref(), reader);
    node.readers.iter().for_each(|slot| reader(*slot));
    all(node.right.as_deref(), reader);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(0xFF)], 0..5).prop_map(Position)
    }

    fn range() -> impl Strategy<Value = Range> {
        (position(), proptest::option::weighted(0.8, position())).prop_map(|(a, b)| match b {
            Some(b) if a < b => Range { lower: a, upper: Some(b) },
            Some(b) if a > b => Range { lower: b, upper: Some(a) },
            _ => Range { lower: a, upper: None },
        })
    }

    fn depth(tree: &Tree) -> usize {
        tree.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    /// Holds every node to what the search relies on, and gives the furthest end below.
    fn checked(tree: &Tree) -> Option<End<Arc<[u8]>>> {
        let node = tree.as_ref()?;
        for child in [&node.left, &node.right].into_iter().flatten() {
            assert!(child.priority <= node.priority);
        }
        assert!(node.left.as_ref().is_none_or(|left| left.key() < node.key()));
        assert!(node.right.as_ref().is_none_or(|right| right.key() > node.key()));
        let furthest = checked(&node.left).max(checked(&node.right)).max(Some(node.upper.clone()));
        assert_eq!(furthest.as_ref(), Some(&node.furthest));
        furthest
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_position_is_in_what_holds_it(
            steps in proptest::collection::vec((range(), 0u32..3, any::<bool>()), 0..200),
            positions in proptest::collection::vec(position(), 20),
        ) {
            let mut tree = RangeTree::default();
            let mut expected: Vec<(Range, Slot)> = Vec::new();
            for (range, slot, stays) in &steps {
                expected.retain(|known| *known != (range.clone(), *slot));
                if *stays {
                    tree.insert(range, *slot);
                    expected.push((range.clone(), *slot));
                } else {
                    tree.remove(range, *slot);
                }
            }
            checked(&tree.root);
            for position in positions {
                let mut found = Vec::new();
                tree.around(&position, |slot| found.push(slot));
                found.sort_unstable();
                let inside = expected.iter().filter(|(range, _)| range.contains(&position));
                let mut inside: Vec<Slot> = inside.map(|(_, slot)| *slot).collect();
                inside.sort_unstable();
                prop_assert_eq!(found, inside);
            }
            for (range, slot) in &expected {
                tree.remove(range, *slot);
            }
            prop_assert!(tree.is_empty());
        }
    }

    #[test]
    fn ranges_that_come_in_order_make_no_list() {
        let mut tree = RangeTree::default();
        let range = |at: u32| Range {
            lower: Position(at.to_be_bytes().to_vec()),
            upper: Some(Position((at + 1).to_be_bytes().to_vec())),
        };
        for at in 0..20_000 {
            tree.insert(&range(at), at);
        }
        // About 35 in practice; beyond 100 once in more runs than there will ever be.
        assert!(depth(&tree.root) < 100, "{}", depth(&tree.root));
        let mut found = Vec::new();
        tree.around(&Position(vec![0, 0, 1, 1, 7]), |slot| found.push(slot));
        assert_eq!(found, [257]);
    }
}
