//! Receives, decodes and deletes with aws-sdk-sqs as it comes, on one thread, without Postgres: what to measure the
//! use that the extension makes of it against.

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName};
use aws_sdk_sqs::{Client, Config};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use benches::client::{Options, report};
use benches::clock;
use login::{Decoder, Masker, VersionEncoding};
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

type Failure = Box<dyn std::error::Error>;

const VISIBILITY_SECONDS: i32 = 300;
const WAIT_SECONDS: i32 = 1;

fn main() -> ExitCode {
    let ran = Options::parse().map_err(Failure::from).and_then(run);
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sdk-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let started_at = clock::monotonic().as_secs_f64();
    let messages = LocalSet::new().block_on(&runtime, drain(options))?;
    report(messages, started_at);
    Ok(())
}

async fn drain(options: Options) -> Result<u64, Failure> {
    let client = client(&options.url);
    let options = Rc::new(options);
    let asked_for = Arc::new(AtomicU64::new(0));
    let (received, to_delete) = mpsc::channel(options.concurrency * 4);
    let to_delete = Rc::new(Mutex::new(to_delete));

    let receivers: Vec<_> = (0..options.concurrency)
        .map(|_| {
            let receiving = receive(
                client.clone(),
                Rc::clone(&options),
                Arc::clone(&asked_for),
                received.clone(),
            );
            tokio::task::spawn_local(receiving)
        })
        .collect();
    drop(received);
    let deleters: Vec<_> = (0..options.concurrency)
        .map(|_| {
            tokio::task::spawn_local(delete(
                client.clone(),
                Rc::clone(&options),
                Rc::clone(&to_delete),
            ))
        })
        .collect();

    let mut messages = 0;
    for receiver in receivers {
        messages += receiver.await??;
    }
    for deleter in deleters {
        deleter.await??;
    }
    Ok(messages)
}

fn client(url: &str) -> Client {
    let endpoint = url.rsplitn(3, '/').last().unwrap_or_default();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(
            "benchmark",
            "benchmark",
            None,
            None,
            "benchmark",
        ))
        .endpoint_url(endpoint)
        .http_client(http)
        .build();
    Client::from_conf(config)
}

/// Receives until everything was asked for or a poll comes back empty; returns the number of messages.
async fn receive(
    client: Client,
    options: Rc<Options>,
    asked_for: Arc<AtomicU64>,
    received: mpsc::Sender<Vec<Message>>,
) -> Result<u64, Failure> {
    let decoder = Decoder::new(Masker::plain(), VersionEncoding::Digits);
    let mut count = 0;
    while asked_for.fetch_add(10, Ordering::Relaxed) < options.messages {
        let response = client
            .receive_message()
            .queue_url(&options.url)
            .max_number_of_messages(10)
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(VISIBILITY_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await?;
        let messages = response.messages.unwrap_or_default();
        if messages.is_empty() {
            break;
        }
        for message in &messages {
            let body = message.body().unwrap_or_default();
            decoder
                .decode(body)
                .map_err(|_| "a message is not a login")?;
        }
        count += messages.len() as u64;
        if options.delete {
            received.send(messages).await?;
        }
    }
    Ok(count)
}

async fn delete(
    client: Client,
    options: Rc<Options>,
    to_delete: Rc<Mutex<mpsc::Receiver<Vec<Message>>>>,
) -> Result<(), Failure> {
    loop {
        let Some(messages) = to_delete.lock().await.recv().await else {
            return Ok(());
        };
        let mut entries = Vec::with_capacity(messages.len());
        for (number, message) in messages.into_iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .set_receipt_handle(message.receipt_handle)
                .build()?;
            entries.push(entry);
        }
        let response = client
            .delete_message_batch()
            .queue_url(&options.url)
            .set_entries(Some(entries))
            .send()
            .await?;
        if !response.failed.is_empty() {
            return Err("a delete failed".into());
        }
    }
}
