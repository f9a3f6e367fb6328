//! Queue URLs: which forms there are, and what each says about host, region and queue.

use std::net::Ipv6Addr;

/// A queue URL that was understood.
///
/// The forms, `NAME` being the queue's and `ACCOUNT` twelve digits:
///
/// | form | where |
/// |---|---|
/// | `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME` | AWS; also `sqs-fips.`, and the other partitions' suffixes |
/// | `https://sqs.REGION.api.aws/ACCOUNT/NAME` | AWS, dual stack |
/// | `https://vpce-ID.sqs.REGION.vpce.amazonaws.com/ACCOUNT/NAME` | AWS, VPC endpoint |
/// | `https://REGION.queue.amazonaws.com/ACCOUNT/NAME` | AWS, legacy |
/// | `https://queue.amazonaws.com/ACCOUNT/NAME` | AWS, legacy, us-east-1 |
/// | `http://sqs.REGION.localhost.localstack.cloud:4566/ACCOUNT/NAME` | LocalStack, standard |
/// | `http://REGION.queue.localhost.localstack.cloud:4566/ACCOUNT/NAME` | LocalStack, domain |
/// | `http://HOST:4566/queue/REGION/ACCOUNT/NAME` | LocalStack, path |
/// | `http://HOST:PORT/ACCOUNT/NAME`, `http://HOST:PORT/queue/NAME` | LocalStack, ElasticMQ and other emulators |
///
/// Scheme and host are lower-cased; a default port and a trailing slash are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueUrl {
    text: String,
    origin: Origin,
    name: String,
    region: Option<String>,
}

/// Which rule a queue URL breaks. Nothing of the URL is quoted: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQueueUrl {
    /// Neither `http://` nor `https://`.
    #[error("it must begin with http:// or https://")]
    Scheme,
    /// Something other than printable ASCII.
    #[error("it may hold printable ASCII characters only")]
    Character,
    /// `user:password@`.
    #[error("it must not hold a user name or password")]
    UserInfo,
    /// `?` or `#`.
    #[error("it must not have a query or a fragment")]
    Query,
    /// No host, or one that is neither a DNS name nor an address.
    #[error("its host is not a host name or an IP address")]
    Host,
    /// A port that is not a number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// A host of AWS that is none of SQS.
    #[error("its host belongs to AWS but is not an SQS endpoint")]
    NotSqs,
    /// `http://` with a host of AWS.
    #[error("a queue at AWS must be reached through https://")]
    Unencrypted,
    /// A path that is not `/ACCOUNT/NAME`.
    #[error("its path must be /ACCOUNT/NAME with a twelve-digit account number")]
    Path,
    /// A queue name SQS would not take.
    #[error(
        "its queue name must be 1 to 80 letters, digits, hyphens and underscores, \".fifo\" at the end included"
    )]
    Name,
}

impl QueueUrl {
    /// Understands `text`, whose surrounding white space is not forgiven.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(text: &str) -> Result<QueueUrl, InvalidQueueUrl> {
        let (origin, path) = Origin::parse(text)?;
        let site = origin.site()?;

        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let (path_region, name) = match segments[..] {
            [account, name] if is_account(account) => (None, name),
            ["queue", name] if !site.is_aws() => (None, name),
            ["queue", region, account, name]
                if !site.is_aws() && is_region(region) && is_account(account) =>
            {
                (Some(region), name)
            }
            _ => return Err(InvalidQueueUrl::Path),
        };
        if !is_queue_name(name) {
            return Err(InvalidQueueUrl::Name);
        }

        let region = path_region.or(site.region()).map(str::to_owned);
        Ok(QueueUrl {
            text: format!("{}{path}", origin.as_str()),
            name: name.to_owned(),
            region,
            origin,
        })
    }

    /// The normalised URL, as it is sent as `QueueUrl`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The queue's name, `login-queue`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host, lower case, without port; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.origin.host()
    }

    /// Whether it is a FIFO queue: their names end in `.fifo`.
    pub fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }

    /// The region that the URL names, if it names one.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Whether `pattern` fits the whole normalised URL: `*` is any run of characters, `?` any one.
    pub fn matches(&self, pattern: &str) -> bool {
        glob(pattern.as_bytes(), self.text.as_bytes())
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// Scheme, host and port, normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    text: String,
    host: String,
    encrypted: bool,
}

