//! Time and randomness: fixed within a call, different between calls, never baked into the image.

use serde_json::json;

use crate::harness::{TestHost, run};

#[test]
fn time_stands_still_and_randomness_is_the_calls_own() {
    run(async {
        let host = TestHost::start(&["clock=clock-and-random"]).await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let answer = host.query("clock:from_host", json!({})).await;
            let data = answer.data();
            assert_eq!(data["now_first"], data["now_second"]);
            assert!(data["now_first"].as_f64().expect("a time") > 1.7e12);
            seen.push((data["bytes"].clone(), data["request_id"].clone()));

            let answer = host.query("clock:from_standard_library", json!({})).await;
            assert_eq!(answer.data()["elapsed_ns"], 0);
            seen.push((answer.data()["hash_seed"].clone(), json!(null)));
        }
        for (position, one) in seen.iter().enumerate() {
            assert!(!seen[position + 1..].contains(one), "{one:?} came twice");
        }
    });
}

#[test]
fn an_actions_clock_runs() {
    run(async {
        let host = TestHost::start(&["clock=clock-and-random"]).await;
        host.action("clock:now_in_action", json!({})).await.data();
    });
}
