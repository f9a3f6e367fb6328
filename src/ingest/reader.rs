//! What becomes of a body on the I/O thread: a masked login, and what is kept of its originals.

use login::{Decoder, Mask, MaskedLogin, Rejection};

use crate::vault::{Originals, OriginalsSealer, check_length};

/// Reads bodies. All that leaves it is masked or sealed.
pub struct Reader {
    decoder: Decoder,
    originals: Keep,
}

/// What is kept of originals.
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Nothing, but what could not be kept is rejected as if they were.
    NothingButCheck,
    /// All of them, sealed.
    Sealed(OriginalsSealer),
}

/// What reading makes of a body.
pub type Content = Result<Login, Rejection>;

/// A login as it leaves the I/O thread.
pub struct Login {
    /// The masked login.
    pub masked: MaskedLogin,
    /// What is kept of what was masked.
    pub originals: Originals,
}

impl Reader {
    /// A reader that keeps this of originals.
    pub fn new(decoder: Decoder, originals: Keep) -> Reader {
        Reader { decoder, originals }
    }

    /// Reads one body.
    ///
    /// # Errors
    /// Why it is not a login that can be stored.
    pub fn read(&self, body: &str) -> Content {
        let (masked, originals) = match &self.originals {
            Keep::Nothing => (self.decoder.decode(body), Originals::NotKept),
            Keep::NothingButCheck => {
                let mut check = |_, _: &Mask, original: &str| check_length(original);
                let masked = self.decoder.decode_and_keep(body, &mut check);
                (masked, Originals::NotKept)
            }
            Keep::Sealed(sealer) => sealer.with(|keep| self.decoder.decode_and_keep(body, keep)),
        };
        masked.map(|masked| Login { masked, originals })
    }
}
