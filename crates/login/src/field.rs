//! The value of one key, read whatever its type, so that only its rule decides what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Rejection, Rule};

/// Raw: no `Debug`, no `Display`, no `Serialize`.
#[derive(Default)]
pub(crate) enum Field<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
    /// A number, a boolean, an array or an object: never right here.
    Other,
}

impl<'a> Field<'a> {
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    /// The text of a field that must be a string.
    pub(crate) fn text(self, name: &'static str) -> Result<Cow<'a, str>, Rejection> {
        match self {
            Field::Text(text) if text.contains('\0') => {
                Err(Rejection::of_field(name, Rule::NulCharacter))
            }
            Field::Text(text) => Ok(text),
            Field::Absent => Err(Rejection::of_field(name, Rule::Missing)),
            Field::Null | Field::Other => Err(Rejection::wrong_type(name, "is not a string")),
        }
    }

    /// The text of a field that may be null, but must be there.
    pub(crate) fn text_or_null(
        self,
        name: &'static str,
    ) -> Result<Option<Cow<'a, str>>, Rejection> {
        match self {
            Field::Null => Ok(None),
            Field::Other => Err(Rejection::wrong_type(name, "is neither a string nor null")),
            Field::Text(_) | Field::Absent => self.text(name).map(Some),
        }
    }

    /// The text of a field that may be null or absent.
    pub(crate) fn text_if_any(self, name: &'static str) -> Result<Option<Cow<'a, str>>, Rejection> {
        match self {
            Field::Absent => Ok(None),
            _ => self.text_or_null(name),
        }
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Field<'de>, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Field<'de>, A::Error> {
        IgnoredAny.visit_seq(seq)?;
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field<'de>, A::Error> {
        IgnoredAny.visit_map(map)?;
        Ok(Field::Other)
    }
}
