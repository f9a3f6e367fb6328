//! Time to decode and mask one message, in microseconds: `cargo bench -p login`.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use login::{Decoder, Masker, VersionEncoding};

const ROUNDS: u32 = 200_000;
const LOGIN: &str = concat!(
    r#"{"user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae", "app_version": "2.3.0", "#,
    r#""device_type": "android", "ip": "199.172.111.135", "locale": "RU", "device_id": "593-47-5928"}"#,
);

fn main() {
    let ipv6 = LOGIN.replace("199.172.111.135", "2001:DB8::1");
    let notification = serde_json::json!({"Type": "Notification", "Message": LOGIN}).to_string();
    let plain = Decoder::new(Masker::plain(), VersionEncoding::Digits);
    let keyed = Decoder::new(Masker::keyed(b"0123456789abcdef"), VersionEncoding::Digits);

    measure("plain", &plain, LOGIN);
    measure("keyed", &keyed, LOGIN);
    measure("plain, IPv6", &plain, &ipv6);
    measure("plain, in a notification", &plain, &notification);
}

fn measure(name: &str, decoder: &Decoder, body: &str) {
    let best = (0..5)
        .map(|_| microseconds_each(decoder, body))
        .fold(f64::INFINITY, f64::min);
    println!("{name:>25}: {best:.3} µs");
}

fn microseconds_each(decoder: &Decoder, body: &str) -> f64 {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(decoder.decode(black_box(body)).unwrap());
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}
