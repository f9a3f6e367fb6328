//! The settings `user_logins_sqs.*`: each one private static, with its text for users beside it, and one accessor.

use std::ffi::CString;
use std::time::Duration;

use crate::pg::worker::is_being_preloaded;
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
static RECEIVE_CONCURRENCY: GucSetting<i32> = GucSetting::<i32>::new(16);
static VISIBILITY_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30);
static REJECTED_MESSAGES: GucSetting<RejectedMessages> =
    GucSetting::<RejectedMessages>::new(RejectedMessages::Leave);

static DATABASE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"postgres"));
static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1_000);
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

/// The file that names whom originals are sealed for, if they are.
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

/// How long SQS hides a received message before it gives it to somebody else.
pub fn visibility_timeout() -> Duration {
    Duration::from_secs(u64::try_from(VISIBILITY_TIMEOUT.get()).unwrap_or(1))
}

/// What happens to rejected messages.
pub fn rejected_messages() -> RejectedMessages {
    REJECTED_MESSAGES.get()
}

/// The database that subscriptions live in.
pub fn database() -> String {
    text(&DATABASE).unwrap_or_else(|| "postgres".to_owned())
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

/// Makes the settings known to Postgres.
pub fn init() {
    connection();
    masking();
    vault();
    receiving();
    subscriptions();
    // SAFETY: a nul-terminated name, on the main thread while the library is loaded.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"user_logins_sqs".as_ptr()) };
}

fn connection() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.endpoint_url",
        c"Sends requests here instead of to the host of the queue URL.",
        c"For VPC endpoints and proxies, such as https://vpce-0123.sqs.eu-west-1.vpce.amazonaws.com.",
        &ENDPOINT_URL,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"user_logins_sqs.region",
        c"AWS region to sign requests for.",
        c"Empty: the region that the queue URL names, else AWS_REGION of the server's environment, else us-east-1.",
        &REGION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"user_logins_sqs.allowed_queues",
        c"Queue URLs that may be ingested from, as patterns separated by commas.",
        c"In a pattern * stands for any characters and ? for one. Empty: every queue.",
        &ALLOWED_QUEUES,
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn masking() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.mask_key_file",
        c"File that holds the key with which ip and device_id are masked (HMAC-SHA-256).",
        c"Empty: plain SHA-256, which can be reversed by trying all addresses. Without the key nobody can do that.",
        &MASK_KEY_FILE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_enum_guc(
        c"user_logins_sqs.app_version_encoding",
        c"How app_version becomes an integer: digits (2.3.0 is 230) or sortable (2.3.0 is 2003000).",
        c"",
        &APP_VERSION_ENCODING,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn vault() {
    GucRegistry::define_string_guc(
        c"user_logins_sqs.vault_recipients_file",
        c"File that names the age recipients for whom the originals of masked values are sealed.",
        c"One public key (age1...) a line. Empty: originals are not kept.",
        &VAULT_RECIPIENTS_FILE,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.vault_retention",
        c"How long the vault keeps the original of a value, from the day on which it was seen last.",
        c"0: for ever.",
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
        c"Most ReceiveMessage calls in flight at once, ten messages each.",
        c"A quiet queue costs one call at a time; more are started while answers come back full.",
        &RECEIVE_CONCURRENCY,
        1,
        256,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.visibility_timeout",
        c"How long a received message is hidden from others before it comes back, if this server dies.",
        c"While the transaction is open it is extended, so it need not be as long as the transaction.",
        &VISIBILITY_TIMEOUT,
        1,
        43_200,
        GucContext::Userset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_enum_guc(
        c"user_logins_sqs.rejected_messages",
        c"Sets what happens to messages that are no logins: they are left in the queue, or deleted.",
        c"Messages that are left go to the dead-letter queue, by the queue's redrive policy. Logins that only the table refused are always left.",
        &REJECTED_MESSAGES,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn subscriptions() {
    // The launcher connects once. Only a preloaded library can define a setting of this kind, and only that has
    // a launcher.
    let context = if is_being_preloaded() {
        GucContext::Postmaster
    } else {
        GucContext::Sighup
    };
    GucRegistry::define_string_guc(
        c"user_logins_sqs.database",
        c"Database that subscriptions live in.",
        c"The launcher connects to it; the extension must be installed there.",
        &DATABASE,
        context,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.batch_size",
        c"Most messages that a worker writes in one transaction.",
        c"Under load a worker commits when so many are there.",
        &BATCH_SIZE,
        1,
        100_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.linger",
        c"How long a worker lets a message wait for others to share its transaction.",
        c"On a quiet queue this is added to the time from sending to the committed row.",
        &LINGER,
        0,
        60_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"user_logins_sqs.ledger_retention",
        c"How long the ledger remembers a message, from when it was sent.",
        c"Longer than the queue's retention period, which is 14 days at most: a message redelivered after that would make a second row.",
        &LEDGER_RETENTION,
        1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
}
