//! Any text is decoded or rejected, and no reason quotes it:
//!
//!     cargo +nightly fuzz run decode fuzz/corpus/decode fuzz/seeds/decode -- -dict=fuzz/login.dict

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use login::{Decoder, MaskedLogin, Masker, Rejection, VersionEncoding};

static DECODERS: LazyLock<[Decoder; 2]> = LazyLock::new(|| {
    [
        Decoder::new(Masker::plain(), VersionEncoding::Digits),
        Decoder::new(Masker::keyed(b"key"), VersionEncoding::Sortable),
    ]
});

fuzz_target!(|body: &str| {
    for decoder in DECODERS.iter() {
        match decoder.decode(body) {
            Ok(login) => fits_its_columns(&login),
            Err(rejection) => quotes_nothing(&rejection, body.len()),
        }
    }
});

fn fits_its_columns(login: &MaskedLogin) {
    assert!(is_text_of(login.user_id(), 128));
    assert!(login.device_type().is_none_or(|text| is_text_of(text, 32)));
    assert!(login.locale().is_none_or(|text| is_text_of(text, 32)));
    assert!(login.masked_ip().is_none_or(is_mask));
    assert!(login.masked_device_id().is_none_or(is_mask));
    assert!(login.app_version() >= 0);
}

fn is_text_of(text: &str, max: usize) -> bool {
    text.chars().count() <= max && !text.contains('\0')
}

fn is_mask(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

/// All the words of all reasons, so that a word of the body that slips into one stands out.
const WORDS: &str = "user_id app_version device_type ip locale device_id in an envelope not JSON line column escape \
    that is no character or a number out of range login too many envelopes missing string neither nor null longer \
    than characters contains U version dotted numbers has more three large for its encoding as integer";

fn quotes_nothing(rejection: &Rejection, body_len: usize) {
    let reason = rejection.to_string();
    let is_word = |part: &str| WORDS.split_whitespace().any(|word| word == part);
    let is_limit_or_position = |part: &str| {
        part == "0000"
            || part
                .parse()
                .is_ok_and(|number: usize| number <= body_len.max(128))
    };
    for part in reason
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|part| !part.is_empty())
    {
        assert!(is_word(part) || is_limit_or_position(part), "{reason}");
    }
}
