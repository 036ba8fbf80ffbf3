//! Which crate may depend on which. Arrows point downwards only.

use super::tree::Tree;

/// The crates of the host, from the bottom. A crate may depend on those of lower layers, never on one of its own.
const LAYERS: [&[&str]; 9] = [
    &["convoke-model", "convoke-postgres"],
    &["convoke-sql"],
    &["convoke-documents"],
    &["convoke-engine"],
    &["convoke-store", "convoke-sync", "convoke-feed", "convoke-deploy", "convoke-convex"],
    &["convoke-invoke"],
    &["convoke-live", "convoke-jobs"],
    &["convoke-server", "convoke-project", "convoke-local-postgres"],
    &["convoke-cli"],
];

/// Nobody depends on these; they depend on whatever they test or measure.
const ABOVE_ALL: [&str; 2] = ["convoke-tests", "convoke-bench"];

/// What an author of functions depends on. The host and the SDK meet in the WIT, not in Rust.
const SDK: [&str; 2] = ["convoke-macros", "convoke"];

/// Development dependencies are free: a test of a low crate may use a high one.
const SECTIONS: [&str; 2] = ["dependencies", "build-dependencies"];

pub(super) fn problems(tree: &Tree) -> Vec<String> {
    let members = tree.texts().filter(|file| file.path.ends_with("/Cargo.toml"));
    let members = members.filter(|file| file.is_in(&["host/", "sdk/", "tests/Cargo.toml", "bench/Cargo.toml"]));
    let mut problems = Vec::new();
    for file in members {
        match file.text.parse::<toml::Table>() {
            Ok(manifest) => problems.extend(violations(&manifest).map(|what| format!("{}: {what}", file.path))),
            Err(error) => problems.push(format!("{}: {error}", file.path)),
        }
    }
    problems
}

fn violations(manifest: &toml::Table) -> impl Iterator<Item = String> {
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let name = name.unwrap_or_default().to_owned();
    let of_targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    let tables = of_targets.filter_map(toml::Value::as_table).chain([manifest]);
    let dependencies: Vec<String> = tables
        .flat_map(|table| SECTIONS.iter().filter_map(|section| table.get(*section)?.as_table()))
        .flat_map(toml::Table::keys)
        .filter(|key| is_ours(key))
        .cloned()
        .collect();
    let unknown = (!is_known(&name)).then(|| format!("`{name}` has no place in `LAYERS`"));
    let upward = dependencies.into_iter().filter_map(move |to| violation(&name, &to));
    unknown.into_iter().chain(upward)
}

fn is_ours(name: &str) -> bool {
    name == "convoke" || name.starts_with("convoke-")
}

fn is_known(name: &str) -> bool {
    layer_of(name).is_some() || ABOVE_ALL.contains(&name) || SDK.contains(&name)
}

fn layer_of(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn violation(from: &str, to: &str) -> Option<String> {
    let allowed = match (layer_of(from), layer_of(to)) {
        (Some(from), Some(to)) => from > to,
        _ if ABOVE_ALL.contains(&from) => !ABOVE_ALL.contains(&to),
        _ => from == "convoke" && to == "convoke-macros",
    };
    (!allowed).then(|| format!("`{from}` must not depend on `{to}`"))
}

#[test]
fn an_arrow_upwards_is_found() {
    let manifest = "[package]\nname = 'convoke-sql'\n[dependencies]\nconvoke-model.workspace = true\n\
                    [target.'cfg(unix)'.dependencies]\nconvoke-store.workspace = true\n\
                    [dev-dependencies]\nconvoke-cli.workspace = true\n";
    let manifest = manifest.parse().expect("the manifest is TOML");
    assert_eq!(violations(&manifest).collect::<Vec<_>>(), ["`convoke-sql` must not depend on `convoke-store`"]);
}
