//! `bowline demo --scene native`: one native client and one hub, both directions loaded, with proxies between them that
//! break what runs through and see what crosses, and a ledger of what became of each message.
//!
//! ```text
//!  director ── every few ms ─▶ sends what is due, both ways ─▶ client ═══ proxy ═══ hub ─▶ ledger
//!     │ faults ─────────────────────────────────────────────▶   └─ HTTP ─ proxy ─┘
//!     ├─▶ ledger ◀─── every delivery, every end, at both ends       │
//!     ├─▶ wire ◀─── every data frame that crosses, by its number ───┘
//!     └─▶ show: a live picture, plain lines, or JSON lines
//! ```
//!
//! The hub is not killed here: its memory of the session would be gone with it, and what it had taken then could only be
//! marked, not counted. The miners' scene shows that.

mod director;
mod ledger;
mod picture;
mod script;
mod stream;
mod summary;
mod wire;
mod world;

pub(super) use director::run;

use bowline_cli::proxy::Direction;

/// One of the two directions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    /// From the client to the hub.
    ToHub,
    /// From the hub to the client.
    ToClient,
}

impl Way {
    const BOTH: [Self; 2] = [Self::ToHub, Self::ToClient];

    /// As the proxy, which stands before the hub, sees it.
    const fn of(direction: Direction) -> Self {
        match direction {
            Direction::ToServer => Self::ToHub,
            Direction::ToClient | Direction::Both => Self::ToClient,
        }
    }

    /// The other one.
    const fn back(self) -> Self {
        match self {
            Self::ToHub => Self::ToClient,
            Self::ToClient => Self::ToHub,
        }
    }

    /// In words and in fields.
    const fn name(self) -> &'static str {
        match self {
            Self::ToHub => "to_hub",
            Self::ToClient => "to_client",
        }
    }
}

/// Something for each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Both<T> {
    to_hub: T,
    to_client: T,
}

impl<T> Both<T> {
    /// Made anew for each direction.
    fn each(mut make: impl FnMut(Way) -> T) -> Self {
        Self { to_hub: make(Way::ToHub), to_client: make(Way::ToClient) }
    }

    const fn of(&self, way: Way) -> &T {
        match way {
            Way::ToHub => &self.to_hub,
            Way::ToClient => &self.to_client,
        }
    }

    const fn of_mut(&mut self, way: Way) -> &mut T {
        match way {
            Way::ToHub => &mut self.to_hub,
            Way::ToClient => &mut self.to_client,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.to_hub, &self.to_client].into_iter()
    }
}
