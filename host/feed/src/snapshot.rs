//! Which transactions a read has seen.

use std::str::FromStr;

use thiserror::Error;

/// What `pg_current_snapshot()` tells, with 64-bit transaction ids (`xid8`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// Sorted, without repetition, all from `xmin` up to but not including `xmax`.
    xip: Vec<u64>,
}

/// A text that is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a snapshot `xmin:xmax:xip,…`")]
pub struct SnapshotError;

impl Snapshot {
    /// Every transaction below it has ended. Recent transactions of the feed with a lower id are in the snapshot.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// No transaction from here on had ended; also the value that ids of the feed are widened towards.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The transactions from `xmin` to `xmax` that were still running, sorted.
    pub fn xip(&self) -> &[u64] {
        &self.xip
    }

    /// Whether what the transaction wrote was visible, provided that it committed at all. For top-level ids only, which
    /// are all that the feed gives.
    pub fn contains(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    /// [`Snapshot::contains`] for the 32 bits that the feed carries.
    pub fn contains_xid(&self, xid: u32) -> bool {
        self.contains(widen(xid, self.xmax))
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    /// Reads `pg_current_snapshot()::text`.
    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(SnapshotError);
        let (xmin, xmax): (u64, u64) = (number()?, number()?);
        let list = parts.next().ok_or(SnapshotError)?;
        let xip = list.split(',').filter(|_| !list.is_empty()).map(str::parse).collect::<Result<Vec<u64>, _>>();
        let mut xip = xip.map_err(|_| SnapshotError)?;
        xip.sort_unstable();
        xip.dedup();
        if xmin > xmax || xip.iter().any(|xid| !(xmin..xmax).contains(xid)) {
            return Err(SnapshotError);
        }
        Ok(Self { xmin, xmax, xip })
    }
}

/// The 64-bit id (`xid8`) nearest to `near` whose low half is `xid`. Right as long as less than 2³¹ transactions lie
/// between the two, which Postgres itself sees to.
pub fn widen(xid: u32, near: u64) -> u64 {
    let distance = i64::from(xid.wrapping_sub(near as u32).cast_signed());
    // Below zero there is no epoch: only the first one is left.
    near.checked_add_signed(distance).unwrap_or(u64::from(xid))
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    /// Ids and a distance that both ends survive.
    fn near_and_distance() -> impl Strategy<Value = (u64, i64)> {
        let edges = prop_oneof![Just(1_u64 << 32), Just(3), Just(5 << 32), any::<u64>().prop_map(|xid| xid >> 2)];
        let distance = i64::from(i32::MIN)..=i64::from(i32::MAX);
        (edges, -5_i64..5, prop_oneof![distance, -100_i64..100])
            .prop_map(|(edge, step, distance)| (edge.saturating_add_signed(step), distance))
    }

    proptest! {
        #[test]
        fn the_epoch_comes_back((near, distance) in near_and_distance()) {
            let Some(whole) = near.checked_add_signed(distance) else { return Ok(()) };
            prop_assert_eq!(widen(whole as u32, near), whole);
        }

        #[test]
        fn a_snapshot_holds_what_it_says(
            xmin in 0_u64..1 << 40,
            running in btree_set(0_u64..200, 0..20),
            above in 0_u64..5,
            probe in -300_i64..300,
        ) {
            let xip: Vec<u64> = running.iter().map(|offset| xmin + offset).collect();
            let xmax = xip.last().map_or(xmin, |last| last + 1) + above;
            let list: Vec<String> = xip.iter().rev().map(u64::to_string).collect();
            let snapshot: Snapshot = format!("{xmin}:{xmax}:{}", list.join(",")).parse().expect("a snapshot");
            prop_assert_eq!((snapshot.xmin(), snapshot.xmax(), snapshot.xip()), (xmin, xmax, &xip[..]));
            let xid = xmin.saturating_add_signed(probe);
            prop_assert_eq!(snapshot.contains(xid), xid < xmax && !xip.contains(&xid));
            prop_assert_eq!(snapshot.contains_xid(xid as u32), snapshot.contains(xid));
        }

        #[test]
        fn no_text_panics(text in "[0-9:,a ]{0,20}") {
            let _ = text.parse::<Snapshot>();
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "1", "1:2", "2:1:", "1:5:5", "2:5:1", "1:5:,", "1:5:2,", "1:5:2:3", "a:5:", "1:99999999999999999999:"]
        {
            assert_eq!(text.parse::<Snapshot>(), Err(SnapshotError), "{text}");
        }
    }
}