impl Origin {
    /// Splits `text` into its origin and its path (empty, or beginning with a slash).
    pub(crate) fn parse(text: &str) -> Result<(Origin, &str), InvalidQueueUrl> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidQueueUrl::Character);
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidQueueUrl::Scheme)?;
        let encrypted = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidQueueUrl::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidQueueUrl::Query);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidQueueUrl::UserInfo);
        }

        let (host, port_text) = split_port(authority)?;
        let default_port = if encrypted { 443 } else { 80 };
        let port = match port_text {
            None => default_port,
            Some(digits) => parse_port(digits)?,
        };
        let scheme = if encrypted { "https" } else { "http" };
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let text = if port == default_port {
            format!("{scheme}://{bracketed}")
        } else {
            format!("{scheme}://{bracketed}:{port}")
        };
        Ok((
            Origin {
                text,
                host,
                encrypted,
            },
            path,
        ))
    }

    /// `https://host[:port]`, without a slash at the end.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The server that answers there.
    ///
    /// # Errors
    /// AWS, but not SQS, or not through https.
    fn site(&self) -> Result<Site<'_>, InvalidQueueUrl> {
        let site = Site::of(&self.host)?;
        if site.is_aws() && !self.encrypted {
            return Err(InvalidQueueUrl::Unencrypted);
        }
        Ok(site)
    }

    /// That it is nothing of AWS' but SQS, and encrypted if it is.
    pub(crate) fn check(&self) -> Result<(), InvalidQueueUrl> {
        self.site().map(|_| ())
    }

    pub(crate) fn is_aws(&self) -> bool {
        aws_labels(&self.host).is_some()
    }

    /// Whether it is in a VPC of its own, whatever the server's configuration says of endpoints.
    pub(crate) fn is_vpc_endpoint(&self) -> bool {
        aws_labels(&self.host).is_some_and(|labels| labels.ends_with(".vpce"))
    }

    /// The region that the host names, if it names one.
    pub(crate) fn region(&self) -> Option<&str> {
        Site::of(&self.host).ok().and_then(|site| site.region())
    }
}

/// The domains under which AWS' partitions have their services
/// (`partitions.json` of the AWS SDKs: `dnsSuffix` and `dualStackDnsSuffix`).
const AWS_SUFFIXES: [&str; 14] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".api.aws",
    ".api.amazonwebservices.com.cn",
    ".api.amazonwebservices.eu",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".api.aws.ic.gov",
    ".api.aws.scloud",
    ".api.cloud-aws.adc-e.uk",
    ".api.aws.hci.ic.gov",
];

const LOCALSTACK_SUFFIX: &str = ".localhost.localstack.cloud";

/// Which server answers at a host, and for which region.
enum Site<'a> {
    Aws(&'a str),
    Other(Option<&'a str>),
}

impl<'a> Site<'a> {
    fn of(host: &'a str) -> Result<Site<'a>, InvalidQueueUrl> {
        if let Some(labels) = aws_labels(host) {
            return sqs_region(labels)
                .map(Site::Aws)
                .ok_or(InvalidQueueUrl::NotSqs);
        }
        Ok(Site::Other(
            host.strip_suffix(LOCALSTACK_SUFFIX).and_then(sqs_region),
        ))
    }

    fn is_aws(&self) -> bool {
        matches!(self, Site::Aws(_))
    }

    fn region(&self) -> Option<&'a str> {
        match *self {
            Site::Aws(region) => Some(region),
            Site::Other(region) => region,
        }
    }
}

/// What stands before AWS' domain, if `host` is under one.
fn aws_labels(host: &str) -> Option<&str> {
    AWS_SUFFIXES
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))
}

/// The region in the labels before the domain: `sqs.REGION`, `vpce-….sqs.REGION.vpce`, `REGION.queue`, `queue`.
fn sqs_region(labels: &str) -> Option<&str> {
    let labels: Vec<&str> = labels.split('.').collect();
    let region = match labels[..] {
        ["sqs" | "sqs-fips", region] => region,
        [endpoint, "sqs" | "sqs-fips", region, "vpce"] if endpoint.starts_with("vpce-") => region,
        [region, "queue"] => region,
        ["queue"] => "us-east-1",
        _ => return None,
    };
    is_region(region).then_some(region)
}

