//! So many at once, and the others wait.

use core::sync::atomic::{AtomicUsize, Ordering};
use event_listener::{Event, EventListener};

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
        // Made only if it was taken: whoever drops one gives a place back.
        taken.is_ok().then(|| Pass(self))
    }

    /// Told when a place is free that nobody has heard of yet; to be asked for before it is tried once more.
    pub(super) fn freed(&self) -> EventListener {
        self.freed.listen()
    }

    pub(super) async fn enter(&self) -> Pass<'_> {
        loop {
            let freed = self.freed();
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
        // One more, not one in all: two places may be freed before the first waiter has woken.
        self.0.freed.notify_additional(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::pin::pin;
    use core::task::{Context, Waker};

    #[test]
    fn there_are_never_more_than_so_many() {
        let gate = Gate::new(2);
        let (one, two) = (gate.try_enter(), gate.try_enter());
        assert!(one.is_some() && two.is_some());
        for _ in 0..3 {
            assert!(gate.try_enter().is_none());
        }
        drop(one);
        let again = gate.try_enter();
        assert!(again.is_some() && gate.try_enter().is_none());
        smol::block_on(async {
            let waiting = gate.enter();
            let leaving = async {
                drop(two);
                core::future::pending().await
            };
            drop(smol::future::or(waiting, leaving).await);
        });
    }

    #[test]
    fn every_place_that_is_freed_wakes_somebody() {
        let gate = Gate::new(2);
        let passes = [gate.try_enter().unwrap(), gate.try_enter().unwrap()];
        let (mut first, mut second) = (pin!(gate.freed()), pin!(gate.freed()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
        drop(passes);
        assert!(first.poll(&mut cx).is_ready());
        assert!(second.poll(&mut cx).is_ready());
    }
}
