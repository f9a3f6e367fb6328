//! Which field of a login an original is from.

/// Which field of a login an original is from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `ip`, masked in the column `masked_ip`.
    Ip,
    /// `device_id`, masked in the column `masked_device_id`.
    DeviceId,
}

impl Kind {
    /// As the column `kind` of `sqs_vault` has it: `ip` or `device_id`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Ip => "ip",
            Kind::DeviceId => "device_id",
        }
    }

    /// The byte that stands for it in what is sealed.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Kind::Ip => 1,
            Kind::DeviceId => 2,
        }
    }

    pub(crate) fn of_byte(byte: u8) -> Option<Kind> {
        [Kind::Ip, Kind::DeviceId]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }

    /// Originals are padded to a multiple of this many bytes, so that their length tells little: every IPv4 and IPv6
    /// address without a long zone fits one block, and so does every UUID.
    pub(crate) fn block(self) -> usize {
        match self {
            Kind::Ip => 48,
            Kind::DeviceId => 64,
        }
    }
}
