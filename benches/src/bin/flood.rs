//! How fast the queue server itself is: receives and deletes everything over plain sockets, looking at nothing but the
//! receipt handles. No client can be faster than this; the server must not be what bounds a measurement.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

const USAGE: &str = "flood URL [--messages N] [--connections N]";
const HANDLE_KEY: &str = r#""ReceiptHandle":""#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1)?.parse().unwrap_or(default))
    };
    let Some(url) = arguments.first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let messages = option("--messages", 100_000).unwrap_or(100_000);
    let connections = option("--connections", 2).unwrap_or(2);
    match flood(url, messages, connections) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flood: {error}");
            ExitCode::FAILURE
        }
    }
}

fn flood(url: &str, messages: u64, connections: u64) -> io::Result<serde_json::Value> {
    let deleted = AtomicU64::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| drain(url, messages, &deleted)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => Err(io::Error::other("a connection's thread panicked")),
            })
    })?;
    Ok(json!({"messages": deleted.into_inner(), "seconds": start.elapsed().as_secs_f64()}))
}

fn drain(url: &str, messages: u64, deleted: &AtomicU64) -> io::Result<()> {
    let host = url
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    let mut connection = Connection {
        input: BufReader::new(stream.try_clone()?),
        output: stream,
    };
    let receive = json!({
        "QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, "VisibilityTimeout": 60,
        "MessageSystemAttributeNames": ["SentTimestamp", "ApproximateReceiveCount"],
    })
    .to_string();

    while deleted.load(Ordering::Relaxed) < messages {
        let response = connection.call("ReceiveMessage", &receive)?;
        let handles = response
            .split(HANDLE_KEY)
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let mut delete = format!(r#"{{"QueueUrl":"{url}","Entries":["#);
        let mut count = 0;
        for handle in handles {
            let comma = if count == 0 { "" } else { "," };
            delete.push_str(&format!(
                r#"{comma}{{"Id":"{count}","ReceiptHandle":"{handle}"}}"#
            ));
            count += 1;
        }
        if count == 0 {
            break;
        }
        delete.push_str("]}");
        connection.call("DeleteMessageBatch", &delete)?;
        deleted.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
}

struct Connection {
    input: BufReader<TcpStream>,
    output: TcpStream,
}

impl Connection {
    fn call(&mut self, action: &str, body: &str) -> io::Result<String> {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AmazonSQS.{action}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.output.write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.input.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if line == "\r\n" || line.is_empty() {
                break;
            }
        }
        let mut response = vec![0; length];
        self.input.read_exact(&mut response)?;
        String::from_utf8(response).map_err(io::Error::other)
    }
}
