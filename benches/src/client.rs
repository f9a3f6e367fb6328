//! What the clients without Postgres share: their options, and what they say of a run.

use serde_json::json;

use crate::clock;

/// What a client is to do.
pub struct Options {
    /// The queue's URL.
    pub url: String,
    /// Messages to receive at most.
    pub messages: u64,
    /// ReceiveMessage calls in flight at most.
    pub concurrency: usize,
    /// Whether to delete what was received.
    pub delete: bool,
}

impl Options {
    /// Reads the program's arguments: `URL [--messages N] [--concurrency N] [--keep]`.
    ///
    /// # Errors
    /// A sentence, when an argument is missing, unknown or no number.
    pub fn parse() -> Result<Options, String> {
        let mut arguments = std::env::args().skip(1);
        let url = arguments.next().ok_or("the queue's URL is missing")?;
        let mut options = Options {
            url,
            messages: 100_000,
            concurrency: 256,
            delete: true,
        };
        while let Some(name) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|value| value.parse().ok());
                value.ok_or(format!("{name} needs a number"))
            };
            match name.as_str() {
                "--messages" => options.messages = number()?,
                "--concurrency" => options.concurrency = number()? as usize,
                "--keep" => options.delete = false,
                _ => return Err(format!("{name} is not an option")),
            }
        }
        Ok(options)
    }
}

/// Prints what a run did as one line of JSON: how many messages were received, and when it started (on the machine's
/// monotonic clock) and ended, and the processor time used, all in seconds.
pub fn report(messages: u64, started_at: f64) {
    let run = json!({
        "messages": messages,
        "started_at": started_at,
        "finished_at": clock::monotonic().as_secs_f64(),
        "cpu_seconds": clock::process_cpu().as_secs_f64(),
    });
    println!("{run}");
}
