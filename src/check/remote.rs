//! What an examination of a queue found, check by check: from the credentials, over the way to the server, to what the
//! queue says of itself.

use std::time::{Duration, SystemTime};

use queue::{
    Attributes, Encryption, Error, ErrorKind, Examination, MOST_IN_FLIGHT, Network, Queue, Redrive,
    Right,
};

use super::{Finding, text};
use crate::ingest::failure_of;
use crate::settings;

/// A certificate that ends sooner than this should have been renewed.
const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// AWS refuses requests whose time is off by more than a few minutes.
const CLOCK_TOLERANCE: i64 = 60;

/// The number of messages in flight that is worth a warning.
const MANY_IN_FLIGHT: u64 = MOST_IN_FLIGHT as u64 * 3 / 4;

/// Transactions that are rolled back count as receives, too.
const LEAST_RECEIVES: u32 = 5;
/// A rejected message holds up its group until it is gone.
const LEAST_RECEIVES_FIFO: u32 = 3;

/// What is said of everything that only the queue could tell.
const ALLOW_ATTRIBUTES: &str = "Allow the server's AWS identity sqs:GetQueueAttributes on the queue. \
                                Ingesting works without it.";

/// What is said of what could not be found out because something else failed.
const SEE_OTHERS: &str = "See \"credentials\", \"connection\" and \"answer\".";

/// Everything that was found out about `queue`, in the order in which one thing needs the other.
pub fn findings(queue: &Queue, found: &Examination) -> Vec<(&'static str, Finding)> {
    let mut findings = vec![
        ("credentials", credentials(queue, found)),
        ("connection", connection(queue, found)),
        ("TLS", tls(queue, found)),
        ("answer", answer(queue, found)),
        ("clock", clock(found)),
        ("right to receive", right_to_receive()),
        ("right to delete", right(&found.delete, "sqs:DeleteMessage")),
        (
            "right to change visibility",
            right(&found.change_visibility, "sqs:ChangeMessageVisibility"),
        ),
        ("right to get attributes", right_to_get_attributes(found)),
    ];
    let of_attributes: [(&'static str, OfAttributes); 5] = [
        ("messages", messages),
        ("redrive policy", redrive_policy),
        ("dead-letter queue", dead_letter_queue),
        ("retention", retention),
        ("encryption", encryption),
    ];
    findings.extend(of_attributes.map(|(name, check)| {
        let finding = match &found.attributes {
            Ok(attributes) => check(queue, found, attributes),
            Err(error) => {
                let hint = if error.kind == ErrorKind::AccessDenied {
                    ALLOW_ATTRIBUTES
                } else {
                    SEE_OTHERS
                };
                Finding::unknown("the queue could not be asked", hint)
            }
        };
        (name, finding)
    }));
    findings
}

/// A check of what the queue says of itself.
type OfAttributes = fn(&Queue, &Examination, &Attributes) -> Finding;

fn credentials(queue: &Queue, found: &Examination) -> Finding {
    let credentials = match &found.credentials {
        Ok(credentials) => credentials,
        Err(error) => return failed(queue, error),
    };
    let source = &credentials.source;
    match credentials.expiry.map(time_until) {
        None => Finding::ok(format!("from: {source}")),
        Some(Some(left)) => Finding::ok(format!(
            "from: {source}; they expire in {}",
            text::duration(left)
        )),
        Some(None) => Finding::error(
            format!("from: {source}; they have expired"),
            "Renew them, and look at this machine's clock.",
        ),
    }
}

/// How long it is until then; none if it is past.
fn time_until(time: SystemTime) -> Option<Duration> {
    time.duration_since(SystemTime::now()).ok()
}

fn connection(queue: &Queue, found: &Examination) -> Finding {
    let Network {
        host,
        proxy,
        connection,
        ..
    } = match &found.network {
        Ok(network) => network,
        Err(error) => return failed(queue, error),
    };
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => return failed(queue, error),
    };
    let way = match proxy {
        Some(proxy) => format!("{host} through the proxy {proxy}"),
        None => host.clone(),
    };
    let detail = format!(
        "{way}: {}, connected to {} in {}",
        text::count_of(connection.addresses as u64, "address", "addresses"),
        connection.address,
        text::milliseconds(connection.time)
    );
    Finding::ok(detail)
}

