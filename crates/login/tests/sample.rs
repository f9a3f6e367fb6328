//! The real messages, row for row against what the script that this replaces makes of them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use login::{Decoder, MaskedLogin, Masker, Rule, VersionEncoding};
use serde_json::value::RawValue;

#[test]
fn every_real_message_gives_the_row_that_the_script_gave() {
    let messages = data("seed_logins.json");
    let bodies: Vec<&RawValue> = serde_json::from_str(&messages).unwrap();
    let decoder = Decoder::new(Masker::plain(), VersionEncoding::Digits);

    let mut rows = Vec::new();
    let mut rules = Vec::new();
    for body in bodies {
        match decoder.decode(body.get()) {
            Ok(login) => rows.push(csv_row(&login)),
            Err(rejection) => rules.push(rejection.rule()),
        }
    }

    let csv = data("seed_expected.csv");
    let expected: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(rows, expected);
    assert_eq!(rows.len(), 99);
    assert_eq!(rules, [Rule::NotALogin]);
}

fn csv_row(login: &MaskedLogin) -> String {
    let app_version = login.app_version().to_string();
    [
        login.user_id(),
        login.device_type().unwrap_or(""),
        login.masked_ip().unwrap_or(""),
        login.masked_device_id().unwrap_or(""),
        login.locale().unwrap_or(""),
        &app_version,
    ]
    .join(",")
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(name);
    fs::read_to_string(path).unwrap()
}
