//! What both adapters share: HTTP.

pub mod http;
