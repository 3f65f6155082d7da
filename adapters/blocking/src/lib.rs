//! Bowline on threads and blocking sockets.

pub mod io;
