//! Keys from files, and `bowline key`.
//!
//! Decided here: what a key file may be, and that a key which was made here says so.

use bowline_smol::Keypair;
use core::fmt;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// No key file is longer.
const LONGEST: u64 = 16 * 1024;

const AFTER: &str = "\
A key file is a Bittensor hotkey file that is not encrypted, as it lies under
~/.bittensor/wallets/NAME/hotkeys/, or a text file with a seed of 32 bytes in
64 hexadecimal digits.

Examples:
  bowline key ~/.bittensor/wallets/mine/hotkeys/default
  bowline key --new trial.json";

/// Prints the address of a key; or makes one, for trials
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER)]
pub(crate) struct Args {
    /// The key file
    file: PathBuf,

    /// Makes the file, with a new key for trials: no wallet knows it, and
    /// nobody has written down its words
    #[arg(long, verbatim_doc_comment)]
    new: bool,
}

/// Prints the address.
pub(crate) fn run(args: &Args) -> ExitCode {
    let keys = if args.new { make(&args.file) } else { read(&args.file) };
    match keys {
        Ok(keys) => {
            if args.new {
                eprintln!("bowline: {} holds a new key, for trials only", args.file.display());
            }
            let printed = writeln!(io::stdout(), "{}", keys.hotkey());
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("bowline: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why there are no keys.
#[derive(Debug)]
pub(crate) struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys in this file.
pub(crate) fn read(path: &Path) -> Result<Keypair, Unreadable> {
    let why = |why: &dyn fmt::Display| Unreadable(format!("{}: {why}", path.display()));
    let mut text = String::new();
    // One byte more than may be, so that a longer file is not cut but refused.
    let file = File::open(path).map_err(|error| why(&error))?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| why(&error))?;
    let seed = text.trim();
    let keys =
        if seed.starts_with(['{', '$']) { Keypair::from_hotkey_file(&text) } else { Keypair::from_seed_hex(seed) };
    keys.map_err(|error| why(&error))
}

fn make(path: &Path) -> Result<Keypair, Unreadable> {
    let why = |why: &dyn fmt::Display| Unreadable(format!("{}: {why}", path.display()));
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| why(&error))?;
    let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = Keypair::from_seed_hex(&seed).map_err(|error| why(&error))?;
    let content = json!({
        "note": "made by `bowline key --new`, for trials only",
        "secretSeed": format!("0x{seed}"),
        "ss58Address": keys.hotkey().to_string(),
    });
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{content:#}"));
    written.map_err(|error| why(&error))?;
    Ok(keys)
}
