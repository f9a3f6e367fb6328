//! The queue server from outside: over a socket, as its clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use benches::server::{DEFAULT_QUEUE, Server};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// A server on a thread of its own, which ends with the test.
struct Running {
    url: String,
}

impl Running {
    fn start(latency: Duration, preload: u64) -> Running {
        let (sender, url) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            LocalSet::new().block_on(&runtime, async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let server = Server::new(listener.local_addr().unwrap(), latency);
                server.preload(preload);
                sender.send(server.queue_url(DEFAULT_QUEUE)).unwrap();
                server.run(listener).await.unwrap();
            });
        });
        Running {
            url: url.recv().unwrap(),
        }
    }

    fn connect(&self) -> Connection {
        let host = self
            .url
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap();
        let stream = TcpStream::connect(host).unwrap();
        Connection {
            url: self.url.clone(),
            input: BufReader::new(stream.try_clone().unwrap()),
            stream,
        }
    }
}

struct Connection {
    url: String,
    input: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Connection {
    /// Calls an action of SQS with the queue's URL added; returns status and body.
    fn call(&mut self, action: &str, body: Value) -> (u16, Value) {
        self.send(action, body);
        self.answer()
    }

    fn send(&mut self, action: &str, mut body: Value) {
        body["QueueUrl"] = json!(self.url);
        let body = body.to_string();
        write!(
            self.stream,
            "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.{action}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }

    fn control(&mut self, method: &str, what: &str) -> Value {
        write!(
            self.stream,
            "{method} /control/{what} HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        .unwrap();
        self.answer().1
    }

    fn answer(&mut self) -> (u16, Value) {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        while line != "\r\n" {
            line.clear();
            self.input.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.input.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn receive(&mut self, wait_seconds: u64) -> Vec<Value> {
        let call = json!({
            "MaxNumberOfMessages": 10, "WaitTimeSeconds": wait_seconds, "VisibilityTimeout": 60,
            "MessageSystemAttributeNames": ["SentTimestamp", "ApproximateReceiveCount"],
        });
        match self.call("ReceiveMessage", call).1["Messages"].take() {
            Value::Array(messages) => messages,
            _ => Vec::new(),
        }
    }
}

fn entries(messages: &[Value]) -> Value {
    let entry = |(number, message): (usize, &Value)| {
        json!({
            "Id": number.to_string(),
            "ReceiptHandle": message["ReceiptHandle"],
            "VisibilityTimeout": 0,
        })
    };
    messages.iter().enumerate().map(entry).collect()
}

#[test]
fn everything_is_received_once_and_deleted() {
    let server = Running::start(Duration::ZERO, 25);
    let mut client = server.connect();
    let mut ids = std::collections::HashSet::new();
    loop {
        let messages = client.receive(0);
        if messages.is_empty() {
            break;
        }
        for message in &messages {
            assert!(
                ids.insert(message["MessageId"].to_string()),
                "{message} came twice"
            );
            assert_eq!(message["Attributes"]["ApproximateReceiveCount"], "1");
        }
        let (status, deleted) =
            client.call("DeleteMessageBatch", json!({"Entries": entries(&messages)}));
        assert_eq!(
            (status, deleted["Successful"].as_array().unwrap().len()),
            (200, messages.len())
        );
        assert_eq!(deleted["Failed"], json!([]));
    }
    let counts = client.control("GET", "counts");
    assert_eq!(
        (ids.len(), &counts["deleted"], &counts["in_flight"]),
        (25, &json!(25), &json!(0))
    );
}

#[test]
fn a_long_poll_ends_when_a_message_is_sent() {
    let server = Running::start(Duration::ZERO, 0);
    let mut sender = server.connect();
    let mut receiver = server.connect();
    let started = Instant::now();
    let polling = thread::spawn(move || receiver.receive(10));
    thread::sleep(Duration::from_millis(100));
    sender.call("SendMessage", json!({"MessageBody": "äöü \"quoted\""}));
    let messages = polling.join().unwrap();
    assert_eq!(messages[0]["Body"], "äöü \"quoted\"");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_released_message_ends_a_long_poll() {
    let server = Running::start(Duration::ZERO, 1);
    let mut first = server.connect();
    let messages = first.receive(0);
    let mut second = server.connect();
    let polling = thread::spawn(move || second.receive(10));
    thread::sleep(Duration::from_millis(100));
    first.call(
        "ChangeMessageVisibilityBatch",
        json!({"Entries": entries(&messages)}),
    );
    let again = polling.join().unwrap();
    assert_eq!(again[0]["MessageId"], messages[0]["MessageId"]);
    assert_eq!(again[0]["Attributes"]["ApproximateReceiveCount"], "2");
}

#[test]
fn a_poll_whose_client_has_gone_takes_no_message() {
    let server = Running::start(Duration::ZERO, 0);
    let mut gone = server.connect();
    gone.send("ReceiveMessage", json!({"WaitTimeSeconds": 10}));
    thread::sleep(Duration::from_millis(100));
    drop(gone);
    thread::sleep(Duration::from_millis(100));
    let mut client = server.connect();
    client.call("SendMessage", json!({"MessageBody": "x"}));
    assert_eq!(client.control("GET", "counts")["visible"], 1);
}

#[test]
fn latency_is_what_was_asked_for() {
    let server = Running::start(Duration::from_millis(10), 0);
    let mut client = server.connect();
    let shortest = (0..5)
        .map(|_| {
            let started = Instant::now();
            client.receive(0);
            started.elapsed()
        })
        .min()
        .unwrap();
    assert!(
        (10.0..20.0).contains(&(shortest.as_secs_f64() * 1000.0)),
        "{shortest:?}"
    );
}

#[test]
fn a_latency_holds_up_only_its_own_call() {
    let server = Running::start(Duration::from_millis(100), 0);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| server.connect().receive(0));
        }
    });
    assert!(
        started.elapsed() < Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_sqs_refuses_is_refused() {
    let server = Running::start(Duration::ZERO, 1);
    let mut client = server.connect();
    let eleven: Value = (0..11)
        .map(|id| json!({"Id": id.to_string(), "ReceiptHandle": "x"}))
        .collect();
    let twice = json!([{"Id": "1", "ReceiptHandle": "x"}, {"Id": "1", "ReceiptHandle": "x"}]);
    for (action, body, code) in [
        (
            "ReceiveMessage",
            json!({"MaxNumberOfMessages": 11}),
            "InvalidParameterValue",
        ),
        (
            "ReceiveMessage",
            json!({"WaitTimeSeconds": 21}),
            "InvalidParameterValue",
        ),
        (
            "DeleteMessageBatch",
            json!({"Entries": eleven}),
            "TooManyEntriesInBatchRequest",
        ),
        (
            "DeleteMessageBatch",
            json!({"Entries": twice}),
            "BatchEntryIdsNotDistinct",
        ),
        (
            "DeleteMessageBatch",
            json!({"Entries": []}),
            "EmptyBatchRequest",
        ),
        (
            "DeleteMessage",
            json!({"ReceiptHandle": "x"}),
            "ReceiptHandleIsInvalid",
        ),
        ("ListQueues", json!({}), "UnsupportedOperation"),
    ] {
        let (status, answer) = client.call(action, body);
        assert_eq!(
            (status, &answer["__type"]),
            (400, &json!(format!("com.amazonaws.sqs#{code}")))
        );
    }
    let (status, answer) = client.call(
        "DeleteMessageBatch",
        json!({"Entries": [{"Id": "1", "ReceiptHandle": "x"}]}),
    );
    assert_eq!(
        (status, &answer["Failed"][0]["Code"]),
        (200, &json!("ReceiptHandleIsInvalid"))
    );
    client.url.push_str("-missing");
    let (status, answer) = client.call("ReceiveMessage", json!({}));
    assert_eq!(
        (status, &answer["__type"]),
        (400, &json!("com.amazonaws.sqs#QueueDoesNotExist"))
    );
}

#[test]
fn control_fills_waits_and_sends_at_a_rate() {
    let server = Running::start(Duration::ZERO, 0);
    let mut client = server.connect();
    assert_eq!(client.control("POST", "reset?preload=3")["visible"], 3);
    let started = Instant::now();
    let mut waiting = server.connect();
    let wait = thread::spawn(move || waiting.control("GET", "wait?deleted=3&timeout=10"));
    let messages = client.receive(0);
    client.call("DeleteMessageBatch", json!({"Entries": entries(&messages)}));
    assert_eq!(wait.join().unwrap()["deleted"], 3);
    assert!(started.elapsed() < Duration::from_secs(2));

    let started = Instant::now();
    client.control("POST", "send?messages=20&rate=100");
    let mut received = 0;
    while received < 20 {
        received += client.receive(5).len();
    }
    assert!(
        (150..1000).contains(&started.elapsed().as_millis()),
        "{:?}",
        started.elapsed()
    );
}
