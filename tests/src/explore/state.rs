//! A situation of the whole world, small enough to keep a hundred million of them as hashes.
//!
//! Numbers that only count do not occur: sessions are the numbers of their situations ([`Machines`](super::Machines)),
//! connections and deliveries are ages. Wires and calls stand in an order of their own, so that it does not matter which
//! came first.

use super::act::{Age, Name, Word};

/// Most messages of both sides together.
pub(super) const MESSAGES: usize = 5;
/// Most connections at once: one that carries, one that knocks, and those that one side has not noticed are over.
pub(super) const WIRES: usize = 5;
/// Most requests at once: two of each side, copies, and those that outlive who asked.
pub(super) const CALLS: usize = 12;
const CELLS: usize = 12;

/// What may still go wrong, and what may still be asked for; each is spent by its move.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    /// Connections that are cut, seen by both sides or by one.
    pub cuts: u8,
    /// Attempts that nobody answers.
    pub hangs: u8,
    /// Attempts that a go-between refuses with 401.
    pub refusals: u8,
    /// Acknowledgements that are lost on a connection.
    pub lost_acks: u8,
    /// Acknowledgements that come twice.
    pub double_acks: u8,
    /// Requests or answers that are lost.
    pub lost_calls: u8,
    /// Requests whose sender has given up before they, or their answers, arrive.
    pub late: u8,
    /// Answers that come twice.
    pub double_answers: u8,
    /// Requests that come twice.
    pub double_requests: u8,
    /// Requests that a go-between answers.
    pub go_between: u8,
    /// Restarts of each side that keep its memory.
    pub kept: [u8; 2],
    /// Restarts of each side that lose it.
    pub lost: [u8; 2],
    /// Restarts of the acceptor that lose its memory and leave its connection open: its socket answers pings.
    pub mute: u8,
    /// Jumps of time while a network or an application could do something.
    pub slow: u8,
    /// Times that the poison message is answered 500 before it is answered no more.
    pub poison: u8,
    /// Closes by each side's application.
    pub closes: [u8; 2],
}

impl Budget {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        cuts: 0,
        hangs: 0,
        refusals: 0,
        lost_acks: 0,
        double_acks: 0,
        lost_calls: 0,
        late: 0,
        double_answers: 0,
        double_requests: 0,
        go_between: 0,
        kept: [0; 2],
        lost: [0; 2],
        mute: 0,
        slow: 0,
        poison: 0,
        closes: [0; 2],
    };
}

/// One side of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) enum End {
    /// It was never here, or has let go.
    #[default]
    Gone,
    /// The dialer's, before the other side has heard of it.
    Dialling(Age),
    /// The dialer's, and nobody will ever answer.
    Hanging(Age),
    /// The dialer's, when the other side has answered.
    Answered(Age),
    /// The acceptor's, not read before the session gives it the place.
    Knocking(Age),
    /// Open.
    Open(Age),
    /// Its program is gone; its socket answers pings.
    Mute,
}

/// What lies in a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Cell {
    /// A message.
    Data(u8),
    /// Its acknowledgement.
    Ack(u8),
    /// A question to the transport.
    Probe,
    /// Its answer.
    Pong,
    /// A question to the program.
    Ping,
    /// Its answer.
    Word,
    /// A close frame; its code less 1000.
    Close(u8),
    /// The end without one.
    Reset,
}

/// What is on its way to one side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Pipe {
    cells: [Option<Cell>; CELLS],
}

impl Pipe {
    /// What comes next.
    #[must_use]
    pub(super) const fn first(&self) -> Option<Cell> {
        self.cells[0]
    }

    /// Takes it out.
    pub(super) fn take(&mut self) -> Option<Cell> {
        let first = self.cells[0].take();
        self.cells.rotate_left(1);
        first
    }

    /// Puts one behind the others.
    ///
    /// # Panics
    /// If there are too many.
    pub(super) fn put(&mut self, cell: Cell) {
        let Some(free) = self.cells.iter_mut().find(|cell| cell.is_none()) else {
            panic!("{cell:?} behind {:?}", self.cells);
        };
        *free = Some(cell);
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub(super) const fn is_empty(&self) -> bool {
        self.cells[0].is_none()
    }
}

/// One connection; index 0 is the dialer's side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Wire {
    /// Its sides.
    pub(super) ends: [End; 2],
    /// What is on its way to each.
    pub(super) pipes: [Pipe; 2],
    /// Nothing gets through any more, and nobody is told.
    pub(super) silent: bool,
}

