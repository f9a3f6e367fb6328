//! Where requests go and for which region they are signed.

use aws_config::SdkConfig;
use aws_sdk_sqs::config::Builder as SdkBuilder;
use aws_types::service_config::ServiceConfigKey;

use crate::error::{Error, ErrorKind};
use crate::url::{InvalidQueueUrl, Origin, QueueUrl, is_region};

/// Where requests for a queue go and for which region they are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub origin: Origin,
    pub region: String,
    /// It was named, so nothing that the server's AWS configuration says of endpoints counts.
    pub is_explicit: bool,
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
            Some(text) => parse_endpoint(text)?,
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
        Ok(Endpoint {
            origin,
            region,
            is_explicit: endpoint_url.is_some(),
        })
    }

    /// A client's configuration for this endpoint, which is AWS', and where it then sends its requests.
    ///
    /// `AWS_ENDPOINT_URL_SQS`, `AWS_ENDPOINT_URL`, `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT` and what the
    /// profile says of these count as in every SDK. Only a VPC endpoint in the queue URL stays as it is.
    pub(crate) fn configured(&self, config: &SdkConfig) -> Result<(SdkBuilder, Origin), Error> {
        let builder = SdkBuilder::from(config);
        if let Some(url) = configured_url(config) {
            let origin = parse_endpoint(&url).map_err(|why| {
                Error::new(
                    ErrorKind::Refused,
                    format!("in the server's AWS configuration, {why}"),
                )
            })?;
            return Ok(at(builder, &origin));
        }
        let is_another = config.use_fips() == Some(true) || config.use_dual_stack() == Some(true);
        if is_another && !self.origin.is_vpc_endpoint() {
            return Ok((builder, self.origin.clone()));
        }
        Ok(at(builder, &self.origin))
    }
}

/// Has a client send its requests to `origin`.
pub(crate) fn at(builder: SdkBuilder, origin: &Origin) -> (SdkBuilder, Origin) {
    let builder = builder
        .endpoint_url(origin.as_str())
        .use_fips(false)
        .use_dual_stack(false);
    (builder, origin.clone())
}

/// The endpoint URL in environment or profile: SQS' own, else the one for every service.
fn configured_url(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("SQS")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    let of_sqs = config
        .service_config()
        .and_then(|services| services.load_config(key));
    of_sqs.or_else(|| config.endpoint_url().map(str::to_owned))
}

/// Credentials and bodies must not travel to AWS in clear, and what is AWS' but not SQS' cannot be an endpoint.
fn parse_endpoint(text: &str) -> Result<Origin, InvalidEndpoint> {
    let (origin, path) = Origin::parse(text).map_err(InvalidEndpoint::Url)?;
    if !matches!(path, "" | "/") {
        return Err(InvalidEndpoint::Path);
    }
    origin.check().map_err(InvalidEndpoint::Url)?;
    Ok(origin)
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
    fn the_region_comes_from_argument_url_environment_or_default() {
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
    fn an_endpoint_or_region_that_cannot_be_is_refused() {
        use InvalidEndpoint::*;
        assert_eq!(
            endpoint(LOCAL, Some("localhost"), None, &[]),
            Err(Url(InvalidQueueUrl::Scheme))
        );
        assert_eq!(endpoint(LOCAL, Some("http://h/x"), None, &[]), Err(Path));
        assert_eq!(
            endpoint(AWS, Some("http://sqs.eu-west-1.amazonaws.com"), None, &[]),
            Err(Url(InvalidQueueUrl::Unencrypted))
        );
        assert_eq!(
            endpoint(AWS, Some("https://s3.eu-west-1.amazonaws.com"), None, &[]),
            Err(Url(InvalidQueueUrl::NotSqs))
        );
        assert_eq!(endpoint(LOCAL, None, Some("eu west"), &[]), Err(Region));
        assert_eq!(
            endpoint(LOCAL, None, None, &[("AWS_REGION", "EU\n")]),
            Err(Region)
        );
    }
}
