//! Document ids: a `uuid` to Postgres, a Convex document id to clients.
//!
//! The text is base32 (Crockford's alphabet in lower case) of `varint(table number) ++ 16 bytes ++ fletcher16`, the
//! checksum in little-endian order (shared form of Convex' clients and exports). It tells its table, checks itself and,
//! for a version 7 uuid, sorts by creation.

use std::fmt;

use thiserror::Error;
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Five bytes of table number, sixteen of uuid, two of checksum.
const BYTES_MAX: usize = 23;

/// The id of a row: its table's number and its `uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentId {
    pub table: u32,
    pub uuid: Uuid,
}

/// Why a text is no document id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("an id has 31 to 37 characters, this one has {0}")]
    Length(usize),
    #[error("an id is written in `0-9a-z` without `i`, `l`, `o` and `u`")]
    Alphabet,
    #[error("the id's checksum does not match: it was mistyped or cut")]
    Checksum,
    #[error("the id's table number is out of range")]
    Table,
}

impl DocumentId {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if !(31..=37).contains(&text.len()) {
            return Err(IdError::Length(text.len()));
        }
        let mut buffer = [0u8; BYTES_MAX + 1];
        let bytes = decode_base32(text, &mut buffer)?;
        let (table, used) = read_varint(bytes).ok_or(IdError::Table)?;
        let rest = &bytes[used..];
        let Ok(rest) = <&[u8; 18]>::try_from(rest) else { return Err(IdError::Length(text.len())) };
        let (checked, checksum) = bytes.split_at(bytes.len() - 2);
        if checksum != fletcher16(checked).to_le_bytes() {
            return Err(IdError::Checksum);
        }
        let mut uuid = [0u8; 16];
        uuid.copy_from_slice(&rest[..16]);
        Ok(Self { table, uuid: Uuid::from_bytes(uuid) })
    }

    /// Appends the text form, which needs no escaping in JSON.
    pub fn write_to(&self, out: &mut String) {
        let mut bytes = [0u8; BYTES_MAX];
        let mut length = 0;
        let mut rest = self.table;
        loop {
            let low = (rest & 0x7f) as u8;
            rest >>= 7;
            bytes[length] = if rest == 0 { low } else { low | 0x80 };
            length += 1;
            if rest == 0 {
                break;
            }
        }
        bytes[length..length + 16].copy_from_slice(self.uuid.as_bytes());
        length += 16;
        let checksum = fletcher16(&bytes[..length]).to_le_bytes();
        bytes[length..length + 2].copy_from_slice(&checksum);
        encode_base32(&bytes[..length + 2], out);
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(37);
        self.write_to(&mut text);
        formatter.write_str(&text)
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u64;
    for (position, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            // A longer spelling of the same number would give one row two ids.
            let canonical = position == 0 || *byte != 0;
            return u32::try_from(value).ok().filter(|_| canonical).map(|value| (value, position + 1));
        }
    }
    None
}

/// Fletcher's checksum with two running sums modulo 255.
fn fletcher16(bytes: &[u8]) -> u16 {
    let (mut low, mut high) = (0u16, 0u16);
    for byte in bytes {
        low = (low + u16::from(*byte)) % 255;
        high = (high + low) % 255;
    }
    (high << 8) | low
}

fn encode_base32(bytes: &[u8], out: &mut String) {
    let (mut bits, mut count) = (0u32, 0);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(ALPHABET[(bits >> count) as usize & 31] as char);
        }
    }
    if count > 0 {
        out.push(ALPHABET[(bits << (5 - count)) as usize & 31] as char);
    }
}

fn decode_base32<'a>(text: &str, buffer: &'a mut [u8; BYTES_MAX + 1]) -> Result<&'a [u8], IdError> {
    let (mut bits, mut count, mut length) = (0u32, 0, 0);
    for character in text.bytes() {
        let digit = digit(character).ok_or(IdError::Alphabet)?;
        bits = (bits << 5) | u32::from(digit);
        count += 5;
        if count >= 8 {
            count -= 8;
            *buffer.get_mut(length).ok_or(IdError::Length(text.len()))? = (bits >> count) as u8;
            length += 1;
        }
    }
    // Padding bits that are not zero, or a whole superfluous character, would be a second spelling.
    if count >= 5 || bits & ((1 << count) - 1) != 0 {
        return Err(IdError::Checksum);
    }
    Ok(&buffer[..length])
}

fn digit(character: u8) -> Option<u8> {
    const DIGITS: [u8; 256] = {
        let mut digits = [255u8; 256];
        let mut value = 0;
        while value < 32 {
            digits[ALPHABET[value] as usize] = value as u8;
            value += 1;
        }
        digits
    };
    match DIGITS[character as usize] {
        255 => None,
        digit => Some(digit),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(table: u32, uuid: u128) {
            let id = DocumentId { table, uuid: Uuid::from_u128(uuid) };
            prop_assert_eq!(DocumentId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn sorts_as_its_uuid_within_a_table(table: u32, a: u128, b: u128) {
            let (a, b) = (Uuid::from_u128(a), Uuid::from_u128(b));
            let text = |uuid| DocumentId { table, uuid }.to_string();
            prop_assert_eq!(a.cmp(&b), text(a).cmp(&text(b)));
        }

        #[test]
        fn one_wrong_character_is_seen(table: u32, uuid: u128, at in 0usize..31, wrong in 0usize..32) {
            let id = DocumentId { table, uuid: Uuid::from_u128(uuid) };
            let mut text = id.to_string().into_bytes();
            prop_assume!(text[at] != ALPHABET[wrong]);
            text[at] = ALPHABET[wrong];
            let text = String::from_utf8(text).expect("ASCII");
            prop_assert_ne!(DocumentId::parse(&text), Ok(id));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(id) = DocumentId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(DocumentId::parse("short"), Err(IdError::Length(5)));
        assert_eq!(DocumentId::parse(&"u".repeat(32)), Err(IdError::Alphabet));
        assert_eq!(DocumentId::parse(&"z".repeat(32)), Err(IdError::Table));
    }
}
