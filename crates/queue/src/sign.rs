//! Signature Version 4 for the one kind of request there is: `POST /` with a JSON body.
//!
//! The steps are those of "Create a signed AWS API request" (AWS IAM user guide). The general signer of
//! `aws-sigv4` sorts, encodes and copies headers and derives its key anew for each request; here the headers
//! are known, and the key is kept for its day. The tests hold the result against that signer's.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::SystemTime;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::credentials::Keys;

const SERVICE: &str = "sqs";

/// Signs requests for one host and region.
pub(crate) struct Signer {
    host: String,
    region: String,
    key_of_day: RefCell<Option<KeyOfDay>>,
}

struct KeyOfDay {
    date: String,
    keys: Rc<Keys>,
    signing_key: Vec<u8>,
}

/// The two headers that a signature is made of.
pub(crate) struct Signature {
    /// `X-Amz-Date`
    pub date_time: String,
    /// `Authorization`
    pub authorization: String,
}

impl Signer {
    /// `host` is the `Host` header's value.
    pub(crate) fn new(host: &str, region: &str) -> Signer {
        Signer {
            host: host.to_owned(),
            region: region.to_owned(),
            key_of_day: RefCell::new(None),
        }
    }

    /// Signs a `POST /` of `body` that has, beside the signature's two, exactly the headers `Host`,
    /// `Content-Type`, `X-Amz-Target` and, where `keys` have one, `X-Amz-Security-Token`.
    pub(crate) fn sign(
        &self,
        keys: &Rc<Keys>,
        now: SystemTime,
        content_type: &str,
        target: &str,
        body: &[u8],
    ) -> Signature {
        let date_time = basic_format(now);
        let date = &date_time[..8];
        let token = keys
            .session_token
            .as_ref()
            .map(|token| String::from_utf8_lossy(token.as_bytes()));
        let signed_headers = match token {
            None => "content-type;host;x-amz-date;x-amz-target",
            Some(_) => "content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
        };

        let mut canonical =
            String::with_capacity(512 + token.as_ref().map_or(0, |text| text.len()));
        canonical.push_str("POST\n/\n\n");
        for (name, value) in [
            ("content-type", content_type),
            ("host", &self.host),
            ("x-amz-date", &date_time),
            ("x-amz-security-token", token.as_deref().unwrap_or("")),
            ("x-amz-target", target),
        ] {
            if name != "x-amz-security-token" || token.is_some() {
                push(&mut canonical, &[name, ":", value, "\n"]);
            }
        }
        push(&mut canonical, &["\n", signed_headers, "\n"]);
        push_sha256(&mut canonical, body);

        let mut scope = String::with_capacity(64);
        push(
            &mut scope,
            &[date, "/", &self.region, "/", SERVICE, "/aws4_request"],
        );
        let mut to_sign = String::with_capacity(192);
        push(
            &mut to_sign,
            &["AWS4-HMAC-SHA256\n", &date_time, "\n", &scope, "\n"],
        );
        push_sha256(&mut to_sign, canonical.as_bytes());

        let signature = self.with_signing_key(keys, now, date, |signing_key| {
            calculate_signature(signing_key, to_sign.as_bytes())
        });
        let mut authorization = String::with_capacity(320);
        push(
            &mut authorization,
            &[
                "AWS4-HMAC-SHA256 Credential=",
                &keys.access_key_id,
                "/",
                &scope,
                ", SignedHeaders=",
                signed_headers,
                ", Signature=",
                &signature,
            ],
        );
        Signature {
            date_time,
            authorization,
        }
    }

    fn with_signing_key<R>(
        &self,
        keys: &Rc<Keys>,
        now: SystemTime,
        date: &str,
        use_it: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let mut kept = self.key_of_day.borrow_mut();
        let fits = |key: &KeyOfDay| key.date == date && Rc::ptr_eq(&key.keys, keys);
        let key = match kept.take().filter(fits) {
            Some(key) => key,
            None => KeyOfDay {
                date: date.to_owned(),
                keys: keys.clone(),
                signing_key: generate_signing_key(
                    &keys.secret_access_key,
                    now,
                    &self.region,
                    SERVICE,
                )
                .as_ref()
                .to_vec(),
            },
        };
        use_it(&kept.insert(key).signing_key)
    }
}

