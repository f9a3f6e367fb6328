//! What holds for every body, from outside.

#![allow(clippy::unwrap_used)]

use login::{Decoder, Masker, VersionEncoding};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const KEYS: [&str; 6] = [
    "user_id",
    "app_version",
    "device_type",
    "ip",
    "locale",
    "device_id",
];

fn decoder() -> Decoder {
    Decoder::new(Masker::plain(), VersionEncoding::Digits)
}

/// A value that no reason can have in it by chance: the mark is in no fixed text of a reason.
fn marked() -> impl Strategy<Value = String> {
    prop_oneof!["#\\PC{3,30}", "#\\PC{128,150}"]
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => marked().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => marked().prop_map(|text| Value::from(text + "\0")),
        1 => vec(marked(), 0..3).prop_map(Value::from),
        1 => (marked(), marked()).prop_map(|(key, value)| json!({ key: value })),
    ]
}

fn good_value(key: &str) -> BoxedStrategy<Value> {
    match key {
        "app_version" => r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}"
            .prop_map(Value::from)
            .boxed(),
        _ => "#\\PC{3,31}".prop_map(Value::from).boxed(),
    }
}

/// Logins, most of them with something wrong in a field or two, and with other keys.
fn object() -> impl Strategy<Value = Value> {
    let known = KEYS.map(|key| {
        let value = prop_oneof![
            8 => good_value(key).prop_map(Some),
            2 => any_value().prop_map(Some),
            1 => Just(None),
        ];
        value.prop_map(move |value| (key, value))
    });
    let others = vec((marked(), any_value()), 0..3);
    (Vec::from(known), others).prop_map(|(known, others)| {
        let known = known
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(known.chain(others).collect::<Map<_, _>>())
    })
}

fn notification(message: &str) -> String {
    json!({"Type": "Notification", "Message": message}).to_string()
}

fn event(detail: &str) -> String {
    format!(r#"{{"detail-type": "Login", "source": "app", "detail": {detail}}}"#)
}

/// Such an object as a body: bare, in envelopes, or cut off anywhere.
fn body() -> impl Strategy<Value = (String, Vec<String>)> {
    let wrappings = vec(any::<bool>(), 0..5);
    (
        object(),
        wrappings,
        option::weighted(0.3, any::<prop::sample::Index>()),
    )
        .prop_map(|(object, wrappings, cut)| {
            let mut texts = Vec::new();
            collect_texts(&object, &mut texts);
            let mut body = object.to_string();
            for sns in wrappings {
                body = if sns {
                    notification(&body)
                } else {
                    event(&body)
                };
            }
            if let Some(cut) = cut {
                let end = (0..=cut.index(body.len()))
                    .rev()
                    .find(|&end| body.is_char_boundary(end));
                body.truncate(end.unwrap());
            }
            (body, texts)
        })
}

fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(object) => {
            for (key, value) in object {
                if !KEYS.contains(&key.as_str()) {
                    texts.push(key.clone());
                }
                collect_texts(value, texts);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_body_panics(body in "\\PC{0,200}|[\\[\\]{}\",:a-z0-9\\\\\\x00-\\x1f]{0,200}") {
        let _ = decoder().decode(&body);
    }

    #[test]
    fn a_reason_never_quotes_the_body((body, texts) in body()) {
        if let Err(rejection) = decoder().decode(&body) {
            let reason = rejection.to_string();
            prop_assert!(!reason.contains('#'), "{reason}");
            for text in texts.iter().filter(|text| text.len() >= 4) {
                prop_assert!(!reason.contains(text.as_str()), "{reason}");
            }
        }
    }

    #[test]
    fn an_envelope_changes_nothing(object in object()) {
        let bare = decoder().decode(&object.to_string());
        for enclosed in [notification(&object.to_string()), event(&object.to_string())] {
            match (&bare, decoder().decode(&enclosed)) {
                (Ok(bare), Ok(enclosed)) => prop_assert_eq!(bare, &enclosed),
                (Err(bare), Err(enclosed)) => {
                    prop_assert_eq!((bare.rule(), bare.field()), (enclosed.rule(), enclosed.field()));
                }
                _ => prop_assert!(false, "an envelope decides"),
            }
        }
    }

    #[test]
    fn texts_are_kept_and_masked_values_are_not(
        user_id in "[^\\x00]{0,128}",
        locale in option::of("[^\\x00]{0,32}"),
        ip in marked(),
        device_id in option::of(marked()),
    ) {
        let body = json!({
            "user_id": user_id, "app_version": "1.2", "device_type": null,
            "ip": ip, "locale": locale, "device_id": device_id,
        });
        let row = decoder().decode(&body.to_string()).unwrap();
        prop_assert_eq!(row.user_id(), user_id);
        prop_assert_eq!(row.locale(), locale.as_deref());
        prop_assert_eq!(row.masked_device_id().is_some(), device_id.is_some());
        for mask in [row.masked_ip(), row.masked_device_id()].into_iter().flatten() {
            prop_assert_eq!(mask.len(), 64);
            prop_assert!(mask.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        }
    }
}
