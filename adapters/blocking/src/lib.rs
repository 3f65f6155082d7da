//! bowline-blocking