fn push(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

fn push_sha256(text: &mut String, bytes: &[u8]) {
    let mut digits = [0u8; 64];
    if hex::encode_to_slice(Sha256::digest(bytes), &mut digits).is_ok() {
        text.push_str(&String::from_utf8_lossy(&digits));
    }
}

/// `20251025T090807Z`
fn basic_format(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let mut text = String::with_capacity(16);
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4::SigningParams;
    use hyper::header::HeaderValue;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    const TYPE: &str = "application/x-amz-json-1.0";

    fn keys(token: Option<&str>) -> Rc<Keys> {
        let mut keys = Keys::unlimited("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        keys.session_token = token.map(|token| HeaderValue::from_str(token).unwrap());
        Rc::new(keys)
    }

    /// What `aws-sigv4` makes of the same request.
    fn reference(
        token: Option<&str>,
        now: SystemTime,
        host: &str,
        region: &str,
        target: &str,
        body: &[u8],
    ) -> String {
        let identity = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            token.map(str::to_owned),
            None,
            "test",
        )
        .into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let url = format!("https://{host}/");
        let headers = [
            ("content-type", TYPE),
            ("host", host),
            ("x-amz-target", target),
        ];
        let request =
            SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body))
                .unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        instructions
            .headers()
            .find(|(name, _)| *name == "authorization")
            .unwrap()
            .1
            .to_owned()
    }

    proptest! {
        #[test]
        fn same_as_the_reference(
            token in proptest::option::of("[A-Za-z0-9+/=]{1,60}"),
            seconds in 0u64..4_000_000_000,
            region in "[a-z]{2}-[a-z]{4}-[0-9]",
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let host = format!("sqs.{region}.amazonaws.com");
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            let target = "AmazonSQS.ReceiveMessage";
            let signer = Signer::new(&host, &region);
            let keys = keys(token.as_deref());
            let expected = reference(token.as_deref(), now, &host, &region, target, &body);
            for _first_and_with_the_kept_key in 0..2 {
                let ours = signer.sign(&keys, now, TYPE, target, &body);
                prop_assert_eq!(&ours.authorization, &expected);
            }
        }
    }

    /// Signatures that botocore 1.40.40 computed for this request.
    #[test]
    fn same_as_another_implementation() {
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGd";
        let cases = [
            (
                None,
                "b3f2241ba3ee4c98c5bd9c07170c60ea79bd98f78f694e3c8d2aae3deaac0f6f",
            ),
            (
                Some(token),
                "0e59ca2b8b6aeddfb7d4c756ca3b1b6709219bea9b6c3aa8ad7b25e5cd67ad04",
            ),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let target = "AmazonSQS.ReceiveMessage";
        let body =
            br#"{"QueueUrl":"https://sqs.us-east-1.amazonaws.com/123456789012/login-queue"}"#;
        for (token, signature) in cases {
            let signer = Signer::new("sqs.us-east-1.amazonaws.com", "us-east-1");
            let ours = signer.sign(&keys(token), now, TYPE, target, body);
            assert_eq!(ours.date_time, "20150830T123600Z");
            assert!(
                ours.authorization.ends_with(signature),
                "{}",
                ours.authorization
            );
        }
    }

    #[test]
    fn the_kept_key_is_for_one_day_and_one_set_of_keys() {
        let [one, other] =
            ["secret", "other secret"].map(|secret| Rc::new(Keys::unlimited("id", secret)));
        let today = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let tomorrow = today + Duration::from_secs(86_400);
        let old_hand = Signer::new("h", "eu-west-1");
        for (now, keys) in [
            (today, &one),
            (tomorrow, &one),
            (tomorrow, &other),
            (tomorrow, &one),
        ] {
            let beginner = Signer::new("h", "eu-west-1");
            let [ours, expected] =
                [&old_hand, &beginner].map(|signer| signer.sign(keys, now, TYPE, "t", b"{}"));
            assert_eq!(ours.authorization, expected.authorization);
        }
    }

    #[test]
    fn times_are_in_basic_format() {
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        assert_eq!(basic_format(time), "20150830T123600Z");
    }
}
