//! CPU time of the I/O thread a message, for receive and delete together, against a server that answers at once
//! from memory. The server is a thread of this process; the clock is the I/O thread's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use queue::{Fate, Io, Next, Queue, QueueUrl, Receive};

const MESSAGES: u64 = 200_000;
/// When only to see that it runs, as `cargo test --all-targets` does.
const FEW_MESSAGES: u64 = 1_000;

/// As long as those of AWS.
const HANDLE_LENGTH: usize = 412;

fn main() {
    let port = serve();
    let url = format!("http://127.0.0.1:{port}/000000000000/login-queue");
    let queue = Queue::new(QueueUrl::parse(&url).unwrap(), None, None, Arc::new(())).unwrap();
    let io = Io::start().unwrap();
    let in_earnest = std::env::args().any(|argument| argument == "--bench");
    let messages = if in_earnest { MESSAGES } else { FEW_MESSAGES };
    for concurrency in [1, 8, 32] {
        let cpu = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let before = run(&io, &queue, concurrency, 10, &cpu);
        let after = run(&io, &queue, concurrency, messages, &cpu);
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "concurrency {concurrency:2}: {:5.2} us CPU a message, {:6.0} messages/s",
            (after - before) as f64 / 1e3 / messages as f64,
            messages as f64 / seconds
        );
    }
}

/// Receives and deletes that many messages; the I/O thread's CPU time at the end, in nanoseconds.
fn run(io: &Io, queue: &Queue, concurrency: usize, messages: u64, cpu: &Arc<AtomicU64>) -> u64 {
    let how = Receive {
        limit: Some(messages),
        until_empty: true,
        wait: Duration::from_secs(1),
        concurrency,
        visibility: Duration::from_secs(300),
    };
    let clock = cpu.clone();
    let mut inlet = io.receive(queue, how, move |body| {
        clock.store(thread_cpu(), Ordering::Relaxed);
        body.len()
    });
    loop {
        io.acknowledge();
        match inlet.next() {
            Next::Messages(messages) => {
                io.settle(messages.iter().map(|m| m.receipt).collect(), Fate::Delete);
            }
            Next::Nothing => sleep_until_woken(io),
            Next::End(_) => break,
            Next::Failed(error) => panic!("{error}"),
        }
    }
    while io.unsettled() > 0 {
        sleep_until_woken(io);
        io.acknowledge();
    }
    cpu.load(Ordering::Relaxed)
}

fn sleep_until_woken(io: &Io) {
    let mut poll = libc::pollfd {
        fd: io.fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, as said.
    unsafe { libc::poll(&mut poll, 1, 1_000) };
}

fn thread_cpu() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec to be written.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve_connection(stream));
        }
    });
    port
}

fn serve_connection(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let received = response(&ten_messages());
    let ids: Vec<String> = (0..10).map(|id| format!(r#"{{"Id":"{id}"}}"#)).collect();
    let deleted = response(&format!(
        r#"{{"Successful":[{}],"Failed":[]}}"#,
        ids.join(",")
    ));
    let mut buffer = vec![0u8; 64 << 10];
    let mut filled = 0;
    loop {
        let Some(end) = request_end(&buffer[..filled]) else {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) | Err(_) => return,
                Ok(count) => filled += count,
            }
            continue;
        };
        let head = &buffer[..filled.min(512)];
        let is_receive = head.windows(14).any(|window| window == b"ReceiveMessage");
        let answer = if is_receive { &received } else { &deleted };
        if stream.write_all(answer).is_err() {
            return;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// Where the request that `bytes` begin with ends, once all of it is there.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head])
        .unwrap()
        .to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}

fn ten_messages() -> String {
    let handle = "A".repeat(HANDLE_LENGTH);
    let messages: Vec<String> = (0..10)
        .map(|number| {
            format!(
                concat!(
                    r#"{{"MessageId":"5fea7756-0ea4-451a-a703-a558b933e27{number}","#,
                    r#""ReceiptHandle":"{handle}","MD5OfBody":"fafb00f5732ab283681e124bf8747ed1","#,
                    r#""Body":"{{\"user_id\": \"424cdd21-063a-43a7-b91b-7ca1a833afa{number}\", "#,
                    r#"\"app_version\": \"2.3.0\", \"device_type\": \"android\", "#,
                    r#"\"ip\": \"199.172.111.135\", \"locale\": \"RU\", \"device_id\": \"593-47-5928\"}}","#,
                    r#""Attributes":{{"SentTimestamp":"1545082649183","ApproximateReceiveCount":"1"}}}}"#,
                ),
                number = number,
                handle = handle,
            )
        })
        .collect();
    format!(r#"{{"Messages":[{}]}}"#, messages.join(","))
}

fn response(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
