//! `bowline connect`, `bowline hub` and `bowline key`, run as their users run them.

#[path = "../../../../tests/tests/real/ca.rs"]
#[expect(dead_code, reason = "every test program uses a part")]
mod ca;
mod connect;
mod hub;
mod process;
mod reasons;
