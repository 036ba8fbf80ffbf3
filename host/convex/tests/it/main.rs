//! Sessions as a server uses them.

mod conversation;
mod session;
