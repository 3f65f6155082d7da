//! bowline-transport
