//! What the program `bowline` is made of and others can use: the proxy that breaks connections on purpose.

pub mod proxy;
