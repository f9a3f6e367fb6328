//! From the body of a message to a masked login: opens envelopes, reads fields, masks.

use crate::envelope::{self, Content};
use crate::{Mask, Masked, MaskedLogin, Masker, Rejection, Rule, VersionEncoding};

/// How many envelopes may lie around a login. SNS around EventBridge makes two; one more is left for a relay.
const MAX_ENVELOPES: usize = 3;

/// The settings of one ingest, applied to each body.
pub struct Decoder {
    masker: Masker,
    encoding: VersionEncoding,
}

impl Decoder {
    /// A decoder that masks with `masker` and writes `app_version` in `encoding`.
    pub fn new(masker: Masker, encoding: VersionEncoding) -> Decoder {
        Decoder { masker, encoding }
    }

    /// Reads the body of one message: a login as a JSON object, bare or in an envelope of SNS or EventBridge.
    ///
    /// Of a key that occurs twice the last value counts, as in Python's `json`. Unknown keys are ignored.
    ///
    /// # Errors
    /// A [`Rejection`] if the body is not JSON, not a login, or a login that breaks a rule or does not fit its columns.
    pub fn decode(&self, body: &str) -> Result<MaskedLogin, Rejection> {
        self.decode_and_keep(body, |_, _, _| Ok(()))
    }

    /// The same; `keep` gets each original that is masked, and its mask, before the original is dropped. It may refuse
    /// a login that breaks a rule of its own.
    ///
    /// # Errors
    /// As [`decode`](Decoder::decode), and what `keep` refuses.
    pub fn decode_and_keep(
        &self,
        body: &str,
        mut keep: impl FnMut(Masked, &Mask, &str) -> Result<(), Rule>,
    ) -> Result<MaskedLogin, Rejection> {
        self.decode_enclosed(body, 0, &mut keep)
    }

