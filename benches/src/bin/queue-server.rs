//! The queue server in memory, as a program: prints the URL of its queue and serves until it is ended.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::server::{DEFAULT_QUEUE, Server};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

const USAGE: &str = "queue-server [--port PORT] [--latency-ms MILLISECONDS] [--preload MESSAGES] [--certificate FILE]

Serves Amazon SQS' JSON protocol on 127.0.0.1 from memory, for benchmarks and tests, and prints the URL of the queue
`login-queue`. Port 0 (the default) takes a free one. With a certificate, the same port speaks HTTPS too: the server
makes one and writes it to FILE, which clients must trust (SSL_CERT_FILE).";

struct Options {
    port: u16,
    latency: Duration,
    preload: u64,
    certificate: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = match parse_options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("queue-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        port: 0,
        latency: Duration::ZERO,
        preload: 0,
        certificate: None,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let wrong = || format!("{name}: {value} does not fit");
        match name.as_str() {
            "--port" => options.port = value.parse().map_err(|_| wrong())?,
            "--preload" => options.preload = value.parse().map_err(|_| wrong())?,
            "--certificate" => options.certificate = Some(value.into()),
            "--latency-ms" => {
                let milliseconds: f64 = value.parse().map_err(|_| wrong())?;
                options.latency =
                    Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(|_| wrong())?;
            }
            _ => return Err(format!("{name} is not an option")),
        }
    }
    Ok(options)
}

fn serve(options: &Options) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        let server = Server::new(listener.local_addr()?, options.latency);
        server.preload(options.preload);
        if let Some(file) = &options.certificate {
            server.secure(file)?;
        }

        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", server.queue_url(DEFAULT_QUEUE))?;
        stdout.flush()?;
        drop(stdout);

        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            served = server.run(listener) => served,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}
