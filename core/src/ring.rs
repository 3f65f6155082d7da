//! A ring in order of arrival over storage of the caller's choice, one copy of the code for every capacity.
//!
//! ```text
//! slots  [ · · a b c · ]     Ring<T>                     any capacity, behind a reference
//!              ▲     ▲       Ring<T, [Option<T>; N]>     inline, works in a static
//!            head  head+len  Ring<T, Vec<Option<T>>>     chosen at run time
//! ```
//!
//! Invariants: exactly the `len` slots from `head` on are occupied, in the order in which they were pushed, also after one
//! was taken from the middle; a full ring hands the item back; no index panics.
//! Own code on purpose: capacity is a public promise of the machines, and no foreign type should stand in their bounds.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

/// Storage for `T`: an array, a slice, a vector, or a mutable reference to one.
///
/// ```
/// fn takes(_: impl bowline::Slots<u8>) {}
/// takes([None, None]);
/// ```
pub trait Slots<T>: AsRef<[Option<T>]> + AsMut<[Option<T>]> {
    /// Adds empty places at the end, up to `most` in all; false: there are no more. Only a vector has more.
    fn grow(&mut self, most: usize) -> bool {
        let _ = most;
        false
    }

    /// How many places there can be.
    fn limit(&self) -> usize {
        self.as_ref().len()
    }
}

impl<T, const N: usize> Slots<T> for [Option<T>; N] {}

impl<T> Slots<T> for [Option<T>] {}

impl<T, S: Slots<T> + ?Sized> Slots<T> for &mut S {
    fn grow(&mut self, most: usize) -> bool {
        (**self).grow(most)
    }

    fn limit(&self) -> usize {
        (**self).limit()
    }
}

/// It begins as long as it is and doubles when it must.
#[cfg(feature = "alloc")]
impl<T> Slots<T> for alloc::vec::Vec<Option<T>> {
    fn grow(&mut self, most: usize) -> bool {
        let len = self.len();
        let more = len.saturating_mul(2).max(4).min(most);
        if more > len {
            self.resize_with(more, || None);
        }
        more > len
    }

    fn limit(&self) -> usize {
        usize::MAX
    }
}

/// The ring. Two rings are equal if they hold the same items and capacity, wherever those lie.
///
/// ```
/// use bowline::Ring;
/// let mut inline = Ring::new([None, None]);
/// let ring: &mut Ring<u8> = &mut inline; // the capacity is erased
/// assert_eq!(ring.push(1), Ok(()));
/// assert_eq!(ring.push(2), Ok(()));
/// assert_eq!(ring.push(3), Err(3), "full hands the item back");
/// assert_eq!(ring.pop(), Some(1));
/// ```
#[derive(Clone)]
pub struct Ring<T, S: ?Sized = [Option<T>]> {
    head: usize,
    len: usize,
    item: PhantomData<T>,
    slots: S,
}

impl<T, S: Slots<T>> Ring<T, S> {
    /// An empty ring; whatever the storage held is dropped.
    pub fn new(mut slots: S) -> Self {
        for slot in slots.as_mut() {
            *slot = None;
        }
        Self { head: 0, len: 0, item: PhantomData, slots }
    }
}

