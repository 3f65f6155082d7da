//! The program `bowline`: what the library does, on a terminal.
//!
//! Decided here: the commands and their exit statuses. Each command lives in a folder of its own.

mod demo;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

const ABOUT: &str = "\
Bowline keeps a message session alive over a WebSocket that breaks, and over
HTTP when there is no WebSocket. Nothing accepted is lost, nothing is done twice.

Watch it happen, in half a minute and without a network:

    bowline demo";

/// Keeps message sessions alive over WebSockets that break, and over HTTP when there is none.
#[derive(Parser)]
#[command(name = "bowline", version, long_about = ABOUT, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
    }
}
