//! Timestamps: nanoseconds since 1970, on the wire 8 bytes, little-endian, in base64 (1.3).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

const BYTES: usize = size_of::<u64>();

/// A commit's time. Unique to a commit, and later for a later one; clients compare them and nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Why a text or number is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimestampError {
    #[error("a timestamp is 8 bytes in base64 with padding")]
    Text,
    #[error("the timestamp {0} is larger than a signed integer of 64 bits")]
    TooLarge(u64),
}

impl Timestamp {
    /// Before every commit: the version with which each socket begins.
    pub const MIN: Self = Self(0);

    /// The bound that Convex' clients check.
    pub const MAX: Self = Self(i64::MAX as u64);

    pub const fn from_nanos(nanos: u64) -> Result<Self, TimestampError> {
        if nanos > Self::MAX.0 { Err(TimestampError::TooLarge(nanos)) } else { Ok(Self(nanos)) }
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// As it travels: `AAAAAAAAAAA=` is 0.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0.to_le_bytes())
    }

    pub fn from_base64(text: &str) -> Result<Self, TimestampError> {
        let mut bytes = [0; BYTES + 1];
        match STANDARD.decode_slice(text, &mut bytes) {
            Ok(BYTES) => {}
            _ => return Err(TimestampError::Text),
        }
        let bytes = bytes.first_chunk().ok_or(TimestampError::Text)?;
        Self::from_nanos(u64::from_le_bytes(*bytes))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a timestamp in base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::from_base64(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn travels_as_little_endian_base64() {
        assert_eq!(Timestamp::MIN.to_base64(), "AAAAAAAAAAA=");
        assert_eq!(Timestamp::from_nanos(1).map(Timestamp::to_base64).as_deref(), Ok("AQAAAAAAAAA="));
        assert_eq!(Timestamp::MAX.to_base64(), "/////////38=");
        let json: Timestamp = serde_json::from_str("\"AQAAAAAAAAA=\"").expect("a timestamp");
        assert_eq!(json.nanos(), 1);
    }

    #[test]
    fn refuses_other_spellings() {
        for text in
            ["", "AAAAAAAAAAA", "AAAAAAAAAAB=", "AAAAAAAAAAAA", "AAAAAAAAAA==", "AAAAAAAAAAAAAAAA", "AAAAAAAAA*A="]
        {
            assert_eq!(Timestamp::from_base64(text), Err(TimestampError::Text), "{text}");
        }
        assert_eq!(Timestamp::from_base64("//////////8="), Err(TimestampError::TooLarge(u64::MAX)));
        assert!(serde_json::from_str::<Timestamp>("1").is_err());
    }

    proptest! {
        #[test]
        fn survives_both_ways(nanos in 0..=i64::MAX as u64) {
            let timestamp = Timestamp::from_nanos(nanos).expect("in bounds");
            prop_assert_eq!(Timestamp::from_base64(&timestamp.to_base64()), Ok(timestamp));
        }
    }
}
