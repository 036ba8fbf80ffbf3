//! Randomness from the host: a seed of the call's own, so that no two instances of a component ever share one.

use std::ops::Range;

use crate::bindings::convoke::runtime::context;

/// What the host gives at once.
const BYTES_MAX: usize = 65_536;

/// The call's source of randomness.
#[derive(Debug)]
pub struct Rng(());

impl Rng {
    pub(crate) const fn new() -> Self {
        Self(())
    }

    /// Random bytes, this many.
    pub fn bytes(&self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            bytes.extend(context::random((count - bytes.len()).min(BYTES_MAX) as u32));
        }
        bytes
    }

    /// Any `u32`.
    pub fn u32(&self) -> u32 {
        u32::from_le_bytes(array())
    }

    /// Any `u64`.
    pub fn u64(&self) -> u64 {
        u64::from_le_bytes(array())
    }

    /// At least 0, below 1.
    pub fn f64(&self) -> f64 {
        unit_interval(self.u64())
    }

    /// One of the numbers of the range, each as likely as the other.
    ///
    /// # Panics
    ///
    /// When the range is empty.
    pub fn range<N: Integer>(&self, range: Range<N>) -> N {
        let (low, high) = (range.start.into_wide(), range.end.into_wide());
        assert!(low < high, "`range` needs a range with a number in it");
        let bound = (high - low).unsigned_abs() as u64;
        N::from_wide(low + i128::from(below(bound, || self.u64())))
    }
}

fn array<const SIZE: usize>() -> [u8; SIZE] {
    let mut array = [0; SIZE];
    array.copy_from_slice(&context::random(SIZE as u32));
    array
}

/// An integer that [`Rng::range`] can draw.
pub trait Integer: Copy + sealed::Sealed {
    #[doc(hidden)]
    fn into_wide(self) -> i128;
    #[doc(hidden)]
    fn from_wide(wide: i128) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl sealed::Sealed for $integer {}

        #[allow(clippy::cast_lossless, clippy::cast_sign_loss, reason = "a draw is within the range of its own type")]
        impl Integer for $integer {
            fn into_wide(self) -> i128 {
                self as i128
            }

            fn from_wide(wide: i128) -> Self {
                wide as $integer
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

/// The 53 bits that an `f64` between 0 and 1 has.
fn unit_interval(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number below the bound, without the bias of a plain remainder: draws from the last, incomplete round are thrown away.
fn below(bound: u64, mut draw: impl FnMut() -> u64) -> u64 {
    let rest = (u64::MAX % bound + 1) % bound;
    loop {
        let drawn = draw();
        if drawn <= u64::MAX - rest {
            return drawn % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_stays_below_one() {
        assert_eq!(unit_interval(0).to_bits(), 0.0_f64.to_bits());
        assert!(unit_interval(u64::MAX) < 1.0);
    }

    #[test]
    fn the_incomplete_round_is_thrown_away() {
        // 2^64 = 6,148,914,691,236,517,205 * 3 + 1: the last number is one too many.
        let mut draws = [u64::MAX, 7].into_iter();
        assert_eq!(below(3, || draws.next().unwrap_or_default()), 1);
        assert_eq!(below(1, || u64::MAX), 0);
        assert_eq!(below(u64::MAX, || 5), 5);
    }

    #[test]
    fn wide_numbers_come_back_as_they_were() {
        assert_eq!(i64::from_wide(i64::MIN.into_wide()), i64::MIN);
        assert_eq!(u64::from_wide(u64::MAX.into_wide()), u64::MAX);
    }
}