fn tls(queue: &Queue, found: &Examination) -> Finding {
    let tls = match &found.network {
        Ok(network) => &network.tls,
        Err(_) => return not_found_out(),
    };
    let tls = match tls {
        None => {
            return Finding::warning(
                "connections to the server are not encrypted",
                "Use https:// in the queue URL, unless the server is on this machine or in a private network.",
            );
        }
        Some(Ok(tls)) => tls,
        Some(Err(error)) if error.kind == ErrorKind::Tls => return failed(queue, error),
        Some(Err(error)) => {
            let detail = format!("could not be found out: {}", error.detail);
            return Finding::unknown(detail, SEE_OTHERS);
        }
    };
    match tls.not_after.map(time_until) {
        None => Finding::ok(tls.version),
        Some(Some(left)) if left >= CERTIFICATE_ENDS_SOON => Finding::ok(format!(
            "{}, the server's certificate expires in {}",
            tls.version,
            text::duration(left)
        )),
        Some(left) => Finding::warning(
            format!(
                "{}, the server's certificate expires in {}",
                tls.version,
                text::duration(left.unwrap_or_default())
            ),
            "Ask the server's operator to renew it, and check this machine's clock.",
        ),
    }
}

/// Whether the server answers as SQS does, whatever identity it associates with these credentials.
fn answer(queue: &Queue, found: &Examination) -> Finding {
    if found.credentials.is_err() {
        return Finding::unknown(
            "no call was made, because there are no credentials",
            "See \"credentials\".",
        );
    }
    let rights = [&found.delete, &found.change_visibility];
    let unknown = rights.into_iter().find_map(|right| match right {
        Right::Unknown(error) => Some(error),
        Right::Allowed | Right::Denied(_) => None,
    });
    match (unknown, found.fastest_call) {
        (Some(error), _) => failed(queue, error),
        (None, Some(time)) => Finding::ok(format!(
            "the server answers as SQS does, at best within {}",
            text::milliseconds(time)
        )),
        (None, None) => Finding::ok("the server answers as SQS does"),
    }
}

