//! A login, raw and masked, and the rules that lie between the two.

use std::borrow::Cow;

use crate::address;
use crate::field::Field;
use crate::{Mask, Masker, Rejection, Rule, VersionEncoding};

/// Which field of a login is masked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masked {
    /// `ip`.
    Ip,
    /// `device_id`.
    DeviceId,
}

impl Masked {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Masked::Ip => "ip",
            Masked::DeviceId => "device_id",
        }
    }
}

/// Characters that the column `user_id` holds.
const USER_ID_MAX: usize = 128;
/// Characters that the column `device_type` holds.
const DEVICE_TYPE_MAX: usize = 32;
/// Characters that the column `locale` holds.
const LOCALE_MAX: usize = 32;

/// A login as the message has it. No `Debug`, no `Display`, no `Serialize`: it cannot get into a log.
#[derive(Default)]
pub(crate) struct RawLogin<'a> {
    pub(crate) user_id: Field<'a>,
    pub(crate) app_version: Field<'a>,
    pub(crate) device_type: Field<'a>,
    pub(crate) ip: Field<'a>,
    pub(crate) locale: Field<'a>,
    pub(crate) device_id: Field<'a>,
}

impl RawLogin<'_> {
    /// Whether not one key of a login was there.
    pub(crate) fn is_absent(&self) -> bool {
        self.user_id.is_absent()
            && self.app_version.is_absent()
            && self.device_type.is_absent()
            && self.ip.is_absent()
            && self.locale.is_absent()
            && self.device_id.is_absent()
    }

    /// Checks every field before the first hash is computed. The first broken rule, in the order below, is the reason.
    /// `keep` gets each original with its mask, and may refuse it.
    pub(crate) fn mask(
        self,
        masker: &Masker,
        encoding: VersionEncoding,
        keep: &mut impl FnMut(Masked, &Mask, &str) -> Result<(), Rule>,
    ) -> Result<MaskedLogin, Rejection> {
        let user_id = self.user_id.text("user_id")?;
        let user_id = within("user_id", user_id, USER_ID_MAX)?;
        let app_version = self.app_version.text("app_version")?;
        let app_version = encoding
            .encode(&app_version)
            .map_err(|rule| Rejection::of_field("app_version", rule))?;
        let device_type = self.device_type.text_or_null("device_type")?;
        let device_type = within_if_any("device_type", device_type, DEVICE_TYPE_MAX)?;
        let ip = self.ip.text_or_null("ip")?;
        let locale = self.locale.text_if_any("locale")?;
        let locale = within_if_any("locale", locale, LOCALE_MAX)?;
        let device_id = self.device_id.text_or_null("device_id")?;

        let mut masked = |field: Masked, original: Option<Cow<str>>| {
            let Some(original) = original else {
                return Ok(None);
            };
            let mask = match field {
                Masked::Ip => masker.mask(&address::canonical(&original)),
                Masked::DeviceId => masker.mask(&original),
            };
            match keep(field, &mask, &original) {
                Ok(()) => Ok(Some(mask)),
                Err(rule) => Err(Rejection::of_field(field.name(), rule)),
            }
        };
        Ok(MaskedLogin {
            user_id,
            device_type,
            masked_ip: masked(Masked::Ip, ip)?,
            masked_device_id: masked(Masked::DeviceId, device_id)?,
            locale,
            app_version,
        })
    }
}

fn within_if_any(
    name: &'static str,
    text: Option<Cow<str>>,
    max: usize,
) -> Result<Option<String>, Rejection> {
    text.map(|text| within(name, text, max)).transpose()
}

fn within(name: &'static str, text: Cow<str>, max: usize) -> Result<String, Rejection> {
    let fits = text.len() <= max || text.chars().count() <= max;
    if fits {
        Ok(text.into_owned())
    } else {
        Err(Rejection::of_field(name, Rule::TooLong { max }))
    }
}

/// A login ready to insert. Its address and device id are masked by construction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaskedLogin {
    user_id: String,
    device_type: Option<String>,
    masked_ip: Option<Mask>,
    masked_device_id: Option<Mask>,
    locale: Option<String>,
    app_version: i32,
}

impl MaskedLogin {
    /// The user id: at most 128 characters, without U+0000.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// What was logged in from: at most 32 characters, without U+0000.
    pub fn device_type(&self) -> Option<&str> {
        self.device_type.as_deref()
    }

    /// The mask of the address, 64 hex digits.
    pub fn masked_ip(&self) -> Option<&str> {
        self.masked_ip.as_ref().map(Mask::as_str)
    }

    /// The mask of the device id, 64 hex digits.
    pub fn masked_device_id(&self) -> Option<&str> {
        self.masked_device_id.as_ref().map(Mask::as_str)
    }

    /// The locale: at most 32 characters, without U+0000.
    pub fn locale(&self) -> Option<&str> {
        self.locale.as_deref()
    }

    /// The version as an integer, not negative, in the decoder's [`VersionEncoding`].
    pub fn app_version(&self) -> i32 {
        self.app_version
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};

    use super::*;

    /// Two of these apply to a type that implements the trait, and then `check` is ambiguous and does not compile.
    macro_rules! assert_not_implemented {
        ($type:ty: $trait:path) => {{
            struct Implemented;
            trait Ambiguous<T> {
                fn check() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $trait> Ambiguous<Implemented> for T {}
            <$type as Ambiguous<_>>::check();
        }};
    }

    #[test]
    fn what_is_raw_cannot_be_printed() {
        assert_not_implemented!(RawLogin<'static>: Debug);
        assert_not_implemented!(RawLogin<'static>: Display);
        assert_not_implemented!(RawLogin<'static>: serde::Serialize);
        assert_not_implemented!(Field<'static>: Debug);
        assert_not_implemented!(Field<'static>: Display);
        assert_not_implemented!(Field<'static>: serde::Serialize);
        assert_not_implemented!(Masker: Debug);
    }

    #[test]
    fn a_column_counts_characters() {
        assert!(within("locale", "é".repeat(32).into(), 32).is_ok());
        for text in [
            "é".repeat(33),
            "x".repeat(33),
            format!("{} ", "x".repeat(32)),
        ] {
            assert_eq!(
                within("locale", text.into(), 32),
                Err(Rejection::of_field("locale", Rule::TooLong { max: 32 }))
            );
        }
    }
}
