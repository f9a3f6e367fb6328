//! Every failure of ours, and what Postgres' users see of it: SQLSTATE, message, DETAIL, HINT.

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use queue::{ErrorKind, InvalidEndpoint, InvalidQueueUrl};
use vault::{RecipientsError, SealError};

use crate::own_tables::IdleTrigger;

/// What a call can fail with, other than by an error of Postgres' own.
#[derive(Debug)]
pub enum Failure {
    /// An argument is NULL.
    NullArgument(&'static str),
    /// An argument is out of its range.
    OutOfRange {
        argument: &'static str,
        value: i64,
        range: &'static str,
    },
    /// The text is not a queue URL.
    NotAQueueUrl(InvalidQueueUrl),
    /// `endpoint_url` or `region` cannot be used.
    BadEndpoint(InvalidEndpoint),
    /// No pattern in `allowed_queues` matches it.
    QueueNotAllowed { queue: String },
    /// The file that `mask_key_file` names cannot be read.
    MaskKeyUnreadable { file: String, why: std::io::Error },
    /// The key is too short to keep anything secret.
    MaskKeyTooShort {
        file: String,
        bytes: usize,
        least: usize,
    },
    /// A line of a file with several keys is not a key.
    MaskKeyMalformed { file: String, line: usize },
    /// The file that `vault_recipients_file` names cannot be read.
    RecipientsUnreadable { file: String, why: std::io::Error },
    /// It names no recipients, or contains something else.
    RecipientsUnusable { file: String, why: RecipientsError },
    /// An original could not be sealed, through no fault of its message.
    CannotSeal(SealError),
    /// What was sealed cannot be written, since nobody could open it.
    DataKeyLost,
    /// The extension is not in this database.
    NotInstalled,
    /// Text is not UTF-8 in this database.
    NotUtf8 { encoding: String },
    /// There is no `user_logins`; `create` is the statement that makes it.
    NoTable { table: String, create: String },
    /// `user_logins` cannot take our rows; `create` is the statement that makes one that can.
    Misshapen {
        table: String,
        problem: String,
        create: String,
    },
    /// The caller may not insert.
    NoInsertRight { table: String },
    /// Row-level security admits no row of the caller.
    NoPolicy { table: String },
    /// `user_logins` is on another server than the ledger.
    ForeignTable { table: String },
    /// The ledger is on another server than `user_logins`, or is reached as somebody else.
    ForeignLedger { ledger: String, table: String },
    /// `user_logins` is on another server, and the vault never is.
    ForeignRows { table: String },
    /// `what` would run with the rights of the owner of a table of ours.
    ForeignCode { what: String, remedy: String },
    /// The owner of a table of ours may not use it.
    OwnerLacksRight {
        owner: String,
        table: String,
        right: String,
        object: String,
    },
    /// Nothing keeps a message from being entered in the ledger twice.
    NoLedgerKey { ledger: String },
    /// The name of a table of ours means another one than it did before.
    Renamed { table: String },
    /// A trigger of ours that the vault relies on does not do its work.
    IdleTrigger(IdleTrigger),
    /// Others than their owner could be allowed to read the tables of the vault.
    VaultOpenToOthers { table: String },
    /// `sqs_drain` was called where it may not commit.
    CannotCommit,
    /// PREPARE TRANSACTION after an ingest.
    CannotPrepare,
    /// Subscriptions need the library to be preloaded.
    NotPreloaded,
    /// Subscriptions live in another database.
    WrongDatabase { database: String },
    /// A worker could not connect as the role.
    CannotLogin { role: String },
    /// The subscription belongs to another role.
    NotSubscriber { queue: String },
    /// A row of `sqs_subscription` names a role that its writer has no rights of.
    NotMember { role: String },
    /// The subscription does not exist.
    NotSubscribed { queue: String },
    /// `user_logins` refuses row after row.
    AllRefused {
        table: String,
        rows: usize,
        last: String,
    },
    /// `user_logins` has no partition for a row. `message` is Postgres' own.
    NoPartition { table: String, message: String },
    /// The I/O thread could not be started.
    NoIoThread(std::io::Error),
    /// SQS refused or could not be reached.
    Sqs {
        queue: String,
        host: String,
        region: String,
        error: queue::Error,
    },
}

impl From<InvalidQueueUrl> for Failure {
    fn from(error: InvalidQueueUrl) -> Failure {
        Failure::NotAQueueUrl(error)
    }
}

impl From<InvalidEndpoint> for Failure {
    fn from(error: InvalidEndpoint) -> Failure {
        Failure::BadEndpoint(error)
    }
}

impl From<Failure> for ErrorReport {
    #[track_caller]
    fn from(failure: Failure) -> ErrorReport {
        let Report {
            code,
            message,
            detail,
            hint,
        } = report_of(failure);
        let mut report = ErrorReport::new(code, message, "user_logins_sqs");
        if let Some(detail) = detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = hint {
            report = report.set_hint(hint);
        }
        report
    }
}

struct Report {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Report {
    fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Report {
        Report {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    fn detail(self, detail: impl Into<String>) -> Report {
        Report {
            detail: Some(detail.into()),
            ..self
        }
    }

    fn hint(self, hint: impl Into<String>) -> Report {
        Report {
            hint: Some(hint.into()),
            ..self
        }
    }
}

fn report_of(failure: Failure) -> Report {
    use Failure::*;
    use PgSqlErrorCode::*;
    match failure {
        NullArgument(argument) => Report::new(
            ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("{argument} must not be NULL"),
        )
        .hint(match argument {
            "queue_url" => "Pass the URL of a queue, such as \
             https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue.",
            "n" => "Pass the maximum number of messages to receive.",
            "value" => "Pass an ip or a device_id, as messages have it.",
            _ => "Omit the argument to use its default.",
        }),
        OutOfRange { argument, value, range } => {
            Report::new(ERRCODE_INVALID_PARAMETER_VALUE, format!("{argument} is out of range: {value}"))
                .hint(format!("It must be {range}."))
        }
        NotAQueueUrl(why) => Report::new(ERRCODE_INVALID_PARAMETER_VALUE, "not the URL of an SQS queue")
            .detail(sentence(&why.to_string()))
            .hint(
                "A queue URL looks like https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue; \
                 \"aws sqs get-queue-url --queue-name login-queue\" prints it.",
            ),
        BadEndpoint(why) => Report::new(
            ERRCODE_INVALID_PARAMETER_VALUE,
            "invalid user_logins_sqs.endpoint_url or user_logins_sqs.region",
        )
        .detail(sentence(&why.to_string()))
        .hint("An endpoint is a scheme and a host, such as https://sqs.eu-west-1.amazonaws.com."),
        QueueNotAllowed { queue } => {
            Report::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("queue \"{queue}\" is not allowed here"))
                .detail("No pattern in user_logins_sqs.allowed_queues matches its URL.")
                .hint("A superuser can add it to user_logins_sqs.allowed_queues.")
        }
        MaskKeyUnreadable { file, why } => {
            Report::new(ERRCODE_UNDEFINED_FILE, format!("could not read mask key file \"{file}\": {why}"))
                .detail("Nothing was received, because masks made without the key would not match those made with it.")
                .hint("user_logins_sqs.mask_key_file must name a file that the server's \
                    operating-system user can read.")
        }
        MaskKeyTooShort { file, bytes, least } => Report::new(
            ERRCODE_INVALID_PARAMETER_VALUE,
            format!("the key in mask key file \"{file}\" is too short: {bytes} bytes"),
        )
        .detail(format!("A key has at least {least} bytes."))
        .hint("Generate one with \"openssl rand -hex 32\"."),
        MaskKeyMalformed { file, line } => Report::new(
            ERRCODE_INVALID_PARAMETER_VALUE,
            format!("line {line} of mask key file \"{file}\" is not a key"),
        )
        .detail("In a file of more than one line, each line must be a name and a key.")
        .hint("Write one key per line as \"name: key\", the current key first, or a single key without a name."),
        RecipientsUnreadable { file, why } => {
            Report::new(ERRCODE_UNDEFINED_FILE, format!("could not read vault recipients file \"{file}\": {why}"))
                .detail("Nothing was received, since originals could not be kept.")
                .hint("user_logins_sqs.vault_recipients_file must name a file that the server's \
                    operating-system user can read.")
        }
        RecipientsUnusable { file, why } => {
            Report::new(ERRCODE_INVALID_PARAMETER_VALUE, format!("invalid vault recipients file \"{file}\": {why}"))
                .detail("Nothing was received, since originals could not be kept.")
                .hint("The file must hold one public key (age1...) per line, as printed by age-keygen.")
        }
        DataKeyLost => Report::new(ERRCODE_INTERNAL_ERROR, "the data key of a sealed original is not known")
            .detail("Nobody could open what it sealed. No message was rejected; all are kept or released.")
            .hint("Try again in another session, and please report it."),
        CannotSeal(why) => Report::new(ERRCODE_SYSTEM_ERROR, format!("could not seal an original: {why}"))
            .detail("No message was rejected; all are kept or released.")
            .hint("Try again later."),
        NotInstalled => {
            Report::new(ERRCODE_UNDEFINED_OBJECT, "extension \"user_logins_sqs\" is not installed in this database")
                .hint("Use CREATE EXTENSION user_logins_sqs.")
        }
        NotUtf8 { encoding } => Report::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            "user_logins_sqs requires a database with encoding UTF8",
        )
        .detail(format!("The encoding of this database is {encoding}, which cannot represent \
            every message. Nothing was received."))
        .hint("Create a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and \
            install the extension there."),
        NoTable { table, create } => Report::new(ERRCODE_UNDEFINED_TABLE, format!("table {table} does not exist"))
            .detail("Ingested messages are inserted into this table. Nothing was received.")
            .hint(format!("Create the table: {create}")),
        Misshapen { table, problem, create } => {
            Report::new(ERRCODE_DATATYPE_MISMATCH, format!("table {table} cannot store logins"))
                .detail(problem)
                .hint(format!("The table must have the columns of: {create} Additional columns need defaults."))
        }
        NoInsertRight { table } => {
            Report::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for table {table}"))
                .detail("Rows are inserted with the rights of the caller. Nothing was received.")
                .hint(format!("Ask the table's owner to GRANT INSERT ON {table}."))
        }
        NoPolicy { table } => Report::new(
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("row-level security policies of table {table} do not allow the current user to INSERT"),
        )
        .detail("Rows are inserted with the rights of the caller. Nothing was received.")
        .hint(format!("Ask the table's owner to CREATE POLICY ... ON {table} FOR INSERT.")),
        ForeignTable { table } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} is a foreign table but the ledger is not"),
        )
        .detail("The two servers do not commit together, so a failure between their commits can \
            insert a message twice. Nothing was received.")
        .hint("Put the ledger on the same foreign server, or set \
            user_logins_sqs.allow_foreign_table if duplicate rows are acceptable."),
        ForeignLedger { ledger, table } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("foreign ledger {ledger} does not commit together with table {table}"),
        )
        .detail("Both must be foreign tables of one server, reached through one user mapping; \
            otherwise messages can be lost. Nothing was received.")
        .hint("Create the user mapping FOR PUBLIC, so that the ledger's owner and the caller share it."),
        ForeignRows { table } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("sqs_vault does not commit together with foreign table {table}"),
        )
        .detail("A crash between the two commits would leave rows whose originals are lost. Nothing was received.")
        .hint("Use a local table, or set user_logins_sqs.vault_recipients_file to an empty string."),
        ForeignCode { what, remedy } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{what} is not part of the extension"),
        )
        .detail("The extension writes its tables with their owners' privileges, and would run that code with them.")
        .hint(remedy),
        OwnerLacksRight { owner, table, right, object } => Report::new(
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("role {owner}, the owner of table {table}, does not have {right} privilege on {object}"),
        )
        .detail("The extension uses its tables with their owners' privileges. Nothing was received.")
        .hint(format!("Use GRANT {right} ON {object} TO {owner}.")),
        NoLedgerKey { ledger } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {ledger} has no unique index on (sent_at, message_id)"),
        )
        .detail("A redelivered message would become a second row. Nothing was received.")
        .hint(format!("Use CREATE UNIQUE INDEX ON {ledger} (sent_at, message_id).")),
        Renamed { table } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} was renamed or moved while it was in use"),
        )
        .hint("Try again."),
        Failure::IdleTrigger(trigger) => {
            Report::new(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, trigger.problem)
                .detail("Sessions would rely on originals in the vault that others have deleted. Nothing was received.")
                .hint(trigger.remedy)
        }
        VaultOpenToOthers { table } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("row-level security is not enabled for table {table}"),
        )
        .detail("Roles with rights on all tables could read sealed originals. Nothing was received.")
        .hint(format!("Use ALTER TABLE {table} ENABLE ROW LEVEL SECURITY.")),
        CannotCommit => Report::new(
            ERRCODE_INVALID_TRANSACTION_TERMINATION,
            "sqs_drain cannot run inside a transaction block, a function or an EXCEPTION block",
        )
        .detail("It commits after each batch. Nothing was received.")
        .hint("Use a top-level CALL, or call sqs_ingest, which runs in your transaction."),
        CannotPrepare => Report::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has ingested messages",
        )
        .detail("This session deletes the messages when the transaction commits, but a prepared \
            transaction may be committed by another session.")
        .hint("Use COMMIT."),
        NotPreloaded => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "user_logins_sqs must be loaded via shared_preload_libraries",
        )
        .detail("Background workers and statistics require that the library is loaded at server start.")
        .hint("Add it to postgresql.conf, as in shared_preload_libraries = 'user_logins_sqs', and restart the server."),
        WrongDatabase { database } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("subscriptions are managed in database \"{database}\""),
        )
        .hint("Call the function there, or set user_logins_sqs.database to this database."),
        CannotLogin { role } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("role \"{role}\" is not permitted to log in"),
        )
        .detail("Workers connect as the role that subscribed.")
        .hint("Use ALTER ROLE ... LOGIN (a password is not needed), or subscribe as another role."),
        NotSubscriber { queue } => Report::new(
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("the subscription of queue \"{queue}\" belongs to another role"),
        )
        .hint("Only that role, its members and superusers can change it."),
        NotMember { role } => Report::new(
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be a member of role \"{role}\" to subscribe as it"),
        )
        .detail("Workers run as the role that a row of sqs_subscription names.")
        .hint("Subscribe as that role, or ask for membership in it."),
        NotSubscribed { queue } => {
            Report::new(ERRCODE_UNDEFINED_OBJECT, format!("subscription to queue \"{queue}\" does not exist"))
                .hint("See sqs_subscription.")
        }
        AllRefused { table, rows, last } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} refuses every row"),
        )
        .detail(format!("At least {rows} rows in succession were refused. The last error was {last}."))
        .hint("Check the table's constraints, triggers and policies. No message was rejected."),
        NoPartition { table, message } => Report::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} has no partition for a row"),
        )
        .detail(format!("The error was: {message}."))
        .hint("Create the partition, or a DEFAULT partition. No message was rejected."),
        NoIoThread(why) => {
            Report::new(ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start the I/O thread: {why}"))
                .hint("Check the limit on processes and threads of the server's operating-system user.")
        }
        Sqs { queue, host, region, error } => sqs(&queue, &host, &region, error),
    }
}

