//! So many at once, and the others wait.

use core::sync::atomic::{AtomicUsize, Ordering};
use event_listener::Event;

pub(super) struct Gate {
    free: AtomicUsize,
    freed: Event,
}

impl Gate {
    pub(super) const fn new(most: usize) -> Self {
        Self { free: AtomicUsize::new(most), freed: Event::new() }
    }

    pub(super) fn try_enter(&self) -> Option<Pass<'_>> {
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.is_ok().then_some(Pass(self))
    }

    pub(super) async fn enter(&self) -> Pass<'_> {
        loop {
            let freed = self.freed.listen();
            if let Some(pass) = self.try_enter() {
                return pass;
            }
            freed.await;
        }
    }
}

/// A place, given back when it is dropped.
pub(super) struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
        self.0.freed.notify(1);
    }
}