impl Wire {
    /// Sends something to a side.
    pub(super) fn put(&mut self, to: usize, cell: Cell) {
        if !self.silent && self.ends[to] != End::Gone {
            self.pipes[to].put(cell);
        }
    }

    /// A side lets go.
    pub(super) fn leave(&mut self, side: usize) {
        self.ends[side] = End::Gone;
        self.pipes[side] = Pipe::default();
    }
}

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) enum Stage {
    /// On its way.
    #[default]
    Going,
    /// At the receiver's session, which answers by this number.
    Waiting(u8),
    /// Its answer is on its way.
    Back(Word),
    /// It or its answer is lost.
    Lost,
}

/// Who awaits the answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) enum Asker {
    /// Its sender.
    #[default]
    Waits,
    /// Its sender has been told that there is none, or has had one: this one is late.
    GaveUp,
    /// Nobody: a go-between sent the request twice, or the process that asked is gone.
    Nobody,
}

/// One request, or the copy of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Call {
    /// Which message.
    pub(super) message: u8,
    /// Which try of it.
    pub(super) attempt: u16,
    /// Who awaits its answer.
    pub(super) asker: Asker,
    /// Where it is.
    pub(super) stage: Stage,
}

impl Call {
    /// Whether its sender waits for the answer.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.asker, Asker::Waits)
    }
}

/// Where a message stands at its sender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Sent {
    /// Not accepted by the session yet.
    #[default]
    Not,
    /// Accepted.
    Accepted,
    /// Its end was told.
    Ended,
    /// Its sender's memory was lost.
    Forgotten,
}

/// One message, in the books.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Message {
    /// Its name, once it is accepted.
    pub(super) name: Name,
    /// At the sender.
    pub(super) sent: Sent,
    /// The receiver's application is at work on it: the delivery.
    pub(super) held: Option<Age>,
    /// It was delivered, and the receiver has kept its memory since.
    pub(super) here: bool,
    /// It was ever delivered.
    pub(super) ever: bool,
    /// An application completed it.
    pub(super) done: bool,
}

/// The world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    /// The situation of each side's session.
    pub(super) session: [u32; 2],
    /// Which life it is in.
    pub(super) life: [u8; 2],
    /// Its application has closed it.
    pub(super) closing: [bool; 2],
    /// The connections.
    pub(super) wires: [Option<Wire>; WIRES],
    /// The requests.
    pub(super) calls: [Option<Call>; CALLS],
    /// In milliseconds: how long each side's application is still at work on the message it was given first.
    pub(super) work: [u32; 2],
    /// The books.
    pub(super) messages: [Message; MESSAGES],
    /// What may still happen.
    pub(super) left: Budget,
    /// Nothing goes wrong any more, and the poison message is refused for ever.
    pub(super) fair: bool,
}

impl State {
    /// The same situation, written in the one order that is kept.
    pub(super) fn tidy(&mut self) {
        for slot in &mut self.wires {
            let over = |end: End| matches!(end, End::Gone | End::Mute);
            slot.take_if(|wire| wire.ends.into_iter().all(over));
        }
        self.wires.sort_unstable();
        self.calls.sort_unstable();
    }

    /// The same, and from here on nothing goes wrong.
    #[must_use]
    pub(super) fn fair(self) -> Self {
        Self { fair: true, left: Budget::NONE, ..self }
    }

    /// A side's connections and deliveries have grown older.
    pub(super) fn age(&mut self, side: usize, links: u8, deliveries: u8, owner: impl Fn(usize) -> usize) {
        for wire in self.wires.iter_mut().flatten() {
            match &mut wire.ends[side] {
                End::Dialling(age) | End::Hanging(age) | End::Answered(age) | End::Knocking(age) | End::Open(age) => {
                    *age += links;
                }
                End::Gone | End::Mute => {}
            }
        }
        for (message, book) in self.messages.iter_mut().enumerate() {
            if let Some(age) = book.held.as_mut().filter(|_| owner(message) != side) {
                *age += deliveries;
            }
        }
    }
}
