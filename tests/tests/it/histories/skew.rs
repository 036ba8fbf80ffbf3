//! Somebody has to stay: two doctors who leave at once have each seen the other.

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::time::Instant;

use super::{Door, ask, make, settings, start};
use crate::harness::run;

#[test]
fn somebody_stays_on_call() {
    run(async {
        let (time, seed) = settings();
        let host = start().await;
        let until = Instant::now() + time / 2;
        let mut random = StdRng::seed_from_u64(seed);
        let mut shifts = 0;
        while Instant::now() < until {
            shifts += 1;
            let doctors = random.random_range(2..=6);
            let shift = format!("shift {shifts}");
            let ids = make(&host, "make_shift", json!({ "shift": shift, "doctors": doctors })).await;
            let leave = ids.as_array().expect("ids").iter().enumerate().map(|(client, doctor)| {
                let args = json!({ "shift": shift, "doctor": doctor });
                let mut door = Door::of(&host, client);
                async move { door.mutate("leave", args).await }
            });
            let left = join_all(leave).await;
            let on_call = ask(&host, "on_call", &json!({ "shift": shift })).await;
            assert_eq!(on_call, 1, "seed {seed}: {left:?}");
            let left = left.iter().filter(|left| **left == Ok(json!(true))).count();
            assert_eq!(left, doctors - 1, "seed {seed}");
        }
        assert!(shifts >= 5, "seed {seed}: only {shifts} shifts");
    });
}
