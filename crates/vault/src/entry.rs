//! A sealed original as it travels to the vault: in one piece, without allocations of its own.

use crate::{KeyId, Kind, Mask, Sealed};

/// What an `ip` of up to 47 bytes takes, and a `device_id` of up to 63.
const SHORT: usize = 106;

/// A row of `sqs_vault`, but for its days. Its data key is a row of `sqs_vault_key`.
///
/// Most are made on one thread and dropped on another, by the thousand, which allocators are bad at. So there is
/// nothing to allocate, unless an original is unusually long.
#[derive(Clone)]
pub struct Entry {
    mask: Mask,
    kind: Kind,
    key_id: KeyId,
    sealed: Bytes,
}

#[derive(Clone)]
enum Bytes {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Entry {
    /// The mask of the value.
    pub fn mask(&self) -> Mask {
        self.mask
    }

    /// Which field the original is from.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The data key that it is sealed with.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The sealed original, in the format of `docs/vault.md`.
    pub fn sealed(&self) -> &[u8] {
        match &self.sealed {
            Bytes::Short { length, bytes } => &bytes[..usize::from(*length)],
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl From<&Sealed> for Entry {
    fn from(sealed: &Sealed) -> Entry {
        Entry {
            mask: sealed.mask(),
            kind: sealed.kind(),
            key_id: sealed.key().id(),
            sealed: Bytes::from(sealed.bytes()),
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(from: &[u8]) -> Bytes {
        if from.len() > SHORT {
            return Bytes::Long(from.into());
        }
        let mut bytes = [0; SHORT];
        bytes[..from.len()].copy_from_slice(from);
        Bytes::Short {
            length: from.len() as u8,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_stay_as_they_are() {
        let all: Vec<u8> = (0..=250).collect();
        for length in 0..all.len() {
            let entry = Entry {
                mask: format!("{:064x}", 1).parse().unwrap(),
                kind: Kind::Ip,
                key_id: "df46b556-3601-8d5c-aec3-87c51d2b25be".parse().unwrap(),
                sealed: Bytes::from(&all[..length]),
            };
            assert_eq!(entry.sealed(), &all[..length]);
        }
    }
}
