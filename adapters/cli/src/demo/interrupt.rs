//! Ctrl-C: once to stop gracefully, twice to end at once.
//!
//! Decided here: what a second one does: it gives the terminal back and ends the process.

use super::show;
use core::sync::atomic::{AtomicBool, Ordering};
use std::process;
use std::sync::Arc;

/// The status of a program that was interrupted, as shells know it: 128 and the number of the signal.
pub(crate) const STATUS: u8 = 130;

/// Whether somebody asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, ctrlc::Error> {
        let asked = Arc::new(AtomicBool::new(false));
        let ask = Arc::clone(&asked);
        ctrlc::set_handler(move || {
            if ask.swap(true, Ordering::Relaxed) {
                show::give_back_terminal();
                process::exit(STATUS.into());
            }
        })?;
        Ok(Self(asked))
    }

    /// Once was enough.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