pub(crate) fn is_region(text: &str) -> bool {
    text.contains('-')
        && text.len() <= 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_queue_name(text: &str) -> bool {
    let base = text.strip_suffix(".fifo").unwrap_or(text);
    !base.is_empty()
        && text.len() <= 80
        && base
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Splits `host:port` and normalises the host.
fn split_port(authority: &str) -> Result<(String, Option<&str>), InvalidQueueUrl> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(InvalidQueueUrl::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| InvalidQueueUrl::Host)?;
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or(InvalidQueueUrl::Host)?),
        };
        return Ok((address.to_string(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if !is_host_name(host) {
        return Err(InvalidQueueUrl::Host);
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// DNS labels; underscores too, as container names have them.
fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

fn parse_port(digits: &str) -> Result<u16, InvalidQueueUrl> {
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(InvalidQueueUrl::Port),
    }
}

/// Matches with one position to fall back to, which is enough for `*` and keeps it linear in memory
/// and quadratic in time at worst.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                last_star = Some((at_pattern, at_text));
                at_pattern += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[at_text] => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => match last_star {
                None => return false,
                Some((star, taken)) => {
                    last_star = Some((star, taken + 1));
                    at_pattern = star + 1;
                    at_text = taken + 1;
                }
            },
        }
    }
    pattern[at_pattern..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_of_queue_url_is_read() {
        let forms = [
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue",
                true,
                Some("eu-west-1"),
            ),
            (
                "https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/login-queue",
                true,
                Some("us-gov-west-1"),
            ),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/login-queue",
                true,
                Some("cn-north-1"),
            ),
            (
                "https://cn-north-1.queue.amazonaws.com.cn/123456789012/login-queue",
                true,
                Some("cn-north-1"),
            ),
            (
                "https://sqs.eu-west-1.api.aws/123456789012/login-queue",
                true,
                Some("eu-west-1"),
            ),
            (
                "https://sqs.us-iso-east-1.c2s.ic.gov/123456789012/login-queue",
                true,
                Some("us-iso-east-1"),
            ),
            (
                "https://sqs.us-iso-east-1.api.aws.ic.gov/123456789012/login-queue",
                true,
                Some("us-iso-east-1"),
            ),
            (
                "https://sqs.us-isob-east-1.api.aws.scloud/123456789012/login-queue",
                true,
                Some("us-isob-east-1"),
            ),
            (
                "https://sqs.cn-north-1.api.amazonwebservices.com.cn/123456789012/login-queue",
                true,
                Some("cn-north-1"),
            ),
            (
                "https://eu-west-1.queue.amazonaws.com/123456789012/login-queue",
                true,
                Some("eu-west-1"),
            ),
            (
                "https://queue.amazonaws.com/123456789012/login-queue",
                true,
                Some("us-east-1"),
            ),
            (
                "https://vpce-0a1-b2c.sqs.eu-west-1.vpce.amazonaws.com/123456789012/login-queue",
                true,
                Some("eu-west-1"),
            ),
            (
                "http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/login-queue",
                false,
                Some("eu-west-1"),
            ),
            (
                "http://eu-west-1.queue.localhost.localstack.cloud:4566/000000000000/login-queue",
                false,
                Some("eu-west-1"),
            ),
            (
                "http://localhost:4566/queue/eu-west-1/000000000000/login-queue",
                false,
                Some("eu-west-1"),
            ),
            (
                "http://localhost:4566/000000000000/login-queue",
                false,
                None,
            ),
            (
                "http://localstack:4566/000000000000/login-queue",
                false,
                None,
            ),
            ("http://[::1]:4566/000000000000/login-queue", false, None),
            ("http://elastic_mq:9324/queue/login-queue", false, None),
            (
                "https://amazonaws.com.example.org/000000000000/login-queue",
                false,
                None,
            ),
        ];
        for (text, is_aws, region) in forms {
            let url = QueueUrl::parse(text).unwrap();
            assert_eq!(url.as_str(), text);
            assert_eq!(url.name(), "login-queue", "{text}");
            assert_eq!(url.origin().is_aws(), is_aws, "{text}");
            assert_eq!(url.region(), region, "{text}");
            assert!(!url.is_fifo());
        }
    }

    #[test]
    fn a_queue_url_is_normalised() {
        let same = [
            (
                "HTTPS://SQS.eu-west-1.AmazonAWS.com:443/123456789012/Q/",
                "https://sqs.eu-west-1.amazonaws.com/123456789012/Q",
            ),
            (
                "http://LocalHost:80/000000000000/a_b.fifo",
                "http://localhost/000000000000/a_b.fifo",
            ),
            (
                "http://[0:0::1]:81/000000000000/q",
                "http://[::1]:81/000000000000/q",
            ),
        ];
        for (text, normal) in same {
            assert_eq!(QueueUrl::parse(text).unwrap().as_str(), normal);
        }
        assert!(
            QueueUrl::parse("http://h/000000000000/q.fifo")
                .unwrap()
                .is_fifo()
        );
        assert_eq!(
            QueueUrl::parse("http://[::1]:81/000000000000/q")
                .unwrap()
                .host(),
            "::1"
        );
    }

    #[test]
    fn what_is_not_a_queue_url_is_refused() {
        use InvalidQueueUrl::*;
        let long = format!("http://h/000000000000/{}", "q".repeat(81));
        let cases = [
            ("", Scheme),
            ("login-queue", Scheme),
            ("ftp://h/000000000000/q", Scheme),
            (" http://h/000000000000/q", Character),
            ("http://h/000000000000/q\u{0}", Character),
            ("http://h/000000000000/kö", Character),
            ("http://user:secret@h/000000000000/q", UserInfo),
            ("http://h/000000000000/q?x", Query),
            ("http://h/000000000000/q#x", Query),
            ("http:///000000000000/q", Host),
            ("http://-h/000000000000/q", Host),
            ("http://a..b/000000000000/q", Host),
            ("http://[::1/000000000000/q", Host),
            ("http://[::1]x/000000000000/q", Host),
            ("http://h:/000000000000/q", Port),
            ("http://h:0/000000000000/q", Port),
            ("http://h:+1/000000000000/q", Port),
            ("http://h:65536/000000000000/q", Port),
            ("https://s3.eu-west-1.amazonaws.com/123456789012/q", NotSqs),
            ("https://sqs.amazonaws.com/123456789012/q", NotSqs),
            (
                "http://sqs.eu-west-1.amazonaws.com/123456789012/q",
                Unencrypted,
            ),
            ("http://h", Path),
            ("http://h/", Path),
            ("http://h/q", Path),
            ("http://h/00000000000/q", Path),
            ("http://h//000000000000/q", Path),
            ("http://h/000000000000/q/r", Path),
            ("https://sqs.eu-west-1.amazonaws.com/queue/q", Path),
            ("http://h/000000000000/", Path),
            ("http://h/000000000000/q%20", Name),
            ("http://h/000000000000/q.fif", Name),
            ("http://h/000000000000/.fifo", Name),
            (&long, Name),
        ];
        for (text, rule) in cases {
            assert_eq!(QueueUrl::parse(text), Err(rule), "{text}");
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_url() {
        let url = QueueUrl::parse("https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue")
            .unwrap();
        for fits in [
            "*",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue",
            "https://sqs.*.amazonaws.com/123456789012/*",
            "*/login-?ueue",
            "**login-queue**",
        ] {
            assert!(url.matches(fits), "{fits}");
        }
        for fails in [
            "",
            "?",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/login",
            "*/login-queue?",
            "*x",
        ] {
            assert!(!url.matches(fails), "{fails}");
        }
    }

    /// The textbook definition, exponential but plainly right.
    fn glob_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                glob_by_definition(rest, text)
                    || (!text.is_empty() && glob_by_definition(pattern, &text[1..]))
            }
            (Some((&p, rest)), Some((&t, more))) => {
                (p == b'?' || p == t) && glob_by_definition(rest, more)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn glob_is_its_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob(pattern, text), glob_by_definition(pattern, text));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
            let _ = QueueUrl::parse(&text);
        }

        #[test]
        fn what_is_parsed_stays_itself(
            host in "[a-zA-Z0-9]{1,8}(\\.[a-z0-9]{1,5}){0,2}",
            port in 1u16..,
            account in "[0-9]{12}",
            name in "[A-Za-z0-9_-]{1,75}(\\.fifo)?",
        ) {
            let url = QueueUrl::parse(&format!("http://{host}:{port}/{account}/{name}")).unwrap();
            prop_assert_eq!(url.name(), &name);
            prop_assert_eq!(url.host(), host.to_ascii_lowercase());
            prop_assert!(url.matches(url.as_str()));
            prop_assert_eq!(&QueueUrl::parse(url.as_str()).unwrap(), &url);
        }
    }
}
