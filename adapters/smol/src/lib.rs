//! bowline-smol
