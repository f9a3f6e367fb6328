//! The settings `user_logins_sqs.*`: each one private static, one accessor, and its registration below [`init`], with
//! its text for users.

use std::ffi::CString;
use std::time::Duration;

use crate::board;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

static ENDPOINT_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static REGION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ALLOWED_QUEUES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static MASK_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static VAULT_RECIPIENTS_FILE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(None);
static VAULT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(0);
static APP_VERSION_ENCODING: GucSetting<AppVersionEncoding> =
    GucSetting::<AppVersionEncoding>::new(AppVersionEncoding::Digits);
static RECEIVE_CONCURRENCY: GucSetting<i32> = GucSetting::<i32>::new(256);
static VISIBILITY_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30);
static REJECTED_MESSAGES: GucSetting<RejectedMessages> =
    GucSetting::<RejectedMessages>::new(RejectedMessages::Leave);

static ALLOW_FOREIGN_TABLE: GucSetting<bool> = GucSetting::<bool>::new(false);

static DATABASE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"postgres"));
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(5);
static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static LINGER: GucSetting<i32> = GucSetting::<i32>::new(10);
static LEDGER_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(15 * MINUTES_A_DAY);

const MINUTES_A_DAY: i32 = 24 * 60;

/// How `app_version` becomes an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
pub enum AppVersionEncoding {
    /// `2.3.0` → 230.
    #[name = c"digits"]
    Digits,
    /// `2.3.0` → 2003000.
    #[name = c"sortable"]
    Sortable,
}

/// What happens to a message that was rejected, once the transaction commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PostgresGucEnum)]
pub enum RejectedMessages {
    /// It stays in the queue, whose redrive policy takes it to its dead-letter queue.
    #[name = c"leave"]
    Leave,
    /// It is deleted.
    #[name = c"delete"]
    Delete,
}

/// Where requests go instead of the host of the queue URL.
pub fn endpoint_url() -> Option<String> {
    text(&ENDPOINT_URL)
}

/// The region to sign for, where the queue URL does not say.
pub fn region() -> Option<String> {
    text(&REGION)
}

