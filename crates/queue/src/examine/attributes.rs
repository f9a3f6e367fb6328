//! What a queue says of itself: GetQueueAttributes.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName as Name;
use serde_json::Value;

use crate::client::Client;
use crate::error::Error;

/// What a queue says of itself. `None`: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Messages that a receive could get, about.
    pub visible: Option<u64>,
    /// Messages received, and neither deleted nor visible again, about.
    pub in_flight: Option<u64>,
    /// Messages that cannot be received yet, about.
    pub delayed: Option<u64>,
    /// For how long it keeps a message.
    pub retention: Option<Duration>,
    /// Where messages go that were received too often.
    pub redrive: Option<Redrive>,
    /// How messages are kept.
    pub encryption: Encryption,
}

/// A redrive policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The name of the dead-letter queue, which is of the same account and region.
    pub dead_letter_queue: String,
    /// A message that was received so often is not handed out once more.
    pub max_receive_count: u32,
}

/// How a queue keeps its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// In clear, as far as it says.
    #[default]
    None,
    /// With a key of SQS' own.
    Sqs,
    /// With a key of KMS, of this id: `kms:Decrypt` is needed.
    Kms(String),
}

impl Redrive {
    fn parse(policy: &str) -> Option<Redrive> {
        let policy: Value = serde_json::from_str(policy).ok()?;
        let count = &policy["maxReceiveCount"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        let arn = policy["deadLetterTargetArn"].as_str()?;
        Some(Redrive {
            dead_letter_queue: arn.rsplit(':').next().unwrap_or(arn).to_owned(),
            max_receive_count: u32::try_from(count).unwrap_or(u32::MAX),
        })
    }

    /// The URL of the dead-letter queue of the queue `url`.
    pub(super) fn url_beside(&self, url: &str) -> String {
        let place = url.rsplit_once('/').map_or("", |(place, _)| place);
        format!("{place}/{}", self.dead_letter_queue)
    }
}

impl Attributes {
    fn of(said: &HashMap<Name, String>) -> Attributes {
        let number = |name| said.get(&name).and_then(|text| text.parse().ok());
        let kms = said
            .get(&Name::KmsMasterKeyId)
            .filter(|key| !key.is_empty());
        let sqs = said
            .get(&Name::SqsManagedSseEnabled)
            .is_some_and(|text| text == "true");
        Attributes {
            visible: number(Name::ApproximateNumberOfMessages),
            in_flight: number(Name::ApproximateNumberOfMessagesNotVisible),
            delayed: number(Name::ApproximateNumberOfMessagesDelayed),
            retention: number(Name::MessageRetentionPeriod).map(Duration::from_secs),
            redrive: said
                .get(&Name::RedrivePolicy)
                .and_then(|text| Redrive::parse(text)),
            encryption: match kms {
                Some(key) => Encryption::Kms(key.clone()),
                None if sqs => Encryption::Sqs,
                None => Encryption::None,
            },
        }
    }
}

/// Asks the queue `url`.
pub(super) async fn ask(client: &Client, url: &str, limit: Duration) -> Result<Attributes, Error> {
    let output = client
        .call(limit, |sdk| {
            sdk.get_queue_attributes()
                .queue_url(url)
                .attribute_names(Name::All)
                .send()
        })
        .await?
        .0;
    Ok(Attributes::of(&output.attributes.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_names_queue_and_count() {
        let of = |count: &str| {
            Redrive::parse(&format!(
                r#"{{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:123456789012:dead","maxReceiveCount":{count}}}"#
            ))
        };
        let expected = Redrive {
            dead_letter_queue: "dead".to_owned(),
            max_receive_count: 5,
        };
        assert_eq!(of("5").as_ref(), Some(&expected));
        assert_eq!(of("\"5\"").as_ref(), Some(&expected));
        assert_eq!(of("null"), None);
        assert_eq!(Redrive::parse("nonsense"), None);
        assert_eq!(
            expected.url_beside("https://sqs.eu-west-1.amazonaws.com/123456789012/q"),
            "https://sqs.eu-west-1.amazonaws.com/123456789012/dead"
        );
    }

    #[test]
    fn what_a_queue_does_not_say_is_not_known() {
        assert_eq!(Attributes::of(&HashMap::new()), Attributes::default());
        let said = HashMap::from([
            (Name::ApproximateNumberOfMessages, "7".to_owned()),
            (Name::MessageRetentionPeriod, "345600".to_owned()),
            (Name::KmsMasterKeyId, "alias/key".to_owned()),
        ]);
        let attributes = Attributes::of(&said);
        assert_eq!(attributes.visible, Some(7));
        assert_eq!(attributes.retention, Some(Duration::from_secs(345_600)));
        assert_eq!(
            attributes.encryption,
            Encryption::Kms("alias/key".to_owned())
        );
    }
}
