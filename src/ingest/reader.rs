//! What becomes of a body on the I/O thread: a masked login, and what is kept of its originals.

use login::{Decoder, MaskedLogin, Rejection};

use crate::vault::{Originals, OriginalsSealer};

/// Reads bodies. All that leaves it is masked or sealed.
pub struct Reader {
    decoder: Decoder,
    sealer: Option<OriginalsSealer>,
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
    /// A reader that keeps originals if it has a sealer.
    pub fn new(decoder: Decoder, sealer: Option<OriginalsSealer>) -> Reader {
        Reader { decoder, sealer }
    }

    /// Reads one body.
    ///
    /// # Errors
    /// Why it is not a login that can be stored.
    pub fn read(&self, body: &str) -> Content {
        let (masked, originals) = match &self.sealer {
            None => (self.decoder.decode(body), Originals::NotKept),
            Some(sealer) => sealer.with(|keep| self.decoder.decode_and_keep(body, keep)),
        };
        masked.map(|masked| Login { masked, originals })
    }
}
