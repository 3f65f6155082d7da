//! Ctrl-C and SIGTERM: once to stop gracefully, twice to end at once.
//!
//! Decided here: what a second one does: it leaves things in order, within a moment, and ends the process.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::process;
use std::sync::{Arc, mpsc};
use std::thread;

/// The status of a program that was interrupted, as shells know it: 128 and the number of the signal.
pub(crate) const STATUS: u8 = 130;

/// Whether somebody asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. The first one calls `told`, a second one `leave`.
    pub(crate) fn listen(
        told: impl Fn() + Send + 'static,
        leave: impl FnOnce() + Clone + Send + 'static,
    ) -> Result<Self, ctrlc::Error> {
        let asked = Arc::new(AtomicBool::new(false));
        let ask = Arc::clone(&asked);
        ctrlc::set_handler(move || {
            if ask.swap(true, Ordering::Relaxed) {
                end_at_once(leave.clone());
            }
            told();
        })?;
        Ok(Self(asked))
    }

    /// Once was enough.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whoever writes to a terminal that takes nothing more holds the output; it is waited for only a moment.
fn end_at_once(leave: impl FnOnce() + Send + 'static) -> ! {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        leave();
        tell.send(())
    });
    let _ = told.recv_timeout(Duration::from_millis(200));
    process::exit(STATUS.into())
}
