//! What happens in a world: a list of changes with the time between them, from random bytes or written by hand.
//!
//! ```text
//! bytes  [ setup ] [ dt, kind, argument ]*        any bytes mean something; a longer tail is ignored
//! ```

use crate::sim::clock::{ms, s};
use crate::sim::network::{Dial, Http};
use bowline::{HttpOutcome, OnNewLink, Policy, Reason, RetryHint, SplitMix64};
use core::time::Duration;

/// One thing that happens to the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A party's application sends a message of this size.
    Send(usize, u32, Policy),
    /// The outcome of dials from now on.
    Dial(Dial),
    /// The outcome of requests from now on.
    Http(Http),
    /// Bytes from this party are held, or let go.
    Silent(usize, bool),
    /// This party's socket takes no bytes, or does again.
    Full(usize, bool),
    /// Greetings stay away, or not.
    Mute(bool),
    /// Larger data frames are answered with 1009.
    Largest(u32),
    /// The rate in each direction, in bytes a second.
    Rate(u32),
    /// A party's program dies on the connections there are: its library answers pings and closes there, and nothing else is
    /// said.
    Dies(usize),
    /// From now on a party's program dies on a connection that brings a message while another one is not acknowledged, as
    /// the original validator's sender.
    Frail(usize),
    /// A party's application says whether its peer has data.
    ExpectData(usize, bool),
    /// The time of bytes on the way: least, and the jitter on top.
    Delay(Duration, Duration),
    /// Every connection ends without a close frame.
    Reset,
    /// Every connection is closed with this code by something on the way.
    CloseAll(u16),
    /// A party's application takes from now on between so long and so long, and rejects or gives back so many of 100.
    App(usize, Duration, Duration, u8, u8),
    /// A party's process stands still.
    Sleep(usize, Duration),
    /// A party's process dies and a new one without its memory takes its place.
    Crash(usize),
    /// A party's application says that the network changed.
    RetryNow(usize),
    /// A party's application says start.
    Start(usize),
    /// A stranger connects to the acceptor and says nothing.
    Knock,
    /// A party's application closes the session.
    Close(usize, Duration),
    /// Everything works from now on.
    Calm,
}

/// Which world, and what happens in it: the time since the change before, and the change.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Chooses configurations and every draw.
    pub seed: u64,
    /// The changes.
    pub changes: Vec<(Duration, Change)>,
}

/// The seeds a test goes through: so many from 0, or `SEEDS` of them from `FROM` where the environment says so.
#[must_use]
pub fn seeds(count: u64) -> core::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = number("FROM").unwrap_or(0);
    from..from + number("SEEDS").unwrap_or(count)
}

/// Longer plans are cut.
const MOST: usize = 64;

impl Plan {
    /// A plan like no other seed's, of eight to about sixty changes.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let bytes: Vec<_> = (0..2 + 3 * (8 + seed % 50)).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
        Self { seed, ..Self::decode(&bytes) }
    }

    /// Reads a plan out of any bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let (head, tail) = bytes.split_at(bytes.len().min(2));
        let seed = head.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let change = |three: &[u8]| (pause(three[0]), change(three[1], three[2]));
        Self { seed, changes: tail.chunks_exact(3).take(MOST).map(change).collect() }
    }
}

/// Mostly short, sometimes long: 0 to 255 ms, to 4 s, to 40 s.
fn pause(byte: u8) -> Duration {
    let low = u64::from(byte & 0x3f);
    match byte >> 6 {
        0 => ms(low),
        1 | 2 => ms(low * 64),
        _ => ms(low * 640),
    }
}

fn change(kind: u8, arg: u8) -> Change {
    let party = usize::from(arg & 1);
    let yes = arg & 2 != 0;
    match kind % 32 {
        0..=8 => Change::Send(party, size(arg >> 2), policy(arg >> 4)),
        9 | 10 => Change::Dial(dial(arg)),
        11..=13 => Change::Http(http(arg)),
        14 | 15 => Change::Silent(party, yes),
        16 => Change::Full(party, yes),
        17 => Change::Delay(ms(1 + u64::from(arg) * 4), ms(u64::from(arg >> 4) * 20)),
        18 | 19 => Change::Reset,
        20 => Change::CloseAll(code(arg)),
        21 | 22 => {
            Change::App(party, ms(10), ms(10 + u64::from(arg >> 3) * 400), if yes { 20 } else { 0 }, arg >> 2 & 31)
        }
        23 | 24 => Change::Sleep(party, ms(u64::from(arg) * 200)),
        25 => Change::Crash(party),
        26 => Change::RetryNow(party),
        27 => Change::Knock,
        28 => Change::Start(party),
        29 => {
            if yes {
                Change::Mute(arg & 4 != 0)
            } else {
                Change::Largest(1000 << (arg >> 4))
            }
        }
        30 if arg < 8 => Change::Close(party, s(u64::from(arg))),
        _ => Change::Calm,
    }
}

const fn size(arg: u8) -> u32 {
    if arg == 0 {
        20 << 20
    } else if arg == 1 {
        100 << 20
    } else {
        100 * arg as u32
    }
}

const fn policy(arg: u8) -> Policy {
    let life = match arg {
        0 => Some(s(70)),
        1 => Some(ms(1500)),
        _ => None,
    };
    let on_new_link = if arg == 2 { OnNewLink::Drop } else { OnNewLink::Keep };
    Policy { life, on_new_link, ..Policy::DEFAULT }
}

fn dial(arg: u8) -> Dial {
    let hint = RetryHint { after: s(u64::from(arg >> 5)), window: s(u64::from(arg >> 4)) };
    match arg % 12 {
        0 => Dial::Hangs,
        1 => Dial::Fails(Reason::PortClosed, RetryHint::NONE),
        2 => Dial::Fails(Reason::Status(503), hint),
        3 => Dial::Fails(Reason::Status(429), hint),
        4 => Dial::Fails(Reason::Status(404), RetryHint::NONE),
        5 => Dial::Fails(Reason::Status(401), RetryHint::NONE),
        6 => Dial::OpensThenCloses(1006),
        7 => Dial::OpensThenCloses(1008),
        8 => Dial::OpensThenCloses(code(arg)),
        _ => Dial::Open,
    }
}

fn http(arg: u8) -> Http {
    match arg % 16 {
        0 | 1 => Http::LosesAnswer,
        2 => Http::LosesRequest,
        3 => Http::Hangs,
        4 | 5 => Http::Twice,
        6 => Http::Says(HttpOutcome::status(503).with_after(s(u64::from(arg >> 4)))),
        7 => Http::Says(HttpOutcome::status(409).with_after(s(u64::from(arg >> 4)))),
        8 => Http::Says(HttpOutcome::status(if arg & 16 == 0 { 401 } else { 404 })),
        9 => Http::Says(HttpOutcome::status(if arg & 16 == 0 { 400 } else { 422 })),
        10 => Http::Says(HttpOutcome::Unreached(Reason::PortClosed)),
        11 => Http::Says(HttpOutcome::status(500)),
        _ => Http::Open,
    }
}

const fn code(arg: u8) -> u16 {
    [1000, 1001, 1006, 1008, 1009, 1011, 1012, 1013, 1002, 4000, 3000, 4003, 4401, 1010, 4500, 1012]
        [(arg >> 4) as usize]
}
