//! bowline-cli
