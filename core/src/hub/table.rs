//! The hub's tables: places with generations, an index by hash, a ring of what is ready, a heap of deadlines, in one array.
//!
//! ```text
//!  cells   [ a · b c · d ]      Key = (index, generation): a key of what was removed finds nothing
//!   index     buckets chained through the cells, as many as there are cells: found without a scan
//!   ready     a ─▶ d ─▶ b       first come, first served; a place is in it once
//!   heap      c(3 s) < a(9 s)   four children each; a place is in it once and can be moved
//! ```
//!
//! Everything hangs on the cells themselves, so one array is all the memory there is: of fixed size, or a vector that grows
//! to its limit. No operation but growing looks at all cells.
//!
//! Invariants: the chains, the ring, the heap and the free list hold exactly the occupied cells they should; a key is never
//! given twice (short of four thousand million reuses of one place).
//! Rules: U1, U7.

use crate::ring::Slots;
use crate::time::Instant;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

/// No cell.
const NONE: u32 = u32::MAX;

/// Where something lies in a table, and which tenant of that place is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(super) const fn bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub(super) const fn index(self) -> u32 {
        self.index
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// A place of a table; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cell<T> {
    generation: u32,
    /// The first cell of the chain that begins here: a matter of this cell's place, not of its item.
    bucket: u32,
    /// The next cell in this item's chain, or in the free list.
    next: u32,
    /// The next in the ready ring; itself if it is the last; `NONE`: it is not in it.
    ready: u32,
    /// The cell at this place of the heap: a matter of this cell's place, not of its item.
    heap: u32,
    /// Where in the heap this item is.
    at: u32,
    due: Instant,
    hash: u64,
    item: Option<T>,
}

