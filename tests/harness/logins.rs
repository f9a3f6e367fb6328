//! The messages that tests send, and what must become of them.

use std::path::Path;

use serde_json::{Value, json};

/// The 100 sample messages, as they are sent.
pub fn sample() -> Vec<String> {
    let logins: Vec<Value> = serde_json::from_str(&data("seed_logins.json")).unwrap();
    logins.iter().map(Value::to_string).collect()
}

/// The rows that the sample must give: user_id, device_type, masked_ip, masked_device_id, locale, app_version.
pub fn expected_rows_of_sample() -> Vec<Vec<Option<String>>> {
    data("seed_expected.csv")
        .lines()
        .skip(1)
        .map(|line| {
            line.split(',')
                .map(|field| Some(field.to_owned()).filter(|field| !field.is_empty()))
                .collect()
        })
        .collect()
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// A login of `user`, well-formed, the same whenever it is asked for.
pub fn login(user: &str) -> Value {
    let seed = user.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let [a, b, c, _] = seed.to_be_bytes();
    json!({
        "user_id": user,
        "app_version": format!("{}.{}.{}", a % 9 + 1, b % 10, c % 10),
        "device_type": if seed % 2 == 0 { "android" } else { "ios" },
        "ip": format!("10.{a}.{b}.{c}"),
        "locale": if seed % 5 == 0 { Value::Null } else { json!("DE") },
        "device_id": format!("{:03}-{:02}-{:04}", seed % 1000, seed % 100, seed % 10000),
    })
}

/// `count` well-formed logins, of `user-1`, `user-2`, …
pub fn good(count: usize) -> Vec<String> {
    (1..=count)
        .map(|number| login(&format!("user-{number}")).to_string())
        .collect()
}

/// A login of `user` in which `key` has another value.
pub fn login_with(user: &str, key: &str, value: impl Into<Value>) -> String {
    let mut login = login(user);
    login[key] = value.into();
    login.to_string()
}

/// A login of `user` that lacks `key`.
pub fn login_without(user: &str, key: &str) -> String {
    let mut login = login(user);
    login.as_object_mut().unwrap().remove(key);
    login.to_string()
}
