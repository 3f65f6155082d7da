//! bowline-tests