fn sqs(queue: &str, host: &str, region: &str, error: queue::Error) -> Report {
    use PgSqlErrorCode::*;
    let (code, message, hint) = match error.kind {
        ErrorKind::Unreachable => (
            ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
            format!("could not reach \"{host}\""),
            "Check the queue URL, user_logins_sqs.endpoint_url, and whether this server can \
             connect to that host and port.",
        ),
        ErrorKind::Tls => (
            ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
            format!("could not establish a TLS connection to \"{host}\""),
            "Check that the certificates of trusted authorities are installed (on Debian, package ca-certificates).",
        ),
        ErrorKind::Broken => (
            ERRCODE_CONNECTION_FAILURE,
            format!("lost connection to \"{host}\""),
            "Try again. Messages that may have been received become visible again after their visibility timeout.",
        ),
        ErrorKind::TimedOut => (
            ERRCODE_CONNECTION_FAILURE,
            format!("\"{host}\" did not answer in time"),
            "Try again. Messages that may have been received become visible again after their visibility timeout.",
        ),
        ErrorKind::NoSuchQueue => (
            ERRCODE_UNDEFINED_OBJECT,
            format!("queue \"{queue}\" does not exist"),
            "Check the account, region and name in the queue URL.",
        ),
        ErrorKind::AccessDenied => (
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("access to queue \"{queue}\" denied"),
            "The server's AWS identity needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility.",
        ),
        ErrorKind::NoCredentials => (
            ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            "could not find AWS credentials".to_owned(),
            "Provide credentials to the server process: an instance or task role, a profile, or \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its environment.",
        ),
        ErrorKind::CredentialsFailed => (
            ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            "could not get AWS credentials".to_owned(),
            "Check the credential source that the server's environment or profile names.",
        ),
        ErrorKind::BadCredentials => (
            ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            format!("\"{host}\" rejected the AWS credentials"),
            "Check that the credentials are current and that the region and this server's clock are correct.",
        ),
        ErrorKind::Throttled => (
            ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("queue \"{queue}\" is throttled"),
            "Try again later, or lower user_logins_sqs.receive_concurrency.",
        ),
        ErrorKind::OverLimit => (
            ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("queue \"{queue}\" has too many messages in flight"),
            "Commit smaller batches, as sqs_drain does, or wait until other consumers have deleted their messages.",
        ),
        ErrorKind::Unavailable => (
            ERRCODE_SYSTEM_ERROR,
            format!("\"{host}\" is unavailable"),
            "Try again later.",
        ),
        ErrorKind::NotSqs => (
            ERRCODE_PROTOCOL_VIOLATION,
            format!("unexpected response from \"{host}\""),
            "Check the queue URL and user_logins_sqs.endpoint_url, and whether a proxy answers instead of SQS.",
        ),
        ErrorKind::Refused => (
            ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
            format!("\"{host}\" refused the request"),
            "SQS gave the reason in the DETAIL.",
        ),
        ErrorKind::Internal => (
            ERRCODE_INTERNAL_ERROR,
            "the I/O thread failed".to_owned(),
            "Reconnect to start a new one, and please report this.",
        ),
    };
    let signed_for = match error.kind {
        ErrorKind::NoSuchQueue | ErrorKind::BadCredentials => {
            format!(" Requests are signed for region \"{region}\".")
        }
        _ => String::new(),
    };
    let see_check = if sqs_check_tells_more(error.kind) {
        SEE_CHECK
    } else {
        ""
    };
    Report::new(code, message)
        .detail(sentence(&error.detail))
        .hint(format!("{hint}{signed_for}{see_check}"))
}

