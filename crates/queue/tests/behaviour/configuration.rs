//! What the server process' AWS configuration changes: each case runs in a process of its own, for its environment.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use queue::{Io, Receive};

use crate::reader::*;
use crate::server::Server;

const AWS: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/login-queue";
const URL: &str = "TEST_QUEUE_URL";

/// Run by the tests below: receives once from the queue, and prints how that ended.
#[test]
#[ignore = "part of the other tests"]
fn receive_once() {
    let io = Io::start().unwrap();
    let (queue, _) = queue_at(&std::env::var(URL).unwrap());
    let how = Receive {
        wait: Duration::ZERO,
        ..at_most(1)
    };
    let mut inlet = io.receive(&queue, how, body);
    match drain(&io, &mut inlet).1 {
        Outcome::End(_) => println!("ended well"),
        Outcome::Failed(error) => println!("{}: {error}", kind(error.kind)),
    }
}

fn kind(kind: queue::ErrorKind) -> String {
    format!("{kind:?}")
}

/// Receives once from `url` in a process with this environment and no other.
fn receive(url: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "configuration::receive_once",
            "--ignored",
            "--nocapture",
        ])
        .env_clear()
        .env(URL, url)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const KEYS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
];

/// A proxy that lets nobody through, and the first line that it was sent.
fn proxy() -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let first_line = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream)
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        line
    });
    (url, first_line)
}

/// The host that a request for a queue at AWS is sent to.
fn host_asked_for(environment: &[(&str, &str)]) -> String {
    let (proxy, first_line) = proxy();
    let environment = [&KEYS, environment, &[("HTTPS_PROXY", &proxy)]].concat();
    let output = receive(AWS, &environment);
    assert!(!said(&output).contains("ended well"));
    let line = first_line.join().unwrap();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn aws_is_called_through_the_proxy_that_the_environment_names() {
    assert_eq!(host_asked_for(&[]), "sqs.eu-west-1.amazonaws.com:443");
}

#[test]
fn fips_and_dual_stack_endpoints_are_used_where_the_environment_wants_them() {
    let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
    let dual_stack = ("AWS_USE_DUALSTACK_ENDPOINT", "true");
    assert_eq!(
        host_asked_for(&[fips]),
        "sqs-fips.eu-west-1.amazonaws.com:443"
    );
    assert_eq!(host_asked_for(&[dual_stack]), "sqs.eu-west-1.api.aws:443");
    assert_eq!(
        host_asked_for(&[fips, dual_stack]),
        "sqs-fips.eu-west-1.api.aws:443"
    );
}

#[test]
fn the_endpoint_url_of_the_environment_replaces_that_of_aws() {
    let server = Server::start();
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let environment = [&KEYS[..], &[("AWS_ENDPOINT_URL_SQS", endpoint.as_str())]].concat();
    let output = receive(AWS, &environment);
    assert!(said(&output).contains("ended well"), "{}", said(&output));
    let call = &server.calls("ReceiveMessage")[0];
    assert!(
        call.authorization.contains("Credential=AKIDENVIRONMENT/"),
        "{}",
        call.authorization
    );
    assert!(
        call.authorization.contains("/eu-west-1/sqs/"),
        "{}",
        call.authorization
    );
    assert_eq!(call.body["QueueUrl"], AWS);
}

#[test]
fn an_endpoint_url_of_the_environment_that_would_send_credentials_in_clear_is_refused() {
    let endpoint = ("AWS_ENDPOINT_URL", "http://sqs.eu-west-1.amazonaws.com");
    let output = receive(AWS, &[&KEYS[..], &[endpoint]].concat());
    assert!(
        said(&output).contains("Refused: in the server's AWS configuration"),
        "{}",
        said(&output)
    );
}

#[test]
fn only_keys_that_are_written_down_go_to_a_host_that_is_not_of_aws() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let role =
        "role_arn = arn:aws:iam::123456789012:role/r\ncredential_source = Ec2InstanceMetadata";
    let key = "aws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret";
    for (profile, used) in [(role, "test"), (key, "AKIDPROFILE")] {
        let (server, metadata) = (Server::start(), TcpListener::bind("127.0.0.1:0").unwrap());
        metadata.set_nonblocking(true).unwrap();
        fs::write(&file, format!("[default]\n{profile}\n")).unwrap();
        let metadata_url = format!("http://{}", metadata.local_addr().unwrap());
        let environment = [
            ("AWS_CONFIG_FILE", file.to_str().unwrap()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata_url),
        ];
        let output = receive(&server.url(), &environment);
        assert!(said(&output).contains("ended well"), "{}", said(&output));
        let authorization = &server.calls("ReceiveMessage")[0].authorization;
        assert!(
            authorization.contains(&format!("Credential={used}/")),
            "{authorization}"
        );
        assert!(
            metadata.accept().is_err(),
            "the instance metadata were asked"
        );
    }
}

#[test]
fn a_process_that_a_profile_names_is_a_source_of_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let keys = r#"{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "secret"}"#;
    fs::write(folder.path().join("keys"), keys).unwrap();
    let process = format!("/bin/cat {}", folder.path().join("keys").display());
    fs::write(
        &file,
        format!("[default]\ncredential_process = {process}\n"),
    )
    .unwrap();
    let (proxy, first_line) = proxy();
    let environment = [
        ("AWS_CONFIG_FILE", file.to_str().unwrap()),
        ("HTTPS_PROXY", &proxy),
    ];
    let output = receive(AWS, &environment);
    // The proxy was asked, so there were credentials.
    assert!(
        first_line.join().unwrap().starts_with("CONNECT "),
        "{}",
        said(&output)
    );
}

#[test]
fn a_source_of_credentials_that_fails_is_told_as_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("http://{}/credentials", listener.local_addr().unwrap());
    let refuser = thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            if request[..length].starts_with(b"GET /end") {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let output = receive(AWS, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &source)]);
    assert!(
        said(&output).contains("CredentialsFailed: "),
        "{}",
        said(&output)
    );
    let address = source
        .trim_start_matches("http://")
        .trim_end_matches("/credentials");
    std::net::TcpStream::connect(address)
        .unwrap()
        .write_all(b"GET /end")
        .unwrap();
    refuser.join().unwrap();
}