/// The patterns of queue URLs that may be ingested from; empty: all.
pub fn allowed_queues() -> Vec<String> {
    let patterns = text(&ALLOWED_QUEUES).unwrap_or_default();
    patterns
        .split([',', ' ', '\n', '\t'])
        .filter(|pattern| !pattern.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The file that holds the key of the masks, if they are keyed.
pub fn mask_key_file() -> Option<String> {
    text(&MASK_KEY_FILE)
}

/// The file that names the recipients that originals are sealed for, if they are kept.
pub fn vault_recipients_file() -> Option<String> {
    text(&VAULT_RECIPIENTS_FILE)
}

/// How long the vault keeps the original of a value that is not seen any more; zero: for ever.
pub fn vault_retention() -> Duration {
    Duration::from_secs(60 * u64::try_from(VAULT_RETENTION.get()).unwrap_or(0))
}

/// How `app_version` becomes an integer.
pub fn app_version_encoding() -> AppVersionEncoding {
    APP_VERSION_ENCODING.get()
}

/// The most ReceiveMessage calls in flight.
pub fn receive_concurrency() -> usize {
    usize::try_from(RECEIVE_CONCURRENCY.get()).unwrap_or(1)
}

/// How long SQS hides a received message before it hands it out again.
pub fn visibility_timeout() -> Duration {
    Duration::from_secs(u64::try_from(VISIBILITY_TIMEOUT.get()).unwrap_or(1))
}

/// What happens to rejected messages.
pub fn rejected_messages() -> RejectedMessages {
    REJECTED_MESSAGES.get()
}

/// Whether `user_logins` may be a foreign table although the ledger is not.
pub fn allow_foreign_table() -> bool {
    ALLOW_FOREIGN_TABLE.get()
}

/// The database that subscriptions live in.
pub fn database() -> String {
    text(&DATABASE).unwrap_or_else(|| "postgres".to_owned())
}

/// The most workers, of all subscriptions together.
pub fn max_workers() -> usize {
    usize::try_from(MAX_WORKERS.get()).unwrap_or(0)
}

/// The most messages that a worker writes in one transaction.
pub fn batch_size() -> usize {
    usize::try_from(BATCH_SIZE.get()).unwrap_or(1)
}

/// How long a worker lets a message wait for others to share its transaction.
pub fn linger() -> Duration {
    Duration::from_millis(u64::try_from(LINGER.get()).unwrap_or(0))
}

/// How long the ledger remembers a message, from when it was sent.
pub fn ledger_retention() -> Duration {
    Duration::from_secs(60 * u64::try_from(LEDGER_RETENTION.get()).unwrap_or(0))
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let value = setting.get()?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// Registers the settings with Postgres.
pub fn init() {
    connection();
    masking();
    vault();
    receiving();
    writing();
    subscriptions();
    // SAFETY: a nul-terminated name, on the main thread while the library is loaded.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"user_logins_sqs".as_ptr()) };
}

fn connection() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.endpoint_url",
        c"Sets the endpoint that requests are sent to instead of the host of the queue URL.",
        c"For VPC endpoints and proxies, such as https://vpce-0123.sqs.eu-west-1.vpce.amazonaws.com.",
        &ENDPOINT_URL,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"user_logins_sqs.region",
        c"Sets the AWS region that requests are signed for.",
        c"If empty, the region is taken from the queue URL, the endpoint, AWS_REGION or AWS_DEFAULT_REGION \
          of the server, or is us-east-1.",
        &REGION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"user_logins_sqs.allowed_queues",
        c"Sets the queue URLs that may be ingested from, as comma-separated patterns.",
        c"In a pattern, * matches any characters and ? matches one. If empty, every queue is allowed.",
        &ALLOWED_QUEUES,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn masking() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.mask_key_file",
        c"Sets the file with the key for masking ip and device_id (HMAC-SHA-256).",
        c"If empty, masks are plain SHA-256, which can be reversed by trying all addresses.",
        &MASK_KEY_FILE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_enum_guc(
        c"user_logins_sqs.app_version_encoding",
        c"Sets how app_version is converted to an integer: digits (2.3.0 is 230) or sortable (2.3.0 is 2003000).",
        c"",
        &APP_VERSION_ENCODING,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn vault() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.vault_recipients_file",
        c"Sets the file that lists the age recipients that originals of masked values are sealed for.",
        c"One public key (age1...) per line. If empty, originals are not kept.",
        &VAULT_RECIPIENTS_FILE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.vault_retention",
        c"Sets how long the vault keeps an original, counted from the day its value was last seen.",
        c"0 keeps originals forever.",
        &VAULT_RETENTION,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
}

fn receiving() {
    GucRegistry::define_int_guc(
        c"user_logins_sqs.receive_concurrency",
        c"Sets the maximum number of concurrent ReceiveMessage calls.",
        c"A quiet queue takes one call at a time. Under load, the number grows for as long as \
         more calls bring more messages.",
        &RECEIVE_CONCURRENCY,
        1,
        // Half of the I/O thread's connections: the other half deletes what polls bring.
        256,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.visibility_timeout",
        c"Sets the visibility timeout of received messages.",
        c"While the transaction is open it is extended, so it need not be as long as the transaction. \
          Messages that arrive at a quiet queue are hidden for 3 s at first.",
        &VISIBILITY_TIMEOUT,
        1,
        43_200,
        GucContext::Userset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_enum_guc(
        c"user_logins_sqs.rejected_messages",
        c"Sets what happens to messages that are not logins: leave them in the queue, or delete them.",
        c"The queue's redrive policy moves messages that are left to its dead-letter queue. A \
         login that only the table refused is always left.",
        &REJECTED_MESSAGES,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn writing() {
    GucRegistry::define_bool_guc(
        c"user_logins_sqs.allow_foreign_table",
        c"Allows user_logins to be a foreign table while the ledger is not; messages are then inserted at least once.",
        c"The two servers do not commit together, so a failure between their commits can insert a message twice.",
        &ALLOW_FOREIGN_TABLE,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn subscriptions() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.database",
        c"Sets the database in which subscriptions are managed.",
        c"The launcher connects to it; the extension must be installed there.",
        &DATABASE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.max_workers",
        c"Sets the maximum number of workers of all subscriptions together.",
        c"If subscriptions ask for more, every queue gets one worker before any gets a second.",
        &MAX_WORKERS,
        0,
        board::SLOTS as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.batch_size",
        c"Sets the maximum number of messages that a worker writes in one transaction.",
        c"Under load, a worker writes what has arrived since its last commit, up to this number.",
        &BATCH_SIZE,
        1,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.linger",
        c"Sets how long a worker waits for more messages before it writes those that it has.",
        c"On a quiet queue, this adds to the time from sending a message to its committed row.",
        &LINGER,
        0,
        60_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.ledger_retention",
        c"Sets how long the ledger remembers a message, counted from when it was sent.",
        c"Keep it longer than the queue's retention period, since a message that is redelivered \
         later is inserted again.",
        &LEDGER_RETENTION,
        1,
        30 * MINUTES_A_DAY,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
}
