//! Convex' own types against ours.

mod cases;
mod client_messages;
mod server_messages;
