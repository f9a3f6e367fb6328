//! Envelopes: what SNS and EventBridge put around a message before it reaches the queue.
//!
//! - SNS without raw delivery: `{"Type": "Notification", "Message": "<the message as a string>", ...}`
//! - EventBridge: `{"detail-type": "...", "source": "...", "detail": {the message}, ...}`
//!
//! Neither has a key in common with a login, so an object with any key of a login is a login.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::field::Field;
use crate::login::RawLogin;
use crate::{Rejection, Rule};

/// What a text turns out to be.
pub(crate) enum Content<'a> {
    Login(RawLogin<'a>),
    /// The text inside an envelope, to be read in turn.
    Enclosed(Cow<'a, str>),
}

/// Reads `text` once and says what it is.
pub(crate) fn open(text: &str) -> Result<Content<'_>, Rejection> {
    serde_json::from_str::<Document>(text)
        .map_err(|error| not_readable(text, &error))?
        .content()
        .ok_or(Rejection::of(Rule::NotALogin))
}

/// Takes only the position from the parser's error: its message may quote the text.
fn not_readable(text: &str, error: &serde_json::Error) -> Rejection {
    let well_formed = serde_json::from_str::<IgnoredAny>(text).is_ok();
    Rejection::not_json(error.line(), error.column(), well_formed)
}

/// The keys of a JSON object that mean something here. Any other JSON value is an object without them.
#[derive(Default)]
struct Document<'a> {
    login: RawLogin<'a>,
    sns_type: Field<'a>,
    sns_message: Field<'a>,
    event_type: bool,
    event_source: bool,
    event_detail: Option<&'a RawValue>,
}

impl<'a> Document<'a> {
    fn content(self) -> Option<Content<'a>> {
        if !self.login.is_absent() {
            return Some(Content::Login(self.login));
        }
        match (self.sns_type, self.sns_message) {
            (Field::Text(kind), Field::Text(message)) if kind == "Notification" => {
                return Some(Content::Enclosed(message));
            }
            _ => {}
        }
        match self.event_detail {
            Some(detail) if self.event_type && self.event_source => {
                Some(Content::Enclosed(Cow::Borrowed(detail.get())))
            }
            _ => None,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "user_id")]
    UserId,
    #[serde(rename = "app_version")]
    AppVersion,
    #[serde(rename = "device_type")]
    DeviceType,
    #[serde(rename = "ip")]
    Ip,
    #[serde(rename = "locale")]
    Locale,
    #[serde(rename = "device_id")]
    DeviceId,
    #[serde(rename = "Type")]
    SnsType,
    #[serde(rename = "Message")]
    SnsMessage,
    #[serde(rename = "detail-type")]
    EventType,
    #[serde(rename = "source")]
    EventSource,
    #[serde(rename = "detail")]
    EventDetail,
    #[serde(other)]
    Unknown,
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<'de>, A::Error> {
        let mut document = Document::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::UserId => document.login.user_id = map.next_value()?,
                Key::AppVersion => document.login.app_version = map.next_value()?,
                Key::DeviceType => document.login.device_type = map.next_value()?,
                Key::Ip => document.login.ip = map.next_value()?,
                Key::Locale => document.login.locale = map.next_value()?,
                Key::DeviceId => document.login.device_id = map.next_value()?,
                Key::SnsType => document.sns_type = map.next_value()?,
                Key::SnsMessage => document.sns_message = map.next_value()?,
                Key::EventDetail => document.event_detail = Some(map.next_value()?),
                Key::EventType => {
                    map.next_value::<IgnoredAny>()?;
                    document.event_type = true;
                }
                Key::EventSource => {
                    map.next_value::<IgnoredAny>()?;
                    document.event_source = true;
                }
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(document)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Document<'de>, A::Error> {
        IgnoredAny.visit_seq(seq)?;
        Ok(Document::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Document<'de>, E> {
        Ok(Document::default())
    }

    fn visit_unit<E>(self) -> Result<Document<'de>, E> {
        Ok(Document::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Document<'de>, E> {
        Ok(Document::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Document<'de>, E> {
        Ok(Document::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Document<'de>, E> {
        Ok(Document::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Document<'de>, E> {
        Ok(Document::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enclosed(text: &str) -> Option<String> {
        match open(text) {
            Ok(Content::Enclosed(inner)) => Some(inner.into_owned()),
            _ => None,
        }
    }

    #[test]
    fn a_notification_encloses_its_message() {
        let text = r#"{"Type": "Notification", "MessageId": "1", "Message": "{\"user_id\": \"u\"}", "Signature": "s"}"#;
        assert_eq!(enclosed(text).as_deref(), Some(r#"{"user_id": "u"}"#));
    }

    #[test]
    fn an_event_encloses_its_detail() {
        let text = r#"{"version": "0", "detail-type": "Login", "source": "app", "detail": {"user_id": "u"}}"#;
        assert_eq!(enclosed(text).as_deref(), Some(r#"{"user_id": "u"}"#));
    }

    #[test]
    fn half_an_envelope_is_not_a_login() {
        for text in [
            r#"{"Type": "Notification"}"#,
            r#"{"Type": "Notification", "Message": null}"#,
            r#"{"Type": "Notification", "Message": {"user_id": "u"}}"#,
            r#"{"Type": "SubscriptionConfirmation", "Message": "{}"}"#,
            r#"{"Message": "{}"}"#,
            r#"{"detail": {"user_id": "u"}}"#,
            r#"{"detail-type": "Login", "detail": {"user_id": "u"}}"#,
            r#"{"source": "app", "detail": {"user_id": "u"}}"#,
            r#"{"detail-type": "Login", "source": "app"}"#,
        ] {
            assert_eq!(
                open(text).err(),
                Some(Rejection::of(Rule::NotALogin)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_login_is_no_envelope_whatever_else_it_has() {
        let text = r#"{"ip": null, "Type": "Notification", "Message": "{}", "detail-type": "", "source": "", "detail": {}}"#;
        assert!(matches!(open(text), Ok(Content::Login(_))));
    }
}
