//! bowline-cli

pub mod proxy;
