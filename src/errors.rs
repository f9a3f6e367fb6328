//! Every failure of ours, and what Postgres' users see of it: SQLSTATE, message, DETAIL, HINT.

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use queue::{ErrorKind, InvalidEndpoint, InvalidQueueUrl};
use vault::{RecipientsError, SealError};

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
    /// The text is no queue URL.
    NotAQueueUrl(InvalidQueueUrl),
    /// `endpoint_url` or `region` cannot be used.
    BadEndpoint(InvalidEndpoint),
    /// `allowed_queues` does not have it.
    QueueNotAllowed { queue: String },
    /// The file that `mask_key_file` names cannot be read.
    MaskKeyUnreadable { file: String, why: std::io::Error },
    /// The key is too short to keep anything secret.
    MaskKeyTooShort {
        file: String,
        bytes: usize,
        least: usize,
    },
    /// The file that `vault_recipients_file` names cannot be read.
    RecipientsUnreadable { file: String, why: std::io::Error },
    /// It names no recipients, or something else.
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
    /// Row-level security lets no row of the caller in.
    NoPolicy { table: String },
    /// `what` would run with the rights of the owner of a table of ours.
    ForeignCode { what: String, remedy: String },
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
    /// There is no such subscription.
    NotSubscribed { queue: String },
    /// `user_logins` refuses row after row.
    AllRefused {
        table: String,
        rows: u64,
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
        let Said {
            code,
            message,
            detail,
            hint,
        } = said(failure);
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

struct Said {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Said {
    fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Said {
        Said {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    fn detail(self, detail: impl Into<String>) -> Said {
        Said {
            detail: Some(detail.into()),
            ..self
        }
    }

    fn hint(self, hint: impl Into<String>) -> Said {
        Said {
            hint: Some(hint.into()),
            ..self
        }
    }
}

fn said(failure: Failure) -> Said {
    use Failure::*;
    use PgSqlErrorCode::*;
    match failure {
        NullArgument(argument) => Said::new(
            ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("{argument} must not be NULL"),
        )
        .hint(match argument {
            "queue_url" => "Give the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue.",
            "n" => "Give the most messages to receive.",
            "value" => "Give an ip or a device_id, as messages have it.",
            _ => "Leave it out to have its default.",
        }),
        OutOfRange { argument, value, range } => {
            Said::new(ERRCODE_INVALID_PARAMETER_VALUE, format!("{argument} is out of range: {value}"))
                .hint(format!("It must be {range}."))
        }
        NotAQueueUrl(why) => Said::new(ERRCODE_INVALID_PARAMETER_VALUE, "not the URL of an SQS queue")
            .detail(why.to_string())
            .hint(
                "A queue URL looks like https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue; \
                 \"aws sqs get-queue-url --queue-name login-queue\" prints it.",
            ),
        BadEndpoint(why) => {
            Said::new(ERRCODE_INVALID_PARAMETER_VALUE, "user_logins_sqs.endpoint_url or region cannot be used")
                .detail(why.to_string())
                .hint("An endpoint is a scheme and a host, such as https://sqs.eu-west-1.amazonaws.com.")
        }
        QueueNotAllowed { queue } => {
            Said::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("queue \"{queue}\" is not allowed here"))
                .detail("No pattern in user_logins_sqs.allowed_queues matches its URL.")
                .hint("A superuser can add it to user_logins_sqs.allowed_queues.")
        }
        MaskKeyUnreadable { file, why } => {
            Said::new(ERRCODE_UNDEFINED_FILE, format!("could not read mask key file \"{file}\": {why}"))
                .detail("Nothing was received: masks made without the key would not match those made with it.")
                .hint("user_logins_sqs.mask_key_file must name a file that the server's operating-system user can read.")
        }
        MaskKeyTooShort { file, bytes, least } => Said::new(
            ERRCODE_INVALID_PARAMETER_VALUE,
            format!("the key in mask key file \"{file}\" is too short: {bytes} bytes"),
        )
        .detail(format!("At least {least} bytes are needed."))
        .hint("\"openssl rand -hex 32\" makes a good one."),
        RecipientsUnreadable { file, why } => {
            Said::new(ERRCODE_UNDEFINED_FILE, format!("could not read vault recipients file \"{file}\": {why}"))
                .detail("Nothing was received: originals could not be kept.")
                .hint("user_logins_sqs.vault_recipients_file must name a file that the server's operating-system user can read.")
        }
        RecipientsUnusable { file, why } => {
            Said::new(ERRCODE_INVALID_PARAMETER_VALUE, format!("cannot use vault recipients file \"{file}\": {why}"))
                .detail("Nothing was received: originals could not be kept.")
                .hint("It must hold a public key (age1...) on each line, as age-keygen prints it.")
        }
        DataKeyLost => Said::new(ERRCODE_INTERNAL_ERROR, "the data key of a sealed original is not known")
            .detail("Nobody could open what it sealed. No message was rejected; all are kept or released.")
            .hint("Try again in another session, and please report it."),
        CannotSeal(why) => Said::new(ERRCODE_SYSTEM_ERROR, format!("could not seal an original: {why}"))
            .detail("No message was rejected; all are kept or released.")
            .hint("Try again later."),
        NotInstalled => {
            Said::new(ERRCODE_UNDEFINED_OBJECT, "extension \"user_logins_sqs\" is not installed in this database")
                .hint("Use CREATE EXTENSION user_logins_sqs.")
        }
        NotUtf8 { encoding } => Said::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            "user_logins_sqs needs a database whose encoding is UTF8",
        )
        .detail(format!("That of this database is {encoding}, which cannot hold every message. Nothing was received."))
        .hint("Use CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and ingest there."),
        NoTable { table, create } => Said::new(ERRCODE_UNDEFINED_TABLE, format!("table {table} does not exist"))
            .detail("The rows of ingested messages go there. Nothing was received.")
            .hint(format!("Create it with: {create}")),
        Misshapen { table, problem, create } => {
            Said::new(ERRCODE_DATATYPE_MISMATCH, format!("table {table} cannot take logins"))
                .detail(problem)
                .hint(format!("It needs the columns of: {create} More columns are fine if they have defaults."))
        }
        NoInsertRight { table } => {
            Said::new(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for table {table}"))
                .detail("Rows are inserted with the rights of the caller. Nothing was received.")
                .hint(format!("The table's owner can GRANT INSERT ON {table} TO the role."))
        }
        NoPolicy { table } => Said::new(
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("row-level security of table {table} lets no row of the current user in"),
        )
        .detail("Rows are inserted with the rights of the caller. Nothing was received.")
        .hint(format!("The table's owner can use CREATE POLICY ... ON {table} FOR INSERT TO the role.")),
        ForeignCode { what, remedy } => Said::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{what} is not part of the extension"),
        )
        .detail("The extension writes its tables with the rights of their owners, which that code would have too.")
        .hint(remedy),
        CannotCommit => Said::new(
            ERRCODE_INVALID_TRANSACTION_TERMINATION,
            "sqs_drain cannot run inside a transaction block, a function or an EXCEPTION block",
        )
        .detail("It commits after each batch. Nothing was received.")
        .hint("CALL it on its own, or use sqs_ingest, which is part of your transaction."),
        CannotPrepare => Said::new(
            ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has ingested messages",
        )
        .detail("Its messages are deleted when it commits, by this session; a prepared one may be committed by another.")
        .hint("Use COMMIT."),
        NotPreloaded => Said::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "user_logins_sqs must be loaded via shared_preload_libraries",
        )
        .detail("Background workers and statistics can only be had by a library that is loaded when the server starts.")
        .hint("Add user_logins_sqs to shared_preload_libraries in postgresql.conf, as in shared_preload_libraries = 'user_logins_sqs', and restart the server."),
        WrongDatabase { database } => Said::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("subscriptions live in database \"{database}\""),
        )
        .hint("Subscribe there, or set user_logins_sqs.database to this database and restart the server."),
        CannotLogin { role } => Said::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("role \"{role}\" is not permitted to log in"),
        )
        .detail("Workers connect as the role that subscribed.")
        .hint("Use ALTER ROLE ... LOGIN (no password is needed), or subscribe as another role."),
        NotSubscriber { queue } => Said::new(
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("the subscription of queue \"{queue}\" belongs to another role"),
        )
        .hint("Its role, a member of that role, or a superuser can change it."),
        NotSubscribed { queue } => {
            Said::new(ERRCODE_UNDEFINED_OBJECT, format!("queue \"{queue}\" is not subscribed to"))
                .hint("Table sqs_subscription lists the subscriptions.")
        }
        AllRefused { table, rows, last } => Said::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} refuses every row"),
        )
        .detail(format!("It refused {rows} rows in succession and took none. The last refusal was {last}."))
        .hint("Check its constraints, triggers and policies. No message was rejected; all are kept or released."),
        NoPartition { table, message } => Said::new(
            ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} has no partition for a row"),
        )
        .detail(format!("Postgres said: {message}."))
        .hint("Create the partition, or a DEFAULT partition. No message was rejected; all are kept or released."),
        NoIoThread(why) => {
            Said::new(ERRCODE_INSUFFICIENT_RESOURCES, format!("could not start the I/O thread: {why}"))
                .hint("The limit on processes and threads of the server's operating-system user may be reached.")
        }
        Sqs { queue, host, region, error } => sqs(&queue, &host, &region, error),
    }
}

