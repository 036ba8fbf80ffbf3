//! A component that imports an interface which no host has.

#![allow(clippy::pedantic, reason = "generated code")]

use convoke::prelude::*;

wit_bindgen::generate!({
    inline: "
        package evil:host;

        interface door {
            open: func(name: string) -> bool;
        }

        world intruder {
            import door;
        }
    ",
});

/// Opens the door.
#[query]
fn open(_: &QueryCtx, name: String) -> bool {
    evil::host::door::open(&name)
}
