//! Components that are refused before anything can call them, and the cache of compiled ones.

use std::error::Error;

use convoke_engine::{CacheDirs, Engine};
use convoke_model::Limits;

use crate::harness::{TestHost, component_bytes, run, wat_bytes, wat_text};

async fn refusal(host: &TestHost, wasm: Vec<u8>) -> String {
    let error = host.deploy_bytes("guest", wasm).await.expect_err("a refusal");
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// More memories than an instance may have.
fn three_memories() -> Vec<u8> {
    let another = "(core module $another (memory 1)) (core instance (instantiate $another)) ";
    let text = wat_text("two_modules.wat").replacen("(core module $other", &format!("{another}(core module $other"), 1);
    wat::parse_str(text).expect("valid text")
}

#[test]
fn a_wrong_component_is_refused_by_name() {
    run(async {
        let host = TestHost::start(&["messages"]).await;
        for (wasm, words) in [
            (component_bytes("opens-file"), "imports `wasi:filesystem/"),
            (component_bytes("unknown-import"), "imports `evil:host/door`"),
            (
                component_bytes("query-that-writes"),
                "imports `convoke:runtime/database-write@0.1.0`, which the world of its kinds (query) does not have",
            ),
            (wat_bytes("missing_export.wat"), "does not export `convoke:runtime/functions@0.1.x`"),
            (wat_bytes("wrong_version.wat"), "does not export `convoke:runtime/functions@0.1.x`"),
            (wat_bytes("core_module.wat"), "not a WebAssembly component"),
            (three_memories(), "3 Wasm linear memories"),
            (b"nothing of the kind".to_vec(), "not a WebAssembly component"),
        ] {
            let said = refusal(&host, wasm).await;
            assert!(said.contains(words), "{words}: {said}");
        }
        // What was served before is served still.
        assert_eq!(
            host.query("messages:list", serde_json::json!({ "channel": "a" })).await.data(),
            &serde_json::json!([])
        );
    });
}

#[test]
fn a_component_that_only_reads_imports_nothing_that_writes() {
    run(async {
        TestHost::start(&["query=query-only"]).await;
    });
}

/// A file in the cache counts only if this host wrote it, under this name.
#[test]
fn a_forged_cache_entry_is_not_loaded() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let engine =
            || Engine::new(Limits::default(), CacheDirs::private(directory.path().to_path_buf())).expect("an engine");
        let wasm = component_bytes("friendly");
        engine().load(wasm.clone()).await.expect("a version");
        let entries: Vec<_> = std::fs::read_dir(directory.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
            .collect();
        assert!(!entries.is_empty());
        let genuine: Vec<Vec<u8>> = entries.iter().map(|path| std::fs::read(path).expect("a file")).collect();

        for (path, bytes) in entries.iter().zip(&genuine) {
            let mut forged = bytes.clone();
            let last = forged.len() - 1;
            forged[last] ^= 1;
            std::fs::write(path, forged).expect("written");
        }
        engine().load(wasm.clone()).await.expect("a version");
        for (path, bytes) in entries.iter().zip(&genuine) {
            assert_eq!(&std::fs::read(path).expect("a file"), bytes, "compiled again and written anew");
        }
    });
}
