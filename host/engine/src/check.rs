//! What a component may import.

use std::collections::BTreeSet;

use convoke_model::Kind;
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

/// The package of wit/runtime.wit that this host offers.
pub(crate) const PACKAGE: &str = "convoke:runtime";
pub(crate) const VERSION: &str = "0.1";

/// WASI interfaces that every world has, with nothing behind them (see `wasi.rs`).
const WASI: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// The interfaces of [`PACKAGE`] that a kind's world imports.
pub(crate) fn world(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Query => &["types", "context", "database-read", "sql"],
        Kind::Mutation => &["types", "context", "database-read", "database-write", "sql"],
        Kind::Action => &["types", "context", "calls", "outbound-http"],
        Kind::Rule => &["types"],
    }
}

/// Whether a kind's world has an interface.
pub(crate) fn allows(kind: Kind, interface: &str) -> bool {
    world(kind).contains(&interface)
}

/// The names of a component's imports.
pub(crate) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect()
}

/// The first import that none of the kinds' worlds has.
pub(crate) fn forbidden<'a>(imports: &'a [String], kinds: &BTreeSet<Kind>) -> Option<&'a str> {
    imports.iter().map(String::as_str).find(|import| !allowed(import, kinds))
}

/// Whether the component exports the interface through which functions are called.
pub(crate) fn exports_functions(engine: &Engine, component: &Component) -> bool {
    component.component_type().exports(engine).any(|(name, item)| {
        let (interface, version) = split(name);
        interface.strip_prefix(PACKAGE).is_some_and(|rest| rest == "/functions")
            && version.is_some_and(offered)
            && matches!(item.ty, ComponentItem::ComponentInstance(_))
    })
}

fn allowed(import: &str, kinds: &BTreeSet<Kind>) -> bool {
    let (name, version) = split(import);
    if WASI.contains(&name) {
        return version.is_none_or(|version| version.starts_with("0.2."));
    }
    name.strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|interface| version.is_some_and(offered) && kinds.iter().any(|kind| allows(*kind, interface)))
}

fn offered(version: &str) -> bool {
    version.strip_prefix(VERSION).is_some_and(|rest| rest.starts_with('.'))
}

/// `wasi:io/streams@0.2.6` in two.
fn split(import: &str) -> (&str, Option<&str>) {
    match import.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (import, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_needs_a_world_that_has_it() {
        let query = BTreeSet::from([Kind::Query]);
        let both = BTreeSet::from([Kind::Query, Kind::Mutation]);
        let rule = BTreeSet::from([Kind::Rule]);
        for (import, kinds, fine) in [
            ("convoke:runtime/database-read@0.1.0", &query, true),
            ("convoke:runtime/database-read@0.1.7", &query, true),
            ("convoke:runtime/database-read@0.2.0", &query, false),
            ("convoke:runtime/database-read@0.10.0", &query, false),
            ("convoke:runtime/database-write@0.1.0", &query, false),
            ("convoke:runtime/database-write@0.1.0", &both, true),
            ("convoke:runtime/context@0.1.0", &rule, false),
            ("wasi:cli/stderr@0.2.0", &rule, true),
            ("wasi:filesystem/types@0.2.0", &both, false),
            ("wasi:sockets/tcp@0.2.0", &both, false),
            ("wasi:http/outgoing-handler@0.2.0", &both, false),
            ("evil:host/door", &both, false),
        ] {
            let imports = [import.to_owned()];
            assert_eq!(forbidden(&imports, kinds).is_none(), fine, "{import}");
        }
    }
}
