//! Originals as they leave the I/O thread: sealed.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use login::{Mask, Masked, Rule};
use vault::{CachingSealer, Entry, KeyId, Kind, Recipients, SealError, WrappedKey};

/// Values whose sealed originals a process remembers; a value that is among them costs a look-up.
const REMEMBERED: usize = 16_384;

/// Characters that a sealed original may have. Masks have one size whatever the message contains, but what is sealed
/// lies in memory until its transaction commits, and then in the vault.
const LONGEST: usize = 1_024;

/// What is kept of the originals behind one masked login.
#[derive(Default)]
pub enum Originals {
    /// Nothing, because there was no vault when the message arrived.
    #[default]
    NotKept,
    /// Those that the login has, sealed. Boxed, so that messages are no larger where there is no vault.
    Sealed(Box<[Option<Entry>; 2]>),
    /// They could not be sealed.
    NotSealed(SealError),
}

impl Originals {
    /// The entries that the vault is to have.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let sealed: &[_] = match self {
            Originals::Sealed(sealed) => &**sealed,
            Originals::NotKept | Originals::NotSealed(_) => &[],
        };
        sealed.iter().flatten()
    }
}

/// Seals originals on the I/O thread. All of a process share data keys, and what is remembered.
pub struct OriginalsSealer(Arc<Mutex<CachingSealer>>);

thread_local! {
    /// The sealer of this process, on the backend's thread.
    static SEALER: RefCell<Option<Arc<Mutex<CachingSealer>>>> = const { RefCell::new(None) };
}

/// The wrapped form of a data key that this process sealed with. On the backend's thread.
pub fn wrapped_key(id: KeyId) -> Option<Arc<WrappedKey>> {
    SEALER.with_borrow(|sealer| lock(sealer.as_ref()?).wrapped_key(id))
}

/// Wipes the data key in use, where originals are not kept any more. On the backend's thread.
pub fn wipe_data_key() {
    SEALER.with_borrow(|sealer| {
        if let Some(sealer) = sealer {
            lock(sealer).wipe();
        }
    });
}

impl OriginalsSealer {
    /// A sealer for `recipients`. On the backend's thread.
    pub fn new(recipients: &Recipients) -> OriginalsSealer {
        SEALER.with_borrow_mut(|sealer| match sealer {
            Some(sealer) => {
                lock(sealer).set_recipients(recipients.clone());
                OriginalsSealer(Arc::clone(sealer))
            }
            None => {
                let new = CachingSealer::new(recipients.clone(), REMEMBERED);
                OriginalsSealer(Arc::clone(sealer.insert(Arc::new(Mutex::new(new)))))
            }
        })
    }

    /// Wipes the data key of this process if it has served its time. On any thread.
    pub fn wipe_if_spent(&self) {
        lock(&self.0).wipe_if_spent();
    }

    /// Calls `decode` with a receiver for the originals of one login, and returns what became of them.
    pub fn with<R>(
        &self,
        decode: impl FnOnce(&mut dyn FnMut(Masked, &Mask, &str) -> Result<(), Rule>) -> R,
    ) -> (R, Originals) {
        let mut sealer = lock(&self.0);
        let mut sealed = Box::new([None, None]);
        let mut error = None;
        let decoded = decode(&mut |field, mask, original| {
            check_length(original)?;
            let (kind, place) = match field {
                Masked::Ip => (Kind::Ip, 0),
                Masked::DeviceId => (Kind::DeviceId, 1),
            };
            match sealer.seal(kind, vault_mask(mask), original) {
                Ok(entry) => sealed[place] = Some(entry),
                Err(why) => error = Some(why),
            }
            Ok(())
        });
        let originals = match error {
            None => Originals::Sealed(sealed),
            Some(why) => Originals::NotSealed(why),
        };
        (decoded, originals)
    }
}

/// Whether the vault takes an original of this length.
///
/// # Errors
/// The rule that it breaks.
pub fn check_length(original: &str) -> Result<(), Rule> {
    if original.len() > LONGEST && original.chars().count() > LONGEST {
        return Err(Rule::TooLong { max: LONGEST });
    }
    Ok(())
}

/// A panic elsewhere leaves no half-made data key: sealing makes one in a single step.
fn lock(sealer: &Mutex<CachingSealer>) -> std::sync::MutexGuard<'_, CachingSealer> {
    sealer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::expect_used,
    reason = "both crates' masks are 64 lower-case hex digits"
)]
pub fn vault_mask(mask: &Mask) -> vault::Mask {
    mask.as_str().parse().expect("a mask of 64 hex digits")
}

#[cfg(test)]
mod tests {
    use login::{Decoder, Masker, VersionEncoding};

    use super::*;

    const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    fn read(
        ip: &str,
        device_id: &str,
    ) -> (Result<login::MaskedLogin, login::Rejection>, Originals) {
        let recipients = Recipients::parse(RECIPIENT.as_bytes()).unwrap();
        let body = format!(
            r#"{{"user_id": "u", "app_version": "1.0", "device_type": null, "ip": {ip}, "device_id": {device_id}}}"#
        );
        let decoder = Decoder::new(Masker::plain(), VersionEncoding::Digits);
        OriginalsSealer::new(&recipients).with(|keep| decoder.decode_and_keep(&body, keep))
    }

    #[test]
    fn what_a_login_has_is_sealed_under_its_masks() {
        let (login, originals) = read(r#""10.0.0.1""#, r#""593-47-5928""#);
        let login = login.unwrap();
        let sealed: Vec<(Kind, String)> = originals
            .entries()
            .map(|entry| (entry.kind(), entry.mask().to_string()))
            .collect();
        assert_eq!(
            sealed,
            [
                (Kind::Ip, login.masked_ip().unwrap().to_owned()),
                (Kind::DeviceId, login.masked_device_id().unwrap().to_owned()),
            ]
        );
        let (_, nulls) = read("null", "null");
        assert_eq!(nulls.entries().count(), 0);
        assert!(matches!(nulls, Originals::Sealed(_)));
    }

    #[test]
    fn an_original_may_have_1024_characters() {
        let longest = format!("{:?}", "é".repeat(1_024));
        let too_long = format!("{:?}", "é".repeat(1_025));
        assert!(read(&longest, &longest).0.is_ok());
        let rejection = read("null", &too_long).0.unwrap_err();
        assert_eq!(
            rejection.to_string(),
            "device_id is longer than 1024 characters"
        );
    }
}