    fn decode_enclosed(
        &self,
        text: &str,
        envelopes: usize,
        keep: &mut impl FnMut(Masked, &Mask, &str) -> Result<(), Rule>,
    ) -> Result<MaskedLogin, Rejection> {
        match envelope::open(text)? {
            Content::Login(login) => login.mask(&self.masker, self.encoding, keep),
            Content::Enclosed(_) if envelopes == MAX_ENVELOPES => {
                Err(Rejection::of(Rule::TooManyEnvelopes))
            }
            Content::Enclosed(inner) => self
                .decode_enclosed(&inner, envelopes + 1, keep)
                .map_err(Rejection::in_an_envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decoder() -> Decoder {
        Decoder::new(Masker::plain(), VersionEncoding::Digits)
    }

    fn decode(body: &str) -> Result<MaskedLogin, Rejection> {
        decoder().decode(body)
    }

    fn login() -> Value {
        json!({
            "user_id": "u-1",
            "app_version": "2.3.0",
            "device_type": "ios",
            "ip": "199.172.111.135",
            "locale": "RU",
            "device_id": "593-47-5928",
        })
    }

    fn login_with(key: &str, value: Value) -> String {
        let mut login = login();
        login[key] = value;
        login.to_string()
    }

    fn login_without(key: &str) -> String {
        let mut login = login();
        login.as_object_mut().unwrap().remove(key);
        login.to_string()
    }

    fn rejection(body: &str) -> (Rule, Option<&'static str>) {
        let rejection = decode(body).unwrap_err();
        (rejection.rule(), rejection.field())
    }

    fn notification(message: &str) -> String {
        json!({"Type": "Notification", "TopicArn": "arn", "Message": message}).to_string()
    }

    fn event(detail: &str) -> String {
        format!(
            r#"{{"version": "0", "detail-type": "Login", "source": "app", "detail": {detail}}}"#
        )
    }

    #[test]
    fn each_original_is_handed_over_with_its_mask() {
        let mut kept = Vec::new();
        let bodies = [
            login_with("ip", json!("2001:DB8::1")),
            notification(&login_with("device_id", Value::Null)),
        ];
        for body in &bodies {
            let login = decoder().decode_and_keep(body, |field, mask, original| {
                kept.push((field, mask.as_str().to_owned(), original.to_owned()));
                Ok(())
            });
            assert_eq!(login, decode(body));
        }
        let masker = Masker::plain();
        let kept_as = |field, mask: Mask, original: &str| {
            (field, mask.as_str().to_owned(), original.to_owned())
        };
        assert_eq!(
            kept,
            [
                kept_as(Masked::Ip, masker.mask("2001:db8::1"), "2001:DB8::1"),
                kept_as(Masked::DeviceId, masker.mask("593-47-5928"), "593-47-5928"),
                kept_as(
                    Masked::Ip,
                    masker.mask("199.172.111.135"),
                    "199.172.111.135"
                ),
            ]
        );
    }

    #[test]
    fn an_original_that_cannot_be_kept_rejects_its_login() {
        let too_long = Rule::TooLong { max: 5 };
        for refused in [Masked::Ip, Masked::DeviceId] {
            let login = decoder().decode_and_keep(&login().to_string(), |field, _, _| {
                if field == refused {
                    Err(too_long)
                } else {
                    Ok(())
                }
            });
            let rejection = login.unwrap_err();
            assert_eq!(rejection.rule(), too_long);
            assert_eq!(rejection.field(), Some(refused.name()));
        }
    }

    #[test]
    fn nothing_is_handed_over_of_what_is_rejected() {
        for (key, value) in [
            ("user_id", json!("x".repeat(129))),
            ("app_version", json!("x")),
            ("device_id", json!(7)),
            ("locale", json!("x".repeat(33))),
        ] {
            let login =
                decoder().decode_and_keep(&login_with(key, value), |_, _, _| panic!("handed over"));
            assert!(login.is_err());
        }
    }

    #[test]
    fn a_login_becomes_a_row() {
        let row = decode(&login().to_string()).unwrap();
        assert_eq!(row.user_id(), "u-1");
        assert_eq!(row.device_type(), Some("ios"));
        assert_eq!(row.locale(), Some("RU"));
        assert_eq!(row.app_version(), 230);
        assert_eq!(
            row.masked_ip(),
            Some("a6d0e2f27f6111e10b06790db42f34123e724aa0fd24b280f4a0ef5ee986784c")
        );
        assert_eq!(
            row.masked_device_id(),
            Some("4f00c1a807b673887c7af517d0df68e6b41aecf8cbec26c71fe4c580664669ed")
        );
    }

    #[test]
    fn the_settings_are_the_decoders() {
        let keyed = Decoder::new(Masker::keyed(b"key"), VersionEncoding::Sortable);
        let row = keyed.decode(&login().to_string()).unwrap();
        assert_eq!(row.app_version(), 2_003_000);
        let mask = Masker::keyed(b"key").mask("199.172.111.135");
        assert_eq!(row.masked_ip(), Some(mask.as_str()));
        assert_ne!(
            row.masked_ip(),
            decode(&login().to_string()).unwrap().masked_ip()
        );
    }

    #[test]
    fn null_stays_null_and_locale_may_be_absent() {
        assert_eq!(
            decode(&login_with("device_type", Value::Null))
                .unwrap()
                .device_type(),
            None
        );
        assert_eq!(
            decode(&login_with("ip", Value::Null)).unwrap().masked_ip(),
            None
        );
        assert_eq!(
            decode(&login_with("device_id", Value::Null))
                .unwrap()
                .masked_device_id(),
            None
        );
        assert_eq!(
            decode(&login_with("locale", Value::Null)).unwrap().locale(),
            None
        );
        assert_eq!(decode(&login_without("locale")).unwrap().locale(), None);
    }

    #[test]
    fn the_empty_string_is_a_string() {
        assert_eq!(
            decode(&login_with("user_id", json!(""))).unwrap().user_id(),
            ""
        );
        let row = decode(&login_with("ip", json!(""))).unwrap();
        assert_eq!(row.masked_ip(), Some(Masker::plain().mask("").as_str()));
    }

    #[test]
    fn escapes_are_read() {
        let row = decode(
            &login()
                .to_string()
                .replace("u-1", r#"\u00e9\ud83d\ude00\n\""#),
        )
        .unwrap();
        assert_eq!(row.user_id(), "é😀\n\"");
        let escaped_key = login().to_string().replace("user_id", r"user\u005fid");
        assert_eq!(decode(&escaped_key).unwrap().user_id(), "u-1");
        let escaped_ip = login().to_string().replace("199.", r"\u0031\u0039\u0039.");
        assert_eq!(decode(&escaped_ip), decode(&login().to_string()));
    }

    #[test]
    fn equal_addresses_have_equal_masks() {
        let of = |ip: &str| decode(&login_with("ip", json!(ip))).unwrap();
        assert_eq!(of("2001:DB8::0:1"), of("2001:db8::1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    /// The canonical text of an address is the standard library's, so a new one could change what is masked.
    #[test]
    fn masks_of_rare_spellings_of_addresses_stay_as_they_are() {
        let spellings = [
            ("::192.0.2.1", "::c000:201"),
            ("::C000:0201", "::c000:201"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
            ("::FFFF:C000:0201", "::ffff:192.0.2.1"),
            ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:0db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("0:0:0:0:0:0:0:0", "::"),
            ("::0.0.0.1", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[::1]", "[::1]"),
        ];
        for (spelling, masked) in spellings {
            let row = decode(&login_with("ip", json!(spelling))).unwrap();
            let expected = Masker::plain().mask(masked);
            assert_eq!(row.masked_ip(), Some(expected.as_str()), "{spelling}");
        }
    }

    #[test]
    fn of_a_key_that_occurs_twice_the_last_value_counts() {
        let body = login()
            .to_string()
            .replacen('{', r#"{"user_id": 5, "ip": "first","#, 1);
        assert_eq!(decode(&body), decode(&login().to_string()));
        let body = login().to_string().replace('}', r#", "user_id": 5}"#);
        assert_eq!(rejection(&body), (Rule::WrongType, Some("user_id")));
    }

    #[test]
    fn other_keys_are_ignored() {
        let body = login().to_string().replacen(
            '{',
            r#"{"x": 1e999, "y": [{"ip": 1}, "\ud800"], "": null,"#,
            1,
        );
        assert_eq!(decode(&body), decode(&login().to_string()));
    }

    #[test]
    fn a_required_key_must_be_there() {
        for key in ["user_id", "app_version", "device_type", "ip", "device_id"] {
            assert!(
                matches!(rejection(&login_without(key)), (Rule::Missing, Some(field)) if field == key)
            );
        }
    }

    #[test]
    fn a_value_must_have_its_type() {
        for key in [
            "user_id",
            "app_version",
            "device_type",
            "ip",
            "locale",
            "device_id",
        ] {
            for value in [
                json!(1),
                json!(-1),
                json!(1.5),
                json!(true),
                json!(["a"]),
                json!({"a": "b"}),
            ] {
                assert!(
                    matches!(rejection(&login_with(key, value)), (Rule::WrongType, Some(field)) if field == key)
                );
            }
        }
        for key in ["user_id", "app_version"] {
            assert!(
                matches!(rejection(&login_with(key, Value::Null)), (Rule::WrongType, Some(field)) if field == key)
            );
        }
    }

    #[test]
    fn a_text_must_fit_its_column() {
        for (key, max) in [("user_id", 128), ("device_type", 32), ("locale", 32)] {
            assert!(decode(&login_with(key, json!("😀".repeat(max)))).is_ok());
            let too_long = login_with(key, json!("😀".repeat(max + 1)));
            assert!(matches!(
                rejection(&too_long),
                (Rule::TooLong { max: of }, Some(field)) if of == max && field == key
            ));
        }
        assert!(decode(&login_with("ip", json!("x".repeat(10_000)))).is_ok());
    }

    #[test]
    fn no_text_has_a_nul_character() {
        for key in [
            "user_id",
            "app_version",
            "device_type",
            "ip",
            "locale",
            "device_id",
        ] {
            assert!(matches!(
                rejection(&login_with(key, json!("a\0b"))),
                (Rule::NulCharacter, Some(field)) if field == key
            ));
        }
    }

    #[test]
    fn a_version_is_rejected_by_name() {
        assert_eq!(
            rejection(&login_with("app_version", json!("latest"))),
            (Rule::NotAVersion, Some("app_version"))
        );
    }

    #[test]
    fn json_that_is_no_login() {
        for body in [
            r#"{"foo": "oops", "bar": "123"}"#,
            "{}",
            "[]",
            "[1, {}]",
            "null",
            "true",
            "-1",
            "1",
            "1.5",
            r#""a""#,
        ] {
            assert_eq!(rejection(body), (Rule::NotALogin, None), "{body}");
        }
    }

    #[test]
    fn any_key_of_a_login_makes_it_a_login() {
        for key in [
            "user_id",
            "app_version",
            "device_type",
            "ip",
            "locale",
            "device_id",
        ] {
            let (rule, _) = rejection(&json!({ key: "1" }).to_string());
            assert_eq!(rule, Rule::Missing, "{key}");
        }
    }

    #[test]
    fn text_that_is_no_json() {
        let good = login().to_string();
        for body in [
            "",
            " ",
            "user_id",
            &good[..good.len() - 1],
            &format!("{good}x"),
            &format!("{good}{good}"),
            &good.replace("u-1", "u\t1"),
            &good.replace("u-1", r"\x"),
            &good.replace('"', "'"),
            &good.replace('}', ",}"),
            &good.replace(r#""RU""#, "NaN"),
        ] {
            assert_eq!(rejection(body), (Rule::NotJson, None), "{body}");
        }
        assert!(decode(&format!(" \n\t{good}\r\n ")).is_ok());
        assert!(decode(&format!("\u{feff}{good}")).is_ok());
    }

    #[test]
    fn what_python_reads_and_unicode_has_not_is_refused() {
        for text in [r"\ud800", r"\udc00", r"\ud800\u0041", r"\ud800x"] {
            let body = login().to_string().replace("u-1", text);
            let rejection = decode(&body).unwrap_err();
            assert_eq!(rejection.rule(), Rule::NotJson);
            assert!(
                rejection.to_string().contains("an invalid escape"),
                "{rejection}"
            );
        }
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        let deep =
            |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
        let arrays = deep("[", "]");
        let objects = deep(r#"{"a":"#, "}").replace(":}", ":0}");
        for value in [&arrays, &objects] {
            assert_eq!(rejection(value), (Rule::NotALogin, None));
            let ignored = login()
                .to_string()
                .replacen('{', &format!(r#"{{"x": {value},"#), 1);
            assert!(decode(&ignored).is_ok());
            let known = login().to_string().replace(r#""u-1""#, value);
            assert_eq!(rejection(&known), (Rule::WrongType, Some("user_id")));
            assert_eq!(rejection(&event(value)), (Rule::NotALogin, None));
        }
        assert_eq!(rejection(&"[".repeat(200_000)), (Rule::NotJson, None));
    }

    #[test]
    fn envelopes_are_opened() {
        let good = login().to_string();
        let row = decode(&good);
        assert_eq!(decode(&notification(&good)), row);
        assert_eq!(decode(&event(&good)), row);
        assert_eq!(decode(&notification(&event(&good))), row);
        assert_eq!(decode(&event(&notification(&good))), row);
        let twice = json!(good).to_string();
        assert_eq!(decode(&twice), row);
        assert_eq!(decode(&notification(&twice)), row);
        assert_eq!(decode(&event(&twice)), row);
    }

    #[test]
    fn what_is_wrong_in_an_envelope_is_named_as_outside() {
        let bad = login_without("ip");
        for body in [notification(&bad), event(&bad), notification(&event(&bad))] {
            assert_eq!(rejection(&body), (Rule::Missing, Some("ip")));
            assert_eq!(
                decode(&body).unwrap_err().to_string(),
                "in an envelope: ip is missing"
            );
        }
        assert_eq!(rejection(&notification("hello")), (Rule::NotJson, None));
        assert_eq!(
            rejection(&notification(r#"{"foo": 1}"#)),
            (Rule::NotALogin, None)
        );
    }

    #[test]
    fn envelopes_end_somewhere() {
        let mut body = login().to_string();
        for _ in 0..MAX_ENVELOPES {
            body = event(&body);
            assert!(decode(&body).is_ok());
        }
        assert_eq!(rejection(&event(&body)), (Rule::TooManyEnvelopes, None));
    }

    #[test]
    fn a_decoder_can_go_to_another_thread() {
        fn is_send_and_sync<T: Send + Sync>(_: &T) {}
        is_send_and_sync(&decoder());
    }
}