impl<T> Cell<T> {
    const fn vacant() -> Self {
        Self {
            generation: 0,
            bucket: NONE,
            next: NONE,
            ready: NONE,
            heap: NONE,
            at: NONE,
            due: Instant::ZERO,
            hash: 0,
            item: None,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Table<T, S> {
    most: usize,
    len: usize,
    /// Cells that have ever been used.
    span: u32,
    free: u32,
    ready_first: u32,
    ready_last: u32,
    heap_len: u32,
    item: PhantomData<T>,
    /// Cells looked at since the beginning: what something costs, whatever the clock says.
    #[cfg(test)]
    pub(super) touched: core::cell::Cell<u64>,
    cells: S,
}

impl<T, S: Slots<Cell<T>>> Table<T, S> {
    /// An empty table of at most `most` items.
    pub(super) fn new(most: usize, mut cells: S) -> Self {
        for cell in cells.as_mut() {
            *cell = None;
        }
        let most = most.min(cells.limit()).min(NONE as usize);
        let mut table = Self {
            most,
            len: 0,
            span: 0,
            free: NONE,
            ready_first: NONE,
            ready_last: NONE,
            heap_len: 0,
            item: PhantomData,
            #[cfg(test)]
            touched: core::cell::Cell::new(0),
            cells,
        };
        table.furnish();
        table
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether one more would be taken.
    pub(super) const fn has_room(&self) -> bool {
        self.len < self.most
    }

    /// How many more would be taken.
    pub(super) const fn room(&self) -> usize {
        self.most.saturating_sub(self.len)
    }

    /// Whether one would ever be taken.
    pub(super) const fn has_place(&self) -> bool {
        self.most > 0
    }

    /// Takes in an item that will be found by `hash`; hands it back if there is no place.
    pub(super) fn insert(&mut self, hash: u64, item: T) -> Result<Key, T> {
        if self.len >= self.most {
            return Err(item);
        }
        let index = if self.free == NONE {
            if self.span as usize >= self.cells.as_ref().len() {
                if !self.cells.grow(self.most) {
                    return Err(item);
                }
                self.furnish();
                self.rehash();
            }
            let index = self.span;
            self.span = self.span.saturating_add(1);
            index
        } else {
            self.free
        };
        let bucket = self.bucket(hash);
        let first = self.cell(bucket).map_or(NONE, |cell| cell.bucket);
        let Some(cell) = self.cell_mut(index) else { return Err(item) };
        let reused = cell.next;
        cell.item = Some(item);
        cell.hash = hash;
        cell.next = first;
        let key = Key { index, generation: cell.generation };
        if self.free == index {
            self.free = reused;
        }
        if let Some(cell) = self.cell_mut(bucket) {
            cell.bucket = index;
        }
        self.len = self.len.saturating_add(1);
        Ok(key)
    }

    /// Takes an item out of everything.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        self.set_deadline(key, None);
        self.leave_ready(key.index);
        self.unchain(key.index);
        let free = self.free;
        let cell = self.cell_mut(key.index)?;
        cell.generation = cell.generation.wrapping_add(1);
        cell.next = free;
        let item = cell.item.take();
        self.free = key.index;
        self.len = self.len.saturating_sub(1);
        item
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.cell(key.index).filter(|cell| cell.generation == key.generation)?.item.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.cell_mut(key.index).filter(|cell| cell.generation == key.generation)?.item.as_mut()
    }

    /// What lies in this cell, whoever it is: for lists through the cells.
    pub(super) fn at(&self, index: u32) -> Option<&T> {
        self.cell(index)?.item.as_ref()
    }

    /// The same, to change.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.cell_mut(index)?.item.as_mut()
    }

    /// The item with this hash for which `is` holds.
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(&T) -> bool) -> Option<Key> {
        let mut index = self.cell(self.bucket(hash))?.bucket;
        while let Some(cell) = self.cell(index) {
            if cell.hash == hash && cell.item.as_ref().is_some_and(&mut is) {
                return Some(Key { index, generation: cell.generation });
            }
            index = cell.next;
        }
        None
    }

    /// The key of the `n`th cell, if it is occupied; `None` beyond the last: see [`span`](Self::span).
    pub(super) fn key(&self, n: u32) -> Option<Key> {
        let cell = self.cell(n)?;
        cell.item.as_ref()?;
        Some(Key { index: n, generation: cell.generation })
    }

    /// So many cells have ever been used.
    pub(super) const fn span(&self) -> u32 {
        self.span
    }

    /// Puts it at the end of the ready ring, unless it is in it.
    pub(super) fn make_ready(&mut self, key: Key) {
        if self.get(key).is_none() || self.is_ready(key) {
            return;
        }
        let last = self.ready_last;
        if let Some(cell) = self.cell_mut(key.index) {
            cell.ready = key.index;
        }
        match self.cell_mut(last) {
            Some(cell) => cell.ready = key.index,
            None => self.ready_first = key.index,
        }
        self.ready_last = key.index;
    }

    /// Takes the first out of the ready ring.
    pub(super) fn next_ready(&mut self) -> Option<Key> {
        let index = self.ready_first;
        self.leave_ready(index);
        self.key(index)
    }

    pub(super) fn is_ready(&self, key: Key) -> bool {
        self.cell(key.index).is_some_and(|cell| cell.ready != NONE)
    }

    pub(super) const fn any_ready(&self) -> bool {
        self.ready_first != NONE
    }

    /// When it is due; `None`: never.
    pub(super) fn set_deadline(&mut self, key: Key, due: Option<Instant>) {
        let Some(cell) = self.cell_mut(key.index).filter(|cell| cell.generation == key.generation) else { return };
        let place = cell.at;
        match (place, due) {
            (NONE, None) => {}
            (NONE, Some(due)) => {
                cell.due = due;
                let last = self.heap_len;
                self.heap_len = last.saturating_add(1);
                self.put(last, key.index);
                self.rise(last);
            }
            (place, None) => {
                cell.at = NONE;
                self.heap_len = self.heap_len.saturating_sub(1);
                let moved = self.heap(self.heap_len);
                if place < self.heap_len {
                    self.put(place, moved);
                    self.sink(place);
                    self.rise(place);
                }
            }
            (place, Some(due)) => {
                if cell.due != due {
                    cell.due = due;
                    self.sink(place);
                    self.rise(place);
                }
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.heap_len > 0).then(|| self.due(0))
    }

    /// Takes the deadline of one that is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Key> {
        if self.deadline()? > now {
            return None;
        }
        let key = self.key(self.heap(0))?;
        self.set_deadline(key, None);
        Some(key)
    }

    /// The most items that a look-up goes through.
    #[cfg(test)]
    pub(super) fn longest_chain(&self) -> usize {
        let chain =
            |bucket: &Cell<T>| core::iter::successors(self.cell(bucket.bucket), |cell| self.cell(cell.next)).count();
        self.cells.as_ref().iter().flatten().map(chain).max().unwrap_or_default()
    }

    fn cell(&self, index: u32) -> Option<&Cell<T>> {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        self.cells.as_ref().get(index as usize)?.as_ref()
    }

    fn cell_mut(&mut self, index: u32) -> Option<&mut Cell<T>> {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        self.cells.as_mut().get_mut(index as usize)?.as_mut()
    }

    /// Makes cells of new places.
    fn furnish(&mut self) {
        for place in self.cells.as_mut().iter_mut().rev().take_while(|place| place.is_none()) {
            *place = Some(Cell::vacant());
        }
    }

    fn bucket(&self, hash: u64) -> u32 {
        let buckets = u64::try_from(self.cells.as_ref().len()).unwrap_or(u64::MAX);
        hash.checked_rem(buckets).and_then(|bucket| u32::try_from(bucket).ok()).unwrap_or(NONE)
    }

    /// There are more buckets: everything is chained anew.
    fn rehash(&mut self) {
        for cell in self.cells.as_mut().iter_mut().flatten() {
            cell.bucket = NONE;
        }
        for index in 0..self.span {
            let Some(cell) = self.cell(index).filter(|cell| cell.item.is_some()) else { continue };
            let bucket = self.bucket(cell.hash);
            let first = self.cell(bucket).map_or(NONE, |cell| cell.bucket);
            if let Some(cell) = self.cell_mut(index) {
                cell.next = first;
            }
            if let Some(cell) = self.cell_mut(bucket) {
                cell.bucket = index;
            }
        }
    }

    fn unchain(&mut self, index: u32) {
        let Some(cell) = self.cell(index) else { return };
        let (next, bucket) = (cell.next, self.bucket(cell.hash));
        let mut before = NONE;
        let mut here = self.cell(bucket).map_or(NONE, |cell| cell.bucket);
        while here != index && here != NONE {
            before = here;
            here = self.cell(here).map_or(NONE, |cell| cell.next);
        }
        if before == NONE {
            if let Some(cell) = self.cell_mut(bucket) {
                cell.bucket = next;
            }
        } else if let Some(cell) = self.cell_mut(before) {
            cell.next = next;
        }
    }

    /// Out of the ready ring. The first leaves at once; another one is looked for, which only a removal asks.
    fn leave_ready(&mut self, index: u32) {
        let Some(next) = self.cell(index).map(|cell| cell.ready).filter(|next| *next != NONE) else { return };
        let last = next == index;
        let mut before = NONE;
        let mut here = self.ready_first;
        while here != index && here != NONE {
            before = here;
            here = self.cell(here).map_or(NONE, |cell| cell.ready);
        }
        if before == NONE {
            self.ready_first = if last { NONE } else { next };
        } else if let Some(cell) = self.cell_mut(before) {
            cell.ready = if last { before } else { next };
        }
        if last {
            self.ready_last = before;
        }
        if let Some(cell) = self.cell_mut(index) {
            cell.ready = NONE;
        }
    }

    /// The cell at a place of the heap.
    fn heap(&self, place: u32) -> u32 {
        self.cell(place).map_or(NONE, |cell| cell.heap)
    }

    fn due(&self, place: u32) -> Instant {
        self.cell(self.heap(place)).map_or(Instant::NEVER, |cell| cell.due)
    }

    fn put(&mut self, place: u32, index: u32) {
        if let Some(cell) = self.cell_mut(place) {
            cell.heap = index;
        }
        if let Some(cell) = self.cell_mut(index) {
            cell.at = place;
        }
    }

    fn swap(&mut self, a: u32, b: u32) {
        let (in_a, in_b) = (self.heap(a), self.heap(b));
        self.put(a, in_b);
        self.put(b, in_a);
    }

    fn rise(&mut self, mut place: u32) {
        while place > 0 {
            let parent = place.saturating_sub(1) / 4;
            if self.due(parent) <= self.due(place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: u32) {
        loop {
            let first = place.saturating_mul(4).saturating_add(1);
            let children = first..first.saturating_add(4).min(self.heap_len);
            let Some(least) = children.min_by_key(|child| self.due(*child)) else { return };
            if self.due(place) <= self.due(least) {
                return;
            }
            self.swap(least, place);
            place = least;
        }
    }
}

/// Equal if every cell is, so that whole hubs can be compared.
impl<T: PartialEq, S: Slots<Cell<T>>> PartialEq for Table<T, S> {
    fn eq(&self, other: &Self) -> bool {
        (self.len, self.span, self.free, self.ready_first, self.ready_last, self.heap_len)
            == (other.len, other.span, other.free, other.ready_first, other.ready_last, other.heap_len)
            && self.cells.as_ref() == other.cells.as_ref()
    }
}

impl<T: Eq, S: Slots<Cell<T>>> Eq for Table<T, S> {}

impl<T: Hash, S: Slots<Cell<T>>> Hash for Table<T, S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.len, self.ready_first, self.heap_len).hash(state);
        self.cells.as_ref().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;
    use std::collections::{BTreeMap, VecDeque};
    use std::vec::Vec;

    type Vector = Table<u64, Vec<Option<Cell<u64>>>>;

    /// Everything the table does, against maps and queues of the standard library.
    #[test]
    fn u1_a_table_behaves_as_its_model() {
        for seed in 0..30 {
            let mut rng = SplitMix64::new(seed);
            let most = 1 + rng.up_to(40) as usize;
            let mut table: Vector = Table::new(most, Vec::new());
            let mut items: BTreeMap<Key, u64> = BTreeMap::new();
            let mut due: BTreeMap<Key, Instant> = BTreeMap::new();
            let mut ready: VecDeque<Key> = VecDeque::new();
            let mut gone = Vec::new();
            for n in 0..3000_u64 {
                let pick = |rng: &mut SplitMix64, items: &BTreeMap<Key, u64>| {
                    let at = rng.up_to(items.len().max(1) as u64 - 1) as usize;
                    items.keys().nth(at).copied()
                };
                match rng.up_to(9) {
                    0..=2 => {
                        // Few hashes, so that chains are long.
                        match table.insert(n % 7, n) {
                            Ok(key) => {
                                assert!(items.insert(key, n).is_none(), "a key twice");
                                assert!(!gone.contains(&key));
                            }
                            Err(back) => assert_eq!((back, items.len()), (n, most)),
                        }
                    }
                    3 => {
                        if let Some(key) = pick(&mut rng, &items) {
                            assert_eq!(table.remove(key), items.remove(&key));
                            due.remove(&key);
                            ready.retain(|other| *other != key);
                            gone.push(key);
                        }
                    }
                    4..=5 => {
                        if let Some(key) = pick(&mut rng, &items) {
                            let at = (rng.up_to(4) > 0).then(|| Instant::from_micros(rng.up_to(1000)));
                            table.set_deadline(key, at);
                            match at {
                                Some(at) => drop(due.insert(key, at)),
                                None => drop(due.remove(&key)),
                            }
                        }
                    }
                    6..=7 => {
                        if let Some(key) = pick(&mut rng, &items) {
                            table.make_ready(key);
                            if !ready.contains(&key) {
                                ready.push_back(key);
                            }
                        }
                    }
                    8 => assert_eq!(table.next_ready(), ready.pop_front()),
                    _ => {
                        let now = Instant::from_micros(rng.up_to(1000));
                        if let Some(key) = table.next_due(now) {
                            let at = due.remove(&key).expect("it had a deadline");
                            assert!(at <= now && due.values().all(|other| *other >= at), "the earliest first");
                        } else {
                            assert!(due.values().all(|at| *at > now));
                        }
                    }
                }
                assert_eq!(table.len(), items.len());
                assert_eq!(table.has_room(), items.len() < most);
                assert_eq!(table.deadline(), due.values().min().copied());
                assert_eq!(table.any_ready(), !ready.is_empty());
                for (key, item) in &items {
                    assert_eq!(table.get(*key), Some(item));
                    assert_eq!(table.find(item % 7, |other| other == item), Some(*key));
                    assert_eq!(table.is_ready(*key), ready.contains(key));
                }
                assert!(gone.iter().all(|key| table.get(*key).is_none()), "an old key finds nothing");
            }
        }
    }

    #[test]
    fn u1_fixed_storage_holds_what_it_holds() {
        let mut table: Table<u8, [Option<Cell<u8>>; 2]> = Table::new(9, [None, None]);
        let first = table.insert(1, 1).unwrap();
        assert!(table.insert(2, 2).is_ok());
        assert!(!table.has_room(), "whatever the limit says");
        assert_eq!(table.insert(3, 3), Err(3));
        assert_eq!(table.remove(first), Some(1));
        let again = table.insert(3, 3).unwrap();
        assert_eq!((again.index(), table.get(first)), (first.index(), None));
        assert!(again.bits() != first.bits());
    }
}
