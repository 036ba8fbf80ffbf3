//! What the WIT says, as Rust. Outside WASM every import panics.

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::str_to_string,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "component",
    runtime_path: "::wit_bindgen::rt",
});

// An export that stands in a library survives into the component, so that authors have nothing to export themselves.
// Outside WASM its symbol (`…@0.1.0#call`) would mean a symbol version to the linker.
#[cfg(target_family = "wasm")]
export!(Component);

#[cfg(target_family = "wasm")]
struct Component;

#[cfg(target_family = "wasm")]
impl exports::convoke::runtime::functions::Guest for Component {
    fn manifest() -> String {
        crate::manifest::of_this_component()
    }

    fn call(name: String, args: String) -> Result<String, convoke::runtime::types::Error> {
        crate::dispatch::call(&name, &args).map_err(Into::into)
    }
}
