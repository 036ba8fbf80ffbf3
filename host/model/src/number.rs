//! Numbers as JSON text writes them, exact: Postgres keeps every digit, and a float does not.

use thiserror::Error;

/// The digits that a number of a document may be written with; a float needs 17.
pub(crate) const NUMBER_DIGITS_MAX: usize = 1_000;
/// The exponent that a number of a document may be written with, either way: far beyond any float.
const EXPONENT_MAX: i64 = 2_000;

/// A number whose size no 64-bit float has, or with more digits than are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a number beyond what a 64-bit float holds")]
pub(crate) struct NumberError;

/// The parts of a number's text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal<'a> {
    text: &'a str,
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Takes a number of valid JSON apart.
    pub(crate) fn parse(text: &'a str) -> Result<Self, NumberError> {
        let (is_negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let exponent: i64 = exponent.parse().map_err(|_| NumberError)?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Ok(Self { text, is_negative, whole, fraction, exponent })
    }

    /// Whether a document may have it: Postgres takes it, and every reader finds a number of its size.
    pub(crate) fn check(&self) -> Result<(), NumberError> {
        let digits = self.whole.len() + self.fraction.len();
        if digits > NUMBER_DIGITS_MAX || self.exponent.abs() > EXPONENT_MAX {
            return Err(NumberError);
        }
        self.float().map(|_| ())
    }

    /// The nearest float. A zero below zero is zero, as it is to Postgres.
    pub(crate) fn float(&self) -> Result<f64, NumberError> {
        let float: f64 = self.text.parse().map_err(|_| NumberError)?;
        let vanished = float == 0.0 && self.digits().any(|digit| digit != b'0');
        if !float.is_finite() || vanished {
            return Err(NumberError);
        }
        Ok(if float == 0.0 { 0.0 } else { float })
    }

    /// The number without its fraction, or the end of `i64` beyond which it is.
    pub(crate) fn truncated(&self) -> i64 {
        let whole_digits = i64::try_from(self.whole.len()).unwrap_or(i64::MAX).saturating_add(self.exponent);
        let mut digits = self.digits();
        let mut value: i128 = 0;
        for _ in 0..whole_digits.max(0) {
            value = value * 10 + i128::from(digits.next().map_or(0, |digit| digit - b'0'));
            if value > i128::from(u64::MAX) {
                break;
            }
        }
        let value = if self.is_negative { -value } else { value };
        i64::try_from(value).unwrap_or(if self.is_negative { i64::MIN } else { i64::MAX })
    }

    /// The bytes by which Postgres' text, which has no exponents, is longer.
    pub(crate) fn growth(&self) -> usize {
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let behind = length(self.fraction).saturating_sub(self.exponent).max(0);
        let before = length(self.whole).saturating_add(self.exponent).max(1);
        let printed = before.saturating_add(behind).saturating_add(2);
        usize::try_from(printed.saturating_sub(length(self.text))).unwrap_or_default()
    }

    fn digits(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.whole.bytes().chain(self.fraction.bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal<'_> {
        Decimal::parse(text).expect("a number")
    }

    proptest! {
        #[test]
        fn integers_are_their_own(integer: i64, fraction in "[0-9]{1,20}") {
            prop_assert_eq!(decimal(&integer.to_string()).truncated(), integer);
            prop_assert_eq!(decimal(&format!("{integer}.{fraction}")).truncated(), integer);
        }

        #[test]
        fn an_exponent_moves_the_point(digits in 1_000u32..9_999, places in 0u32..4) {
            let written = decimal(&format!("{digits}e-{places}")).truncated();
            prop_assert_eq!(written, i64::from(digits) / 10_i64.pow(places));
            let written = decimal(&format!("0.00{digits}E+{}", places + 6)).truncated();
            prop_assert_eq!(written, i64::from(digits) * 10_i64.pow(places));
        }
    }

    #[test]
    fn what_no_float_holds_is_refused() {
        for text in ["1e309", "-1e400", "1e-400", "1e99999999999999999999", "0e3000"] {
            assert!(Decimal::parse(text).and_then(|number| number.check()).is_err(), "{text}");
        }
        assert!(decimal(&"1".repeat(1_001)).check().is_err());
        for text in ["0", "-0", "0.0e5", "1e308", "5e-324", "-1.7976931348623157e308", "123456789012345678901234567890"]
        {
            assert!(decimal(text).check().is_ok(), "{text}");
        }
        assert_eq!(decimal("-0.0").float().map(f64::to_bits), Ok(0));
        assert_eq!(decimal("1e30").truncated(), i64::MAX);
        assert_eq!(decimal("-92233720368547758080").truncated(), i64::MIN);
    }

    #[test]
    fn a_number_grows_by_the_zeros_of_its_exponent() {
        for (text, printed) in [("1e300", 301), ("1e-300", 302), ("1.5", 3), ("12", 2), ("-2.50e1", 5)] {
            let grown = text.len() + decimal(text).growth();
            assert!((printed..=printed + 2).contains(&grown), "{text}: {grown}");
        }
    }
}