/// `text`, a clause, as a sentence. What is a name is not capitalised: a host, a field.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let word = text.split(' ').next().unwrap_or_default();
    let word = word.trim_end_matches(':');
    let first = word.chars().next();
    match first.filter(|_| word.chars().all(|c| c.is_ascii_lowercase())) {
        Some(first) => format!("{}{}.", first.to_ascii_uppercase(), &text[1..]),
        None => format!("{text}."),
    }
}

/// The end of a hint where `sqs_check` can say more.
pub const SEE_CHECK: &str = " sqs_check(queue_url) shows what works and what does not.";

fn sqs_check_tells_more(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    matches!(
        kind,
        Unreachable
            | Tls
            | TimedOut
            | NoSuchQueue
            | AccessDenied
            | NoCredentials
            | CredentialsFailed
            | BadCredentials
            | NotSqs
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_becomes_a_sentence_and_a_name_stays_as_it_is() {
        for (clause, expected) in [
            (
                "it must not hold a user name",
                "It must not hold a user name.",
            ),
            (
                "Code: The queue does not exist.",
                "Code: The queue does not exist.",
            ),
            ("region: it must be short", "Region: it must be short."),
            (
                "sqs.example does not speak HTTP",
                "sqs.example does not speak HTTP.",
            ),
        ] {
            assert_eq!(sentence(clause), expected);
        }
    }
}
