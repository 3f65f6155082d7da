//! `bowline connect`, `bowline hub` and `bowline key`, run as their users run them.

mod connect;
mod hub;
mod process;
