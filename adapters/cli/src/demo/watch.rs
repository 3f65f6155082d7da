//! Whether there is a WebSocket, look by look: how many there were, and how long there was none.
//!
//! Decided here: that an outage begins with the end of a connection, so the time before the first one is none.

use bowline::LinkId;
use core::time::Duration;
use std::time::Instant;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    connection: Option<LinkId>,
    connections: u64,
    /// Since when there is none.
    since: Option<Instant>,
    longest: Duration,
}

impl Watch {
    /// Looks; the number of a connection that is new.
    pub(crate) fn look(&mut self, now: Instant, connection: Option<LinkId>) -> Option<u64> {
        if connection == self.connection {
            return None;
        }
        self.connection = connection;
        let since = self.since.take();
        if connection.is_none() {
            self.since = Some(now);
            return None;
        }
        self.longest = self.longest.max(since.map_or(Duration::ZERO, |since| now - since));
        self.connections += 1;
        Some(self.connections)
    }

    /// How many connections there were.
    pub(crate) const fn connections(&self) -> u64 {
        self.connections
    }

    /// The longest time without one, the present one included.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        self.longest.max(self.since.map_or(Duration::ZERO, |since| now - since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_between_connections_and_at_the_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (first, second) = (LinkId::NONE.next(), LinkId::NONE.next().next());
        let mut watch = Watch::default();
        assert_eq!(watch.look(at(5), None), None);
        assert_eq!(watch.longest(at(9)), Duration::ZERO, "it has not been there yet");
        assert_eq!(watch.look(at(10), Some(first)), Some(1));
        assert_eq!(watch.look(at(11), Some(first)), None);
        assert_eq!(watch.look(at(12), None), None);
        assert_eq!(watch.look(at(15), Some(second)), Some(2));
        assert_eq!((watch.connections(), watch.longest(at(99))), (2, Duration::from_secs(3)));
        watch.look(at(20), None);
        assert_eq!(watch.longest(at(30)), Duration::from_secs(10));
    }
}