fn clock(found: &Examination) -> Finding {
    let Some(ahead) = found.clock_ahead else {
        return Finding::unknown("no response carried a date", SEE_OTHERS);
    };
    let difference = text::duration(Duration::from_secs(ahead.unsigned_abs()));
    if ahead.abs() <= CLOCK_TOLERANCE {
        return Finding::ok("this machine's clock agrees with the server's");
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::warning(
        format!("this machine's clock is {difference} {direction} the server's"),
        "Set the clock, as with chrony or systemd-timesyncd. Requests are signed with the server's time once it is \
         known, but credentials and certificates are judged by this machine's, and lags are wrong.",
    )
}

fn right_to_receive() -> Finding {
    Finding::unknown(
        "sqs:ReceiveMessage was not tested, because that would receive messages",
        "sqs_peek() tries it, and gives the messages back.",
    )
}

fn right(right: &Right, action: &str) -> Finding {
    match right {
        Right::Allowed => Finding::ok(format!("{action} is allowed")),
        Right::Denied(error) => Finding::error(
            format!("{action} is denied: {}", error.detail),
            format!("Allow the server's AWS identity {action} on the queue."),
        ),
        Right::Unknown(_) => not_found_out(),
    }
}

fn right_to_get_attributes(found: &Examination) -> Finding {
    match &found.attributes {
        Ok(_) => Finding::ok("sqs:GetQueueAttributes is allowed"),
        Err(error) if error.kind == ErrorKind::AccessDenied => Finding::unknown(
            format!("sqs:GetQueueAttributes is denied: {}", error.detail),
            ALLOW_ATTRIBUTES,
        ),
        Err(_) => not_found_out(),
    }
}

fn messages(_queue: &Queue, _found: &Examination, attributes: &Attributes) -> Finding {
    let told = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let detail = format!(
        "about {} visible, {} in flight, {} delayed; only CloudWatch reports the age of the oldest",
        told(attributes.visible),
        told(attributes.in_flight),
        told(attributes.delayed)
    );
    if attributes
        .in_flight
        .is_some_and(|count| count >= MANY_IN_FLIGHT)
    {
        return Finding::warning(
            format!("{detail}; once {MOST_IN_FLIGHT} are in flight, no more are handed out"),
            "Commit smaller batches, as sqs_drain does. Messages that are received and not deleted stay in flight \
             until their visibility timeout ends.",
        );
    }
    Finding::ok(detail)
}

fn redrive_policy(queue: &Queue, _found: &Examination, attributes: &Attributes) -> Finding {
    let Some(Redrive {
        dead_letter_queue,
        max_receive_count,
    }) = &attributes.redrive
    else {
        return Finding::warning(
            "there is none: a rejected message comes back until its retention period is over, and is then lost",
            "Give the queue a dead-letter queue; docs/operations.md shows how.",
        );
    };
    let least = if queue.url().is_fifo() {
        LEAST_RECEIVES_FIFO
    } else {
        LEAST_RECEIVES
    };
    let detail = format!(
        "a message that was received {max_receive_count} times goes to \"{dead_letter_queue}\""
    );
    if *max_receive_count < least {
        return Finding::warning(
            detail,
            format!(
                "Set maxReceiveCount to {least} or more: every receive counts, also of a good message whose \
                 transaction was rolled back."
            ),
        );
    }
    Finding::ok(detail)
}

fn dead_letter_queue(_queue: &Queue, found: &Examination, _attributes: &Attributes) -> Finding {
    match &found.dead_letters {
        None => Finding::ok("there is none"),
        Some(Err(_)) => Finding::unknown(
            "the dead-letter queue could not be asked",
            "Allow the server's AWS identity sqs:GetQueueAttributes on it, too.",
        ),
        Some(Ok(attributes)) => match attributes.visible {
            Some(count) if count > 0 => Finding::warning(
                format!("{} in it", text::count(count, "message")),
                "sqs_rejected says why messages of this server were rejected. Once the cause is gone, move them back: \
                 docs/operations.md shows how.",
            ),
            _ => Finding::ok("it is empty"),
        },
    }
}

fn retention(_queue: &Queue, found: &Examination, attributes: &Attributes) -> Finding {
    let Some(own) = attributes.retention else {
        return Finding::unknown(
            "the queue does not say for how long it keeps messages",
            ALLOW_ATTRIBUTES,
        );
    };
    let bound = settings::ledger_retention();
    let detail = format!(
        "the queue keeps messages for {}, user_logins_sqs.ledger_retention is {}",
        text::duration(own),
        text::duration(bound)
    );
    const HINT: &str = "Increase user_logins_sqs.ledger_retention: what the ledger has forgotten makes a second \
                        row when it is redelivered.";
    if own > bound {
        return Finding::error(detail, HINT);
    }
    match &found.dead_letters {
        Some(Ok(Attributes {
            retention: Some(dead_letters),
            ..
        })) if *dead_letters > bound => Finding::warning(
            format!(
                "{detail}, and the dead-letter queue keeps them for {}",
                text::duration(*dead_letters)
            ),
            HINT,
        ),
        _ => Finding::ok(detail),
    }
}

fn encryption(_queue: &Queue, _found: &Examination, attributes: &Attributes) -> Finding {
    match &attributes.encryption {
        Encryption::None => Finding::warning(
            "the queue is not encrypted: bodies, with raw addresses in them, are stored in plain text",
            "Use SSE-SQS or SSE-KMS: set the queue's attribute SqsManagedSseEnabled to true.",
        ),
        Encryption::Sqs => Finding::ok("SSE-SQS"),
        Encryption::Kms(key) => Finding::ok(format!(
            "SSE-KMS with key {key}, which the server's AWS identity needs kms:Decrypt on"
        )),
    }
}

/// The failure that a call which ingests would raise.
fn failed(queue: &Queue, error: &Error) -> Finding {
    failure_of(queue, error.clone()).into()
}

/// Something else failed before, and is reported there.
fn not_found_out() -> Finding {
    Finding::unknown("could not be found out", SEE_OTHERS)
}
