use std::process::Command;
use std::sync::Barrier;

use super::*;

/// The folder that a child process of the test shares.
const SHARED_FOLDER: &str = "CONVOKE_TEST_CACHE";
const HOSTS: usize = 8;

/// A component of its own for each number.
fn wasm(number: u32) -> Vec<u8> {
    let text = format!("(component (core module (func (export \"n\") (result i32) i32.const {number})))");
    wat::parse_str(text).expect("a component")
}

fn private(directory: &Path) -> CacheDirs {
    CacheDirs::private(directory.to_owned())
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn compiled(directory: &Path) -> Vec<String> {
    files(directory).into_iter().filter(|name| name.contains(".cwasm")).collect()
}

/// As if it had been used this long ago.
fn age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).expect("a file");
    file.set_modified(SystemTime::now().checked_sub(age).expect("a time")).expect("a time that can be set");
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = wasmtime::Engine::default();
    let path = |number| folder.path().join(file_name(&engine, &wasm(number)));
    let cache = Cache::open(private(folder.path())).expect("a cache");
    for number in [1, 2, 3] {
        cache.component(&engine, &wasm(number)).expect("a component");
    }
    let bytes = fs::metadata(path(1)).expect("a file").len();
    age(&path(1), Duration::from_secs(30));
    age(&path(2), Duration::from_secs(20));
    age(&path(3), Duration::from_secs(10));
    // The use of the oldest makes it the newest.
    cache.component(&engine, &wasm(1)).expect("a component");

    let cache = Cache::with_bound(private(folder.path()), 2 * bytes + bytes / 2).expect("a cache");
    cache.component(&engine, &wasm(4)).expect("a component");
    assert!(path(1).exists() && path(4).exists());
    assert!(!path(2).exists() && !path(3).exists());
}

#[test]
fn what_a_crash_leaves_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = wasmtime::Engine::default();
    // The key half written, a component half written under its name and under a temporary one, old and new.
    fs::write(folder.path().join(KEY_FILE), [7; 5]).expect("a file");
    let component = folder.path().join(file_name(&engine, &wasm(1)));
    fs::write(&component, [0; 40]).expect("a file");
    let (old, new) = (folder.path().join("tmp-old"), folder.path().join("tmp-new"));
    fs::write(&old, [0; 100]).expect("a file");
    age(&old, TEMPORARY_AGE_MAX + Duration::from_secs(1));
    fs::write(&new, [0; 100]).expect("a file");

    let cache = Cache::open(private(folder.path())).expect("a cache");
    cache.component(&engine, &wasm(1)).expect("a component");
    assert!(cache.load(&engine, &component).is_some());
    assert!(!old.exists() && new.exists());
    // The next host reads the key that this one made.
    assert_eq!(Cache::open(private(folder.path())).expect("a cache").key, cache.key);
}

#[test]
fn a_component_of_another_key_is_compiled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = wasmtime::Engine::default();
    let path = folder.path().join(file_name(&engine, &wasm(1)));
    let cache = Cache::open(private(folder.path())).expect("a cache");
    cache.component(&engine, &wasm(1)).expect("a component");
    fs::remove_file(folder.path().join(KEY_FILE)).expect("a key");
    let other = Cache::open(private(folder.path())).expect("a cache");
    assert!(other.load(&engine, &path).is_none());
    other.component(&engine, &wasm(1)).expect("a component");
    assert!(other.load(&engine, &path).is_some());
}

#[test]
fn what_came_with_its_own_key_is_compiled_again() {
    let (theirs, ours) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let engine = wasmtime::Engine::default();
    let path = theirs.path().join(file_name(&engine, &wasm(1)));
    // Whoever packed it had a key of his own, beside the code.
    let cache = Cache::open(private(theirs.path())).expect("a cache");
    cache.component(&engine, &wasm(1)).expect("a component");
    let dirs = || CacheDirs { compiled: theirs.path().to_owned(), key: Some(ours.path().to_owned()) };
    let cache = Cache::open(dirs()).expect("a cache");
    assert!(cache.load(&engine, &path).is_none());
    cache.component(&engine, &wasm(1)).expect("a component");
    assert!(Cache::open(dirs()).expect("a cache").load(&engine, &path).is_some());
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_made_anew() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let engine = wasmtime::Engine::default();
    let path = folder.path().join(file_name(&engine, &wasm(1)));
    let cache = Cache::open(private(folder.path())).expect("a cache");
    cache.component(&engine, &wasm(1)).expect("a component");
    let key = folder.path().join(KEY_FILE);
    for mode in [0o640, 0o604, 0o622] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("a mode");
        let other = Cache::open(private(folder.path())).expect("a cache");
        assert!(other.load(&engine, &path).is_none(), "{mode:o}");
        other.component(&engine, &wasm(1)).expect("a component");
        assert_eq!(fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
        assert!(Cache::open(private(folder.path())).expect("a cache").load(&engine, &path).is_some());
    }
}

#[test]
fn hosts_that_start_at_once_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("cache");
    let barrier = Barrier::new(HOSTS);
    let keys: Vec<_> = std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..HOSTS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    start(&directory)
                })
            })
            .collect();
        hosts.into_iter().map(|host| host.join().expect("a key")).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(compiled(&directory).len(), 3);
    assert!(!files(&directory).iter().any(|name| name.starts_with(TEMPORARY_PREFIX)));
}

#[test]
fn processes_that_start_at_once_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("cache");
    let program = std::env::current_exe().expect("this program");
    let processes: Vec<_> = (0..HOSTS)
        .map(|_| {
            let mut command = Command::new(&program);
            command.args(["--exact", "--ignored", "cache::tests::a_host_in_a_process_of_its_own"]);
            command.env(SHARED_FOLDER, &directory).stdout(std::process::Stdio::null()).spawn().expect("a process")
        })
        .collect();
    for mut process in processes {
        assert!(process.wait().expect("an end").success());
    }
    assert_eq!(compiled(&directory).len(), 3);
    // All of them signed with one key.
    let engine = wasmtime::Engine::default();
    let cache = Cache::open(private(&directory)).expect("a cache");
    for number in 0..3 {
        assert!(cache.load(&engine, &directory.join(file_name(&engine, &wasm(number)))).is_some());
    }
}

#[test]
#[ignore = "`processes_that_start_at_once_agree` runs it, in processes of its own"]
fn a_host_in_a_process_of_its_own() {
    if let Some(directory) = std::env::var_os(SHARED_FOLDER) {
        start(Path::new(&directory));
    }
}

/// What a host does with its cache: the same components as all others, and all at a time.
fn start(directory: &Path) -> [u8; KEY_BYTES] {
    let engine = wasmtime::Engine::default();
    let cache = Cache::open(private(directory)).expect("a cache");
    for number in 0..3 {
        cache.component(&engine, &wasm(number)).expect("a component");
    }
    cache.key
}
