//! The entries of one request, ten at most: what the answer says of each.

/// Most messages in a response and entries in a request (SQS developer guide, "Quotas").
pub(crate) const MOST_ENTRIES: usize = 10;

/// The id of each entry of a request: its place.
pub(crate) const ENTRY_IDS: [&str; MOST_ENTRIES] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// What an answer says about one entry of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// The same entry will never be taken.
    Refused,
    /// Failed for now, or not mentioned at all.
    Again,
}

/// An entry that failed.
pub(crate) struct Failed<'a> {
    pub id: &'a str,
    pub code: &'a str,
    pub is_senders_fault: bool,
}

impl Failed<'_> {
    /// SQS says whose fault it was, except that it blames the sender for sending too much, which passes. LocalStack
    /// always blames itself, so the codes of a handle that is no longer good count too.
    fn verdict(&self) -> Verdict {
        let is_throttled = self.code.contains("Throttl")
            || matches!(
                self.code,
                "OverLimit"
                    | "AWS.SimpleQueueService.OverLimit"
                    | "RequestLimitExceeded"
                    | "TooManyRequestsException"
            );
        let is_final = self.is_senders_fault
            || matches!(
                self.code,
                "ReceiptHandleIsInvalid"
                    | "MessageNotInflight"
                    | "AWS.SimpleQueueService.MessageNotInflight"
                    | "InvalidIdFormat"
                    | "InvalidParameterValue"
                    | "InvalidParameterValueException"
            );
        if is_final && !is_throttled {
            Verdict::Refused
        } else {
            Verdict::Again
        }
    }
}

/// The verdict on each of the first `count` entries, in order.
pub(crate) fn verdicts<'a>(
    count: usize,
    successful: impl Iterator<Item = &'a str>,
    failed: impl Iterator<Item = Failed<'a>>,
) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Again; count];
    let mut set = |id: &str, verdict| {
        let place = ENTRY_IDS.iter().position(|known| *known == id);
        if let Some(slot) = place.and_then(|place| verdicts.get_mut(place)) {
            *slot = verdict;
        }
    };
    for id in successful {
        set(id, Verdict::Done);
    }
    for entry in failed {
        set(entry.id, entry.verdict());
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_has_a_verdict() {
        use Verdict::*;
        let failed = [
            ("0", "InternalError", false),
            ("2", "Whatever", true),
            ("3", "ReceiptHandleIsInvalid", false),
            ("5", "ThrottlingException", true),
            ("6", "RequestThrottled", true),
            ("12", "Whatever", true),
        ];
        let failed = failed.map(|(id, code, is_senders_fault)| Failed {
            id,
            code,
            is_senders_fault,
        });
        let found = verdicts(8, ["1", "99", "x"].into_iter(), failed.into_iter());
        assert_eq!(
            found,
            [Again, Done, Refused, Refused, Again, Again, Again, Again]
        );
    }
}
