//! Receives, decodes and deletes with the extension's own client, without Postgres.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use benches::client::{Options, report};
use benches::clock;
use login::{Decoder, Masker, VersionEncoding};
use queue::{Fate, Io, Next, Queue, QueueUrl, Receipt, Receive};
use rustix::event::{PollFd, PollFlags, poll};

type Failure = Box<dyn std::error::Error>;

/// As many as the extension deletes after a commit of this many messages.
const RECEIPTS_AT_ONCE: usize = 1000;
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let ran = Options::parse()
        .map_err(Failure::from)
        .and_then(|options| run(&options));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("queue-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let started_at = clock::monotonic().as_secs_f64();
    let io = Io::start()?;
    let messages = drain(&io, options)?;
    if !io.shut_down(SETTLE_DEADLINE) {
        return Err("deletes are left over".into());
    }
    report(messages, started_at);
    Ok(())
}

fn drain(io: &Io, options: &Options) -> Result<u64, Failure> {
    let queue = Queue::new(QueueUrl::parse(&options.url)?, None, None, Arc::new(()))?;
    let how = Receive {
        limit: Some(options.messages),
        until_empty: true,
        wait: Duration::from_secs(1),
        concurrency: options.concurrency,
        visibility: Duration::from_secs(300),
    };
    let decoder = Decoder::new(Masker::plain(), VersionEncoding::Digits);
    let mut inlet = io.receive(&queue, how, move |body| decoder.decode(body));

    let mut messages = 0;
    let mut receipts: Vec<Receipt> = Vec::with_capacity(RECEIPTS_AT_ONCE);
    loop {
        match inlet.next() {
            Next::Messages(received) => {
                messages += received.len() as u64;
                for message in received {
                    message.content.map_err(|_| "a message is not a login")?;
                    receipts.push(message.receipt);
                }
                if receipts.len() >= RECEIPTS_AT_ONCE {
                    settle(io, options, std::mem::take(&mut receipts));
                }
            }
            Next::Nothing => wait(io)?,
            Next::End(_) => break,
            Next::Failed(error) => return Err(error.into()),
        }
    }
    settle(io, options, receipts);
    while io.unsettled() > 0 {
        wait(io)?;
    }
    Ok(messages)
}

fn settle(io: &Io, options: &Options, receipts: Vec<Receipt>) {
    io.settle(
        receipts,
        if options.delete {
            Fate::Delete
        } else {
            Fate::Leave
        },
    );
}

/// Waits until the I/O thread has something new to look at.
fn wait(io: &Io) -> io::Result<()> {
    // SAFETY: `io` keeps its eventfd open for as long as it lives, which is longer than this call.
    let eventfd = unsafe { BorrowedFd::borrow_raw(io.fd()) };
    poll(&mut [PollFd::new(&eventfd, PollFlags::IN)], None)?;
    io.acknowledge();
    Ok(())
}
