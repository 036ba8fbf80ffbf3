//! Several hosts of one project on one database.

use serde_json::json;

use crate::harness::{TestHost, run};
use crate::live::{Subscriber, bodies, send};

#[test]
fn each_host_serves_its_own_deployment() {
    run(async {
        let first = TestHost::start(&["messages"]).await;
        let second = TestHost::beside(&first, &["messages", "accounts"]).await;
        let seed = json!({ "accounts": 2, "balance": 10 });
        assert_eq!(first.mutation("accounts:seed", seed.clone()).await.code(), "NOT_FOUND");
        second.mutation("accounts:seed", seed).await.data();
        assert_eq!(*second.query("accounts:balance", json!({ "account": 0 })).await.data(), 10);

        // What one writes the other shows, to those who call and to those who subscribe.
        let list = json!({ "channel": "c" });
        let mut subscriber = Subscriber::open(&first, "messages:list", &list, None).await;
        assert!(bodies(&subscriber.next().await.data).is_empty());
        send(&second, "c", "hello").await;
        assert_eq!(bodies(&subscriber.next().await.data), ["hello"]);

        // A deployment is of its host alone, and drops nobody's tables.
        drop(subscriber);
        first.deploy(&["accounts"]).await.expect("a deployment");
        assert_eq!(first.query("messages:list", list.clone()).await.code(), "NOT_FOUND");
        assert_eq!(*first.query("accounts:balance", json!({ "account": 0 })).await.data(), 10);
        send(&second, "c", "again").await;
        assert_eq!(second.query("messages:list", list.clone()).await.data().as_array().map(Vec::len), Some(2));

        // Versions of one function differ by the host as well.
        let mut versions = Vec::new();
        for (host, digit) in [(&first, 3), (&second, 4)] {
            host.deploy_bytes("versioned", crate::swaps::version(digit)).await.expect("a deployment");
        }
        for _ in 0..3 {
            for host in [&first, &second] {
                versions.push(host.query("versioned:which", json!({})).await.data().clone());
            }
        }
        assert_eq!(versions, [3, 4, 3, 4, 3, 4]);
    });
}
