//! The program `bowline`: what the library does, on a terminal.
//!
//! Decided here: the commands and their exit statuses. Each command lives in a folder of its own.

mod advice;
mod connect;
mod demo;
mod environment;
mod hub;
mod interrupt;
mod keys;
mod life;
mod node;
mod pipe;
mod session;
mod settings;
mod tls;
mod words;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const ABOUT: &str = "\
Bowline keeps a message session alive over a WebSocket that breaks, and over
HTTP when there is no WebSocket: nothing accepted is lost, and nothing is done
twice. This program shows it, on this machine alone, and lets programs in any
language use it:

    bowline demo
    bowline connect ws://validator:8091 --key FILE
    bowline hub --listen 0.0.0.0:8091 --key FILE --allow FILE";

/// Keeps a message session alive over a WebSocket that breaks
#[derive(Parser)]
#[command(name = "bowline", version, long_about = ABOUT, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Connect(connect::Args),
    Hub(hub::Args),
    Key(keys::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Hub(args) => hub::run(&args),
        Command::Key(args) => keys::run(&args),
    }
}
