//! Switching versions under load.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::{TestHost, run};

#[test]
fn a_thousand_swaps_fail_no_request() {
    run(async {
        let host = TestHost::start(&["friendly", "messages"]).await;
        let done = AtomicBool::new(false);
        let load = async {
            let mut answered = 0u32;
            while !done.load(Ordering::Relaxed) {
                let answers = (0..8).map(|n| host.query("friendly:echo", json!({ "value": n })));
                for answer in futures_util::future::join_all(answers).await {
                    answer.data();
                    answered += 1;
                }
            }
            answered
        };
        let swaps = async {
            for round in 0..1000 {
                // The module `other` comes and goes, so that each deployment is another one.
                let modules: &[&str] = if round % 2 == 0 {
                    &["friendly", "messages", "other=query-only"]
                } else {
                    &["friendly", "messages"]
                };
                host.deploy(modules).await.expect("a deployment");
            }
            done.store(true, Ordering::Relaxed);
        };
        let (answered, ()) = tokio::join!(load, swaps);
        assert!(answered > 0);
    });
}
