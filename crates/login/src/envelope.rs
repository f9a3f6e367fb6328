//! Envelopes: what SNS, EventBridge and producers put around a message before it reaches the queue.
//!
//! - SNS without raw delivery: `{"Type": "Notification", "Message": "<the message as a string>", ...}`
//! - EventBridge: `{"detail-type": "...", "source": "...", "detail": {the message}, ...}`
//! - a producer that encodes its JSON twice: `"<the message as a string>"`
//!
//! None has a key in common with a login, so an object with any key of a login is a login.

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

/// Reads `text` once and says what it is. A byte order mark before it is skipped.
pub(crate) fn open(text: &str) -> Result<Content<'_>, Rejection> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str::<Document>(text)
        .map_err(|error| not_readable(text, &error))?
        .content()
}

/// Takes only the position from the parser's error: its message may quote the text.
fn not_readable(text: &str, error: &serde_json::Error) -> Rejection {
    if is_base64_of_an_object(text) {
        return Rejection::base64();
    }
    let well_formed = serde_json::from_str::<IgnoredAny>(text).is_ok();
    Rejection::not_json(error.line(), error.column(), well_formed)
}

/// Whether `text` is in the alphabet of Base64 and begins as the Base64 of `{` and a quote or white space does.
fn is_base64_of_an_object(text: &str) -> bool {
    let text = text.trim_ascii();
    let is_of_alphabet =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    (text.starts_with("ey") || text.starts_with("ew"))
        && text.len() >= 8
        && text.bytes().all(is_of_alphabet)
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
    s3_event: Field<'a>,
    /// What the text says if it is a string.
    string: Option<Cow<'a, str>>,
}

impl<'a> Document<'a> {
    fn content(self) -> Result<Content<'a>, Rejection> {
        if !self.login.is_absent() {
            return Ok(Content::Login(self.login));
        }
        if let Some(text) = self.string {
            return Document::enclosed_in_a_string(text);
        }
        match (self.sns_type, self.sns_message) {
            (Field::Text(kind), Field::Text(message)) if kind == "Notification" => {
                return Ok(Content::Enclosed(message));
            }
            _ => {}
        }
        match self.event_detail {
            Some(detail) if self.event_type && self.event_source => {
                Ok(Content::Enclosed(Cow::Borrowed(detail.get())))
            }
            _ if matches!(&self.s3_event, Field::Text(event) if event == "s3:TestEvent") => {
                Err(Rejection::s3_test_event())
            }
            _ => Err(Rejection::of(Rule::NotALogin)),
        }
    }

    /// A string with an object in it is an object that was encoded twice.
    fn enclosed_in_a_string(text: Cow<'a, str>) -> Result<Content<'a>, Rejection> {
        if text.trim_ascii_start().starts_with('{') {
            Ok(Content::Enclosed(text))
        } else if is_base64_of_an_object(&text) {
            Err(Rejection::base64())
        } else {
            Err(Rejection::of(Rule::NotALogin))
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
    #[serde(rename = "Event")]
    S3Event,
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
                Key::S3Event => document.s3_event = map.next_value()?,
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

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Document<'de>, E> {
        Ok(Document {
            string: Some(Cow::Borrowed(text)),
            ..Document::default()
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Document<'de>, E> {
        Ok(Document {
            string: Some(Cow::Owned(text.to_owned())),
            ..Document::default()
        })
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
    fn a_string_encloses_the_object_that_it_holds() {
        let text = r#"" {\"user_id\": \"u\"}""#;
        assert_eq!(enclosed(text).as_deref(), Some(r#" {"user_id": "u"}"#));
        for other in [r#""""#, r#""user_id""#, r#""[{}]""#] {
            assert_eq!(
                open(other).err(),
                Some(Rejection::of(Rule::NotALogin)),
                "{other}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let text = "\u{feff}{\"user_id\": \"u\"}";
        assert!(matches!(open(text), Ok(Content::Login(_))));
        assert!(open(&format!("\u{feff}{text}")).is_err());
    }

    #[test]
    fn base64_and_the_test_event_of_s3_are_told_by_name() {
        let encoded = "eyJ1c2VyX2lkIjogInUifQ==";
        for text in [
            encoded,
            &format!("{encoded}\n"),
            &format!("\"{encoded}\""),
            "ewogICJhIjogMQp9",
        ] {
            let reason = open(text).err().unwrap().to_string();
            assert_eq!(reason, "not JSON but Base64", "{text}");
        }
        for other in ["eyJ", "ey is not", "abcdefgh"] {
            let reason = open(other).err().unwrap().to_string();
            assert!(reason.starts_with("not JSON (line"), "{reason}");
        }
        let event = r#"{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}"#;
        let reason = open(event).err().unwrap().to_string();
        assert_eq!(reason, "an S3 test event, not a login");
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
        let text = concat!(
            r#"{"ip": null, "Type": "Notification", "Message": "{}", "#,
            r#""detail-type": "", "source": "", "detail": {}}"#,
        );
        assert!(matches!(open(text), Ok(Content::Login(_))));
    }
}
