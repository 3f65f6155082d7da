//! Where a random script's choices come from: a seed, or the bytes that a fuzzer has thought out.

use bowline::SplitMix64;

/// A source of numbers.
///
/// ```
/// use bowline_tests::sim::Choices;
/// let mut bytes = Choices::bytes(&[7, 200, 1]);
/// assert_eq!((bytes.up_to(9), bytes.up_to(99), bytes.is_over()), (7, 0, false));
/// assert_eq!((bytes.up_to(9), bytes.is_over(), bytes.up_to(9)), (1, true, 0));
/// ```
#[derive(Clone, Debug)]
pub enum Choices {
    /// Without end, and the same for the same seed.
    Seed(SplitMix64),
    /// As long as there are any; zero from then on. What is left, the first one last.
    Bytes(Vec<u8>),
}

impl Choices {
    /// The numbers of this seed.
    #[must_use]
    pub const fn seed(seed: u64) -> Self {
        Self::Seed(SplitMix64::new(seed))
    }

    /// One number from each byte; a number above 255 takes as many bytes as it needs.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.iter().rev().copied().collect())
    }

    /// The next number, at most this.
    pub fn up_to(&mut self, most: u64) -> u64 {
        match self {
            Self::Seed(rng) => rng.up_to(most),
            Self::Bytes(bytes) => {
                let (mut number, mut reach) = (0, 0);
                while reach < most {
                    number = number << 8 | u64::from(bytes.pop().unwrap_or_default());
                    reach = reach << 8 | 255;
                }
                if most == u64::MAX { number } else { number % (most + 1) }
            }
        }
    }

    /// No byte is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Seed(_) => false,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}