impl<T, S: Slots<T> + ?Sized> Ring<T, S> {
    /// How many items it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.as_ref().len()
    }

    /// How many items it can hold when its storage has grown.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.slots.limit()
    }

    /// How many items it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an item, or hands it back if the ring is full.
    ///
    /// # Errors
    /// The item itself.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let Some(at) = self.index(self.len) else { return Err(item) };
        match self.slots.as_mut().get_mut(at) {
            Some(slot) => {
                *slot = Some(item);
                self.len = self.len.saturating_add(1);
                Ok(())
            }
            None => Err(item),
        }
    }

    /// Makes room for one more if the storage can grow, to `most` places at the most.
    pub fn make_room(&mut self, most: usize) {
        let before = self.capacity();
        if self.len == before && self.slots.grow(most) {
            // What lies before the head is the end of the ring: the new places must follow it.
            if let Some(old) = self.slots.as_mut().get_mut(..before) {
                old.rotate_left(self.head.min(old.len()));
            }
            self.head = 0;
        }
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.remove(0)
    }

    /// Takes the item `offset` places after the oldest. The items on its shorter side move by one place.
    pub fn remove(&mut self, offset: usize) -> Option<T> {
        if offset >= self.len {
            return None;
        }
        let item = self.take(offset);
        let behind = self.len.saturating_sub(offset).saturating_sub(1);
        if offset <= behind {
            for free in (1..=offset).rev() {
                let moved = self.take(free.saturating_sub(1));
                self.put(free, moved);
            }
            // With a capacity of one there is no next place: it starts over.
            self.head = self.index(1).unwrap_or(0);
        } else {
            for from in offset.saturating_add(1)..self.len {
                let moved = self.take(from);
                self.put(from.saturating_sub(1), moved);
            }
        }
        self.len = self.len.saturating_sub(1);
        item
    }

    fn take(&mut self, offset: usize) -> Option<T> {
        let at = self.index(offset)?;
        self.slots.as_mut().get_mut(at)?.take()
    }

    fn put(&mut self, offset: usize, item: Option<T>) {
        if let Some(at) = self.index(offset)
            && let Some(slot) = self.slots.as_mut().get_mut(at)
        {
            *slot = item;
        }
    }

    /// The item `offset` places after the oldest.
    #[must_use]
    pub fn get(&self, offset: usize) -> Option<&T> {
        if offset >= self.len {
            return None;
        }
        self.slots.as_ref().get(self.index(offset)?)?.as_ref()
    }

    /// The item `offset` places after the oldest, to change.
    pub fn get_mut(&mut self, offset: usize) -> Option<&mut T> {
        if offset >= self.len {
            return None;
        }
        let at = self.index(offset)?;
        self.slots.as_mut().get_mut(at)?.as_mut()
    }

    /// All items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|offset| self.get(offset))
    }

    /// Where the item `offset` places after the oldest lies; `None` beyond the capacity.
    fn index(&self, offset: usize) -> Option<usize> {
        let capacity = self.capacity();
        if offset >= capacity {
            return None;
        }
        let at = self.head.saturating_add(offset);
        Some(if at >= capacity { at.saturating_sub(capacity) } else { at })
    }
}

impl<T: PartialEq, S: Slots<T> + ?Sized> PartialEq for Ring<T, S> {
    fn eq(&self, other: &Self) -> bool {
        self.capacity() == other.capacity() && self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Eq, S: Slots<T> + ?Sized> Eq for Ring<T, S> {}

impl<T: Hash, S: Slots<T> + ?Sized> Hash for Ring<T, S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len.hash(state);
        for item in self.iter() {
            item.hash(state);
        }
    }
}

impl<T: fmt::Debug, S: Slots<T> + ?Sized> fmt::Debug for Ring<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn behaves_as_a_bounded_deque_for_every_capacity() {
        for capacity in 0..5_usize {
            let mut ring: Ring<u32, std::vec::Vec<Option<u32>>> = Ring::new((0..capacity).map(|_| None).collect());
            let mut model = VecDeque::new();
            let mut rng = crate::SplitMix64::new(capacity as u64);
            for n in 0..2000 {
                match rng.up_to(3) {
                    0 | 1 => {
                        let expected = if model.len() < capacity { Ok(()) } else { Err(n) };
                        if expected.is_ok() {
                            model.push_back(n);
                        }
                        assert_eq!(ring.push(n), expected);
                    }
                    2 => assert_eq!(ring.pop(), model.pop_front()),
                    _ => {
                        let offset = usize::try_from(rng.up_to(capacity as u64)).unwrap();
                        assert_eq!(ring.remove(offset), model.remove(offset), "from the middle");
                    }
                }
                assert_eq!(ring.iter().copied().collect::<VecDeque<_>>(), model);
                assert_eq!(ring.get(model.len()), None);
                assert_eq!(ring.get_mut(0).copied(), model.front().copied());
            }
        }
    }

    #[test]
    fn a_ring_that_grows_behaves_as_a_bounded_deque() {
        for most in 1..20_usize {
            let mut ring: Ring<u32, std::vec::Vec<Option<u32>>> = Ring::new(std::vec::Vec::new());
            let mut model = VecDeque::new();
            let mut rng = crate::SplitMix64::new(most as u64);
            for n in 0..500 {
                if rng.up_to(2) > 0 {
                    ring.make_room(most);
                    let expected = if model.len() < most { Ok(()) } else { Err(n) };
                    if expected.is_ok() {
                        model.push_back(n);
                    }
                    assert_eq!(ring.push(n), expected);
                } else {
                    let offset = usize::try_from(rng.up_to(2)).unwrap();
                    assert_eq!(ring.remove(offset), model.remove(offset));
                }
                assert_eq!(ring.iter().copied().collect::<VecDeque<_>>(), model);
            }
        }
    }

    #[test]
    fn equality_is_by_content_not_by_place() {
        let mut moved = Ring::new([None, None]);
        let mut fresh = Ring::new([None, None]);
        assert_eq!(moved.push(0), Ok(()));
        assert_eq!(moved.pop(), Some(0));
        assert_eq!(moved.push(1), Ok(()));
        assert_eq!(fresh.push(1), Ok(()));
        assert_eq!(moved, fresh);
        assert_eq!(std::format!("{moved:?}"), "[1]");
    }
}
