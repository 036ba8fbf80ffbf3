//! The host's side of wit/runtime.wit.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "component",
    imports: {
        "convoke:runtime/database-read": async | trappable,
        "convoke:runtime/database-write": async | trappable,
        "convoke:runtime/sql": async | trappable,
        "convoke:runtime/calls": async | trappable,
        "convoke:runtime/outbound-http": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});

pub(crate) use self::convoke::runtime::types::Error as GuestError;