fn sqs(queue: &str, host: &str, region: &str, error: queue::Error) -> Said {
    use PgSqlErrorCode::*;
    let (code, message, hint) = match error.kind {
        ErrorKind::Unreachable => (
            ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
            format!("could not reach \"{host}\""),
            "Check the queue URL, user_logins_sqs.endpoint_url, and that this server may connect to that host and port.",
        ),
        ErrorKind::Tls => (
            ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
            format!("could not make a secure connection to \"{host}\""),
            "The server needs the certificates of the authorities that it trusts (Debian: package ca-certificates).",
        ),
        ErrorKind::Broken => (
            ERRCODE_CONNECTION_FAILURE,
            format!("the connection to \"{host}\" broke"),
            "Nothing is lost: what may have been received comes back after its visibility timeout. Try again.",
        ),
        ErrorKind::TimedOut => (
            ERRCODE_CONNECTION_FAILURE,
            format!("\"{host}\" did not answer in time"),
            "Nothing is lost: what may have been received comes back after its visibility timeout. Try again.",
        ),
        ErrorKind::NoSuchQueue => (
            ERRCODE_UNDEFINED_OBJECT,
            format!("queue \"{queue}\" does not exist"),
            "Check account, region and name in the queue URL.",
        ),
        ErrorKind::AccessDenied => (
            ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("access to queue \"{queue}\" denied"),
            "The server's AWS identity needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility.",
        ),
        ErrorKind::NoCredentials => (
            ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            "no AWS credentials found".to_owned(),
            "Give the server's operating-system user credentials: an instance or task role, a profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its environment.",
        ),
        ErrorKind::BadCredentials => (
            ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            format!("\"{host}\" did not accept the AWS credentials"),
            "Check that they are current, that the region is right, and that this machine's clock is.",
        ),
        ErrorKind::Throttled => (
            ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("queue \"{queue}\" is throttled"),
            "Lower user_logins_sqs.receive_concurrency or try again later.",
        ),
        ErrorKind::OverLimit => (
            ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("queue \"{queue}\" has too many messages in flight"),
            "Commit smaller batches (sqs_drain does), or wait until other consumers have deleted theirs.",
        ),
        ErrorKind::Unavailable => (
            ERRCODE_SYSTEM_ERROR,
            format!("\"{host}\" is unavailable"),
            "Nothing is lost. Try again later.",
        ),
        ErrorKind::NotSqs => (
            ERRCODE_PROTOCOL_VIOLATION,
            format!("\"{host}\" does not answer as SQS does"),
            "Check the queue URL and user_logins_sqs.endpoint_url; a proxy may be in the way.",
        ),
        ErrorKind::Refused => (
            ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
            format!("\"{host}\" refused the request"),
            "The DETAIL is what it said.",
        ),
        ErrorKind::Internal => (
            ERRCODE_INTERNAL_ERROR,
            "the I/O thread failed".to_owned(),
            "Nothing is lost. A new session starts a new one; please report this.",
        ),
    };
    let signed_for = match error.kind {
        ErrorKind::NoSuchQueue | ErrorKind::BadCredentials => {
            format!(" Requests are signed for region \"{region}\".")
        }
        _ => String::new(),
    };
    Said::new(code, message)
        .detail(error.detail)
        .hint(format!("{hint}{signed_for}"))
}
