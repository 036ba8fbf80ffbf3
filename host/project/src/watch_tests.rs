use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{Profile, Project};

/// Far above what a save takes, so that a loaded machine does not fail a test.
const SOON: Duration = Duration::from_secs(10);

/// How long nothing has to come for "nothing came".
const A_WHILE: Duration = Duration::from_millis(300);

fn project_in(dir: &Path) -> Project {
    for module in ["a", "b"] {
        write(&dir.join(format!("components/{module}/Cargo.toml")), "[package]\n");
        write(&dir.join(format!("components/{module}/src/lib.rs")), "// before\n");
    }
    write(
        &dir.join("convoke.toml"),
        "[project]\nname = \"a\"\n[components]\na = \"components/a\"\nb = \"components/b\"\nc = \"prebuilt/c.wasm\"\n",
    );
    write(&dir.join("prebuilt/c.wasm"), "before");
    Project::find(dir).expect("a project")
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(path, text).expect("written");
}

/// As most editors save: the whole new text beside the old one, then in its place.
fn save(path: &Path, text: &str) {
    let fresh = path.with_file_name(".lib.rs.tmp");
    write(&fresh, text);
    std::fs::rename(fresh, path).expect("renamed");
}

fn watch(project: &Project) -> Watcher {
    Watcher::new(&Builder::new(project.clone(), Profile::Quick)).expect("watches")
}

async fn change(watcher: &mut Watcher) -> Change {
    timeout(SOON, watcher.next()).await.expect("a change comes").expect("the watch goes on")
}

async fn nothing(watcher: &mut Watcher) {
    if let Ok(change) = timeout(A_WHILE, watcher.next()).await {
        panic!("a change that is none: {change:?}");
    }
}

fn modules(change: &Change) -> Vec<&str> {
    change.modules.iter().map(ModuleName::as_str).collect()
}

#[tokio::test]
async fn a_save_names_its_module_and_comes_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let mut watcher = watch(&project);

    save(&project.root().join("components/a/src/lib.rs"), "// after\n");
    let from = Instant::now();
    let seen = change(&mut watcher).await;
    assert_eq!(modules(&seen), ["a"]);
    assert!(!seen.project_file && !seen.cargo_manifests);
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());

    write(&project.root().join("components/b/src/lib.rs"), "// in place\n");
    assert_eq!(modules(&change(&mut watcher).await), ["b"]);
    nothing(&mut watcher).await;
}

#[tokio::test]
async fn saves_that_follow_each_other_are_one_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let mut watcher = watch(&project);
    save(&project.root().join("components/a/src/lib.rs"), "// after\n");
    save(&project.root().join("components/b/src/lib.rs"), "// after\n");
    assert_eq!(modules(&change(&mut watcher).await), ["a", "b"]);
}

#[tokio::test]
async fn what_a_dropped_call_has_seen_is_not_lost() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let mut watcher = watch(&project);
    save(&project.root().join("components/a/src/lib.rs"), "// after\n");
    for _ in 0..20 {
        let _ = timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        if let Ok(seen) = timeout(Duration::from_micros(1), watcher.next()).await {
            assert_eq!(modules(&seen.expect("goes on")), ["a"]);
            return;
        }
    }
    assert_eq!(modules(&change(&mut watcher).await), ["a"]);
}

#[tokio::test]
async fn manifests_are_told_apart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let mut watcher = watch(&project);

    save(&project.file(), "[project]\nname = \"b\"\n");
    let seen = change(&mut watcher).await;
    assert!(seen.project_file && seen.modules.is_empty(), "{seen:?}");

    save(&project.root().join("components/a/Cargo.toml"), "[package]\nname = \"a\"\n");
    let seen = change(&mut watcher).await;
    assert!(seen.cargo_manifests);
    assert_eq!(modules(&seen), ["a"]);

    write(&project.root().join("prebuilt/c.wasm"), "after");
    assert_eq!(modules(&change(&mut watcher).await), ["c"]);
}

#[tokio::test]
async fn what_is_no_source_is_no_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let a = project.root().join("components/a");
    let mut watcher = watch(&project);
    for path in
        ["target/release/a.d", ".git/index", "src/.lib.rs.swp", "src/lib.rs~", "src/4913", "node_modules/x/y.js"]
    {
        write(&a.join(path), "x");
    }
    write(&project.root().join("README.md"), "x");
    write(&project.root().join(".convoke/build/a.wasm"), "x");
    write(&project.root().join("prebuilt/other.wasm"), "x");
    nothing(&mut watcher).await;
}

#[tokio::test]
async fn the_same_content_again_is_no_change() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let file = project.root().join("components/a/src/lib.rs");
    let mut watcher = watch(&project);
    save(&file, "// after\n");
    change(&mut watcher).await;
    save(&file, "// after\n");
    nothing(&mut watcher).await;
    save(&file, "// later\n");
    change(&mut watcher).await;
}

#[tokio::test]
async fn directories_come_and_go() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let project = project_in(dir.path());
    let a = project.root().join("components/a");
    let mut watcher = watch(&project);

    write(&a.join("src/deep/target/mod.rs"), "// a module called target\n");
    assert_eq!(modules(&change(&mut watcher).await), ["a"]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    while timeout(Duration::from_millis(100), watcher.next()).await.is_ok() {}
    write(&a.join("src/deep/target/mod.rs"), "// changed\n");
    assert_eq!(modules(&change(&mut watcher).await), ["a"]);

    // As a checkout of another branch and back.
    std::fs::rename(&a, project.root().join("elsewhere")).expect("renamed");
    assert_eq!(modules(&change(&mut watcher).await), ["a"]);
    write(&a.join("src/lib.rs"), "// back\n");
    assert_eq!(modules(&change(&mut watcher).await), ["a"]);
    while timeout(Duration::from_millis(100), watcher.next()).await.is_ok() {}
    write(&a.join("src/lib.rs"), "// and changed\n");
    assert_eq!(modules(&change(&mut watcher).await), ["a"]);
}
