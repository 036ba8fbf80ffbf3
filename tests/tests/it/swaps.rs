//! Switching versions under load.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::{TestHost, run, wat_text};

/// What goes wrong between a swap and the calls around it has shown within ten.
const SWAPS: u32 = 200;
const CALLS_AT_ONCE: u32 = 8;

/// The component whose query `which` answers with this digit.
pub(crate) fn version(digit: u32) -> Vec<u8> {
    assert!(digit < 10);
    let text = wat_text("versioned.wat").replace("VERSION", &digit.to_string());
    wat::parse_str(text).expect("valid text")
}

/// The function that is called is the one that is swapped. A call answers as the version before or after, never fails, and
/// after a deployment it is the new one, whatever was kept of the old one.
#[test]
fn swaps_fail_no_request() {
    run(async {
        let host = TestHost::start(&[]).await;
        let versions = [version(0), version(1)];
        host.deploy_bytes("swapped", versions[1].clone()).await.expect("a deployment");
        let done = AtomicBool::new(false);
        let load = async {
            let mut answered = [0u32; 2];
            while !done.load(Ordering::Relaxed) {
                let calls = (0..CALLS_AT_ONCE).map(|_| host.query("swapped:which", json!({})));
                for answer in futures_util::future::join_all(calls).await {
                    let digit = answer.data().as_u64().expect("a digit");
                    answered[usize::try_from(digit).expect("a digit")] += 1;
                }
            }
            answered
        };
        let swaps = async {
            for swap in 0..SWAPS {
                let digit = swap % 2;
                host.deploy_bytes("swapped", versions[digit as usize].clone()).await.expect("a deployment");
                let answer = host.query("swapped:which", json!({})).await;
                assert_eq!(*answer.data(), digit, "after swap {swap}");
            }
            done.store(true, Ordering::Relaxed);
        };
        let (answered, ()) = tokio::join!(load, swaps);
        assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    });
}
