//! Doubly linked lists through the cells of a table: a cell can be in several, and is put in and taken out at once.
//!
//! Invariants: a cell is in a list once or not at all; whoever removes it from the table has taken it out of its lists.

use crate::hub::table::{Cell, Table};
use crate::ring::Slots;

/// No cell.
pub(super) const NONE: u32 = u32::MAX;
/// In no list; no table has so many cells.
const OUT: u32 = u32::MAX - 1;

/// The neighbours of a cell in one list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Links {
    before: u32,
    pub(super) after: u32,
}

impl Links {
    /// Of a cell that is in no list.
    pub(super) const OUT: Self = Self { before: OUT, after: NONE };

    pub(super) const fn is_in(self) -> bool {
        self.before != OUT
    }
}

/// The ends of a list; it lies wherever its owner keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct List {
    pub(super) first: u32,
    pub(super) last: u32,
}

/// Which of a cell's links.
type Of<T> = fn(&mut T) -> &mut Links;

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE };

    pub(super) const fn is_empty(self) -> bool {
        self.first == NONE
    }

    /// Puts a cell at the end, unless it is in the list.
    pub(super) fn push<T, S: Slots<Cell<T>>>(&mut self, table: &mut Table<T, S>, index: u32, of: Of<T>) {
        let last = self.last;
        match table.at_mut(index).map(of) {
            Some(links) if !links.is_in() => *links = Links { before: last, after: NONE },
            Some(_) | None => return,
        }
        match table.at_mut(last).map(of) {
            Some(links) => links.after = index,
            None => self.first = index,
        }
        self.last = index;
    }

    /// Takes a cell out, if it is in the list.
    pub(super) fn remove<T, S: Slots<Cell<T>>>(&mut self, table: &mut Table<T, S>, index: u32, of: Of<T>) {
        let Some(links) = table.at_mut(index).map(of).filter(|links| links.is_in()) else { return };
        let Links { before, after } = core::mem::replace(links, Links::OUT);
        match table.at_mut(before).map(of) {
            Some(links) => links.after = after,
            None => self.first = after,
        }
        match table.at_mut(after).map(of) {
            Some(links) => links.before = before,
            None => self.last = before,
        }
    }
}
