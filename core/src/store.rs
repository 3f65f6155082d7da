//! Storage that lies in one piece and has no holes: of a fixed number of places, or growing.
//!
//! ```text
//! Fixed<T, N>    a `heapless::Vec`: N places inside their owner; no allocator, works on a microcontroller
//! Vec<T>         feature `alloc`: takes memory when it is first needed, up to the limit that it is asked for
//! ```
//!
//! Both are reached through [`Store`], so what uses them is written once and has no foreign type in its bounds.
//! [`Slots`](crate::Slots) is the storage of what has holes by its nature, such as a ring.
//!
//! Invariants: a store becomes shorter only by `clear`; a refusal to grow leaves it as it was.

use core::fmt;

/// Storage for `T` that grows at its end: a [`Fixed`], or a vector.
///
/// ```
/// use bowline::{Fixed, Store};
/// let mut fixed = Fixed::<u8, 2>::new();
/// assert_eq!(fixed.limit(), 2);
/// assert!(fixed.grow(9, || 7) && fixed.as_ref() == [7, 7]);
/// assert!(!fixed.grow(9, || 7), "there are no more places");
/// ```
pub trait Store<T>: AsRef<[T]> + AsMut<[T]> {
    /// Adds places at the end, filled by `vacant`, up to `most` in all; false: there are no more.
    fn grow(&mut self, most: usize, vacant: impl FnMut() -> T) -> bool;

    /// Takes all places away.
    fn clear(&mut self);

    /// How many places there can be.
    fn limit(&self) -> usize;
}

/// Storage of `N` places that lies inside its owner.
///
/// ```
/// use bowline::Fixed;
/// assert!(Fixed::<u64, 4>::new().as_ref().is_empty(), "what uses it fills it");
/// assert!(size_of::<Fixed<u64, 4>>() <= 40);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fixed<T, const N: usize>(heapless::Vec<T, N>);

impl<T, const N: usize> Fixed<T, N> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(heapless::Vec::new())
    }
}

impl<T, const N: usize> Default for Fixed<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> AsRef<[T]> for Fixed<T, N> {
    fn as_ref(&self) -> &[T] {
        self.0.as_slice()
    }
}

impl<T, const N: usize> AsMut<[T]> for Fixed<T, N> {
    fn as_mut(&mut self) -> &mut [T] {
        self.0.as_mut_slice()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Fixed<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_ref()).finish()
    }
}

/// All places at once: they are there already.
impl<T, const N: usize> Store<T> for Fixed<T, N> {
    fn grow(&mut self, most: usize, mut vacant: impl FnMut() -> T) -> bool {
        let before = self.0.len();
        while self.0.len() < most && self.0.push(vacant()).is_ok() {}
        self.0.len() > before
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn limit(&self) -> usize {
        N
    }
}

/// Twice as many places as before; false also if the system has no memory.
#[cfg(feature = "alloc")]
impl<T> Store<T> for alloc::vec::Vec<T> {
    fn grow(&mut self, most: usize, vacant: impl FnMut() -> T) -> bool {
        let before = self.len();
        let wanted = before.saturating_mul(2).max(4).min(most);
        // Exactly: a vector's own doubling would go beyond the limit.
        if wanted <= before || self.try_reserve_exact(wanted.saturating_sub(before)).is_err() {
            return false;
        }
        self.resize_with(wanted, vacant);
        true
    }

    fn clear(&mut self) {
        Self::clear(self);
    }

    fn limit(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_grows_to_its_limit_and_no_further() {
        fn grown<S: Store<u8>>(mut store: S, most: usize) -> usize {
            while store.grow(most, || 0) {
                assert!(store.as_ref().len() <= most.min(store.limit()));
            }
            store.as_mut().len()
        }
        for most in 0..20 {
            assert_eq!(grown(Fixed::<u8, 7>::new(), most), most.min(7));
            assert_eq!(grown(std::vec::Vec::new(), most), most);
        }
    }

    #[test]
    fn a_vector_has_no_memory_beyond_its_limit() {
        let mut store = std::vec::Vec::new();
        while store.grow(1000, || [0_u8; 40]) {}
        assert_eq!((store.len(), store.capacity()), (1000, 1000));
    }
}
