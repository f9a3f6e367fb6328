//! Where requests go and for which region they are signed.

use crate::url::{InvalidQueueUrl, Origin, QueueUrl, is_region};

/// Where requests for a queue go and for which region they are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub origin: Origin,
    pub region: String,
}

/// Why an endpoint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not `http[s]://host[:port]`.
    #[error("endpoint URL: {0}")]
    Url(InvalidQueueUrl),
    /// An endpoint with a path.
    #[error("endpoint URL: it must not have a path")]
    Path,
    /// A region that cannot be one.
    #[error("region: it must be lower-case letters, digits and hyphens, like eu-west-1")]
    Region,
}

impl Endpoint {
    pub(crate) fn of(
        url: &QueueUrl,
        endpoint_url: Option<&str>,
        region: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Endpoint, InvalidEndpoint> {
        let origin = match endpoint_url {
            None => url.origin().clone(),
            Some(text) => match Origin::parse(text).map_err(InvalidEndpoint::Url)? {
                (origin, "" | "/") => origin,
                _ => return Err(InvalidEndpoint::Path),
            },
        };
        let region = region
            .or(url.region())
            .or(origin.region())
            .map(str::to_owned)
            .or_else(|| environment("AWS_REGION").filter(|name| !name.is_empty()))
            .or_else(|| environment("AWS_DEFAULT_REGION").filter(|name| !name.is_empty()))
            .unwrap_or_else(|| "us-east-1".to_owned());
        if !is_region(&region) {
            return Err(InvalidEndpoint::Region);
        }
        Ok(Endpoint { origin, region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWS: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/q";
    const LOCAL: &str = "http://localhost:4566/000000000000/q";

    fn endpoint(
        url: &str,
        endpoint_url: Option<&str>,
        region: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::of(
            &QueueUrl::parse(url).unwrap(),
            endpoint_url,
            region,
            |name| {
                environment
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            },
        )
    }

    #[test]
    fn the_queue_url_is_the_endpoint_unless_there_is_another() {
        let plain = endpoint(AWS, None, None, &[]).unwrap();
        assert_eq!(plain.origin.as_str(), "https://sqs.eu-west-1.amazonaws.com");
        let moved = endpoint(AWS, Some("http://LOCALHOST:4566/"), None, &[]).unwrap();
        assert_eq!(moved.origin.as_str(), "http://localhost:4566");
        assert_eq!(moved.region, "eu-west-1");
    }

    #[test]
    fn region_comes_from_argument_url_environment_default() {
        let both = [
            ("AWS_REGION", "us-west-2"),
            ("AWS_DEFAULT_REGION", "us-west-1"),
        ];
        let region = |url, argument, environment: &[(&str, &str)]| {
            endpoint(url, None, argument, environment).unwrap().region
        };
        assert_eq!(region(AWS, Some("ap-south-1"), &both), "ap-south-1");
        assert_eq!(region(AWS, None, &both), "eu-west-1");
        assert_eq!(region(LOCAL, None, &both), "us-west-2");
        assert_eq!(region(LOCAL, None, &both[1..]), "us-west-1");
        assert_eq!(region(LOCAL, None, &[("AWS_REGION", "")]), "us-east-1");
        assert_eq!(region(LOCAL, None, &[]), "us-east-1");
        let vpc = Some("https://vpce-1-2.sqs.eu-west-3.vpce.amazonaws.com");
        assert_eq!(
            endpoint(LOCAL, vpc, None, &both).unwrap().region,
            "eu-west-3"
        );
    }

    #[test]
    fn refused() {
        use InvalidEndpoint::*;
        assert_eq!(
            endpoint(LOCAL, Some("localhost"), None, &[]),
            Err(Url(InvalidQueueUrl::Scheme))
        );
        assert_eq!(endpoint(LOCAL, Some("http://h/x"), None, &[]), Err(Path));
        assert_eq!(endpoint(LOCAL, None, Some("eu west"), &[]), Err(Region));
        assert_eq!(
            endpoint(LOCAL, None, None, &[("AWS_REGION", "EU\n")]),
            Err(Region)
        );
    }
}
