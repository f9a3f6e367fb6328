//! An SQS of the test's own: a queue in memory behind SQS' JSON protocol, and a script that may make any call
//! go wrong.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// One call as the server saw it.
#[derive(Clone, Debug)]
pub struct Call {
    /// `ReceiveMessage` and so on.
    pub action: String,
    pub body: Value,
    pub authorization: String,
    /// The `X-Amz-Date` header.
    pub signed_at: String,
    /// 0 for the first call of its action.
    pub number: usize,
    pub at: Instant,
}

impl Call {
    pub fn entries(&self) -> usize {
        self.body["Entries"].as_array().map_or(0, Vec::len)
    }
}

/// What the script does to a call.
pub enum Fault {
    /// Answers this instead of carrying the call out.
    Answer(u16, String),
    /// Carries it out, and answers this instead of what came of it.
    CarryOutButAnswer(u16, String),
    /// Refuses the signature, with this in its `Date` header.
    RefuseSignature(&'static str),
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    Reset,
    /// Closes it after a while.
    ResetAfter(Duration),
    /// Carries it out and lets the answer arrive in a number of parts, with a pause before each.
    Slowly(usize, Duration),
    /// Carries it out and answers with the first half only.
    Stall,
    /// Carries it out and closes the connection instead of answering.
    CarryOutAndReset,
    /// Carries it out after a while.
    Late(Duration),
    /// Carries it out, but waits for this number of seconds, whatever was asked.
    Wait(u64),
    /// Carries it out, but gives no more messages than this.
    AtMost(u64),
    /// Carries it out after a while even if the caller has gone by then, as LocalStack does.
    LateAndBlind(Duration),
    /// These entries of a batch (by place) fail with this code, through the sender's fault or not.
    FailEntries(Vec<usize>, &'static str, bool),
    /// The answer mentions no entry at all.
    MentionNothing,
}

pub fn error(code: &str) -> String {
    json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "as scripted"}).to_string()
}

type Script = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

pub struct Server {
    pub port: u16,
    state: Arc<Mutex<State>>,
    connections: Arc<Connections>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Open connections: now, and at most.
#[derive(Default)]
struct Connections {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    calls: Vec<Call>,
    script: Option<Script>,
    in_flight: HashMap<String, usize>,
    most_in_flight: HashMap<String, usize>,
    handles: u64,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub id: usize,
    pub body: String,
    pub group: Option<String>,
    pub visible_at: Instant,
    pub receive_count: u32,
    pub handle: Option<String>,
    pub deleted: bool,
}

impl Message {
    pub fn is_visible(&self) -> bool {
        !self.deleted && self.visible_at <= Instant::now()
    }
}

impl Server {
    pub fn start() -> Server {
        let state = Arc::new(Mutex::new(State::default()));
        let connections = Arc::new(Connections::default());
        let (tell_port, port) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = {
            let (state, connections) = (state.clone(), connections.clone());
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    tell_port
                        .send(listener.local_addr().unwrap().port())
                        .unwrap();
                    tokio::select! {
                        () = accept(listener, state, connections) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_background();
            })
        };
        Server {
            port: port.recv().unwrap(),
            state,
            connections,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/000000000000/login-queue", self.port)
    }

    pub fn fifo_url(&self) -> String {
        format!("{}.fifo", self.url())
    }

    pub fn script(&self, script: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.state.lock().unwrap().script = Some(Box::new(script));
    }

    pub fn send(&self, count: usize) {
        for _ in 0..count {
            self.send_to_group(None);
        }
    }

    pub fn send_to_group(&self, group: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        let id = state.messages.len();
        state.messages.push(Message {
            id,
            body: format!("body \"{id}\""),
            group: group.map(str::to_owned),
            visible_at: Instant::now(),
            receive_count: 0,
            handle: None,
            deleted: false,
        });
    }

    pub fn messages(&self) -> Vec<Message> {
        self.state.lock().unwrap().messages.clone()
    }

    pub fn visible(&self) -> usize {
        let state = self.state.lock().unwrap();
        let visible = state.messages.iter().filter(|m| m.is_visible());
        visible.count()
    }

    pub fn deleted(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.messages.iter().filter(|m| m.deleted).count()
    }

    pub fn calls(&self, action: &str) -> Vec<Call> {
        let state = self.state.lock().unwrap();
        state
            .calls
            .iter()
            .filter(|call| call.action == action)
            .cloned()
            .collect()
    }

    /// Most calls of `action` that were in flight at one time.
    pub fn most_in_flight(&self, action: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.most_in_flight.get(action).copied().unwrap_or(0)
    }

    /// Open connections now, and the most that there were at one time.
    pub fn connections(&self) -> (usize, usize) {
        let Connections { now, most } = &*self.connections;
        (now.load(Ordering::SeqCst), most.load(Ordering::SeqCst))
    }

    /// ReceiveMessage calls in flight.
    pub fn polls(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.in_flight.get("ReceiveMessage").copied().unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, connections: Arc<Connections>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        stream.set_nodelay(true).unwrap();
        let state = state.clone();
        let connections = connections.clone();
        let now = connections.now.fetch_add(1, Ordering::SeqCst) + 1;
        connections.most.fetch_max(now, Ordering::SeqCst);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(state.clone(), request));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            connections.now.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// The connection is closed when the service fails.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("closed")
    }
}

impl std::error::Error for Closed {}

impl From<Infallible> for Closed {
    fn from(never: Infallible) -> Closed {
        match never {}
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Closed> {
    let header = |name: &str| {
        let value = request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap());
        value.unwrap_or("").to_owned()
    };
    let action = header("x-amz-target").replace("AmazonSQS.", "");
    let signature = (header("authorization"), header("x-amz-date"));
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(|_| Closed)?
        .to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (call, fault) = state.lock().unwrap().note(action, body, signature);
    let _in_flight = InFlight::begin(state.clone(), call.action.clone());
    match fault {
        None => Ok(ok(carry_out(&state, &call).await)),
        Some(Fault::Answer(status, text)) => Ok(with_status(status, text)),
        Some(Fault::CarryOutButAnswer(status, text)) => {
            carry_out(&state, &call).await;
            Ok(with_status(status, text))
        }
        Some(Fault::RefuseSignature(date)) => {
            let mut response = with_status(403, error("SignatureDoesNotMatch"));
            response.headers_mut().insert("date", date.parse().unwrap());
            Ok(response)
        }
        Some(Fault::Hang) => pending().await,
        Some(Fault::Reset) => Err(Closed),
        Some(Fault::ResetAfter(delay)) => {
            tokio::time::sleep(delay).await;
            Err(Closed)
        }
        Some(Fault::Slowly(parts, pause)) => {
            let body = carry_out(&state, &call).await.to_string();
            Ok(Response::new(Answer::in_parts(&body, parts, pause)))
        }
        Some(Fault::Stall) => {
            let body = carry_out(&state, &call).await.to_string();
            Ok(Response::new(Answer::in_parts(
                &body,
                2,
                Duration::from_secs(3_600),
            )))
        }
        Some(Fault::CarryOutAndReset) => {
            carry_out(&state, &call).await;
            Err(Closed)
        }
        Some(Fault::Late(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(ok(carry_out(&state, &call).await))
        }
        Some(Fault::Wait(seconds)) => {
            let mut call = call;
            call.body["WaitTimeSeconds"] = json!(seconds);
            Ok(ok(carry_out(&state, &call).await))
        }
        Some(Fault::AtMost(most)) => {
            let mut call = call;
            let asked = call.body["MaxNumberOfMessages"].as_u64().unwrap();
            call.body["MaxNumberOfMessages"] = json!(asked.min(most));
            Ok(ok(carry_out(&state, &call).await))
        }
        Some(Fault::LateAndBlind(delay)) => {
            let carried_out = tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                carry_out(&state, &call).await
            });
            Ok(ok(carried_out.await.unwrap()))
        }
        Some(Fault::FailEntries(places, code, sender_fault)) => {
            let failing: HashSet<String> = places.iter().map(ToString::to_string).collect();
            Ok(ok(state.lock().unwrap().batch(
                &call,
                &failing,
                code,
                sender_fault,
            )))
        }
        Some(Fault::MentionNothing) => Ok(ok(json!({}))),
    }
}

/// The body of an answer, which may arrive slowly.
pub struct Answer {
    parts: VecDeque<Bytes>,
    pause: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Answer {
    /// In parts of about the same length; the first comes at once.
    fn in_parts(body: &str, parts: usize, pause: Duration) -> Answer {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let length = body.len().div_ceil(parts).max(1);
        let parts = (0..body.len()).step_by(length);
        Answer {
            parts: parts
                .map(|start| body.slice(start..body.len().min(start + length)))
                .collect(),
            pause,
            sleep: None,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(context));
        }
        let pause = self.pause;
        self.sleep = (!pause.is_zero()).then(|| Box::pin(tokio::time::sleep(pause)));
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }
}

fn ok(body: Value) -> Response<Answer> {
    with_status(200, body.to_string())
}

fn with_status(status: u16, body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::in_parts(&body, 1, Duration::ZERO));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn carry_out(state: &Arc<Mutex<State>>, call: &Call) -> Value {
    if call.action != "ReceiveMessage" {
        return state
            .lock()
            .unwrap()
            .batch(call, &HashSet::new(), "", false);
    }
    let number = |name: &str| call.body[name].as_u64().unwrap();
    let until = Instant::now() + Duration::from_secs(number("WaitTimeSeconds"));
    let visibility = Duration::from_secs(number("VisibilityTimeout"));
    loop {
        let messages = state
            .lock()
            .unwrap()
            .receive(number("MaxNumberOfMessages") as usize, visibility);
        if !messages.is_empty() {
            return json!({ "Messages": messages });
        }
        if Instant::now() >= until {
            return json!({});
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct InFlight(Arc<Mutex<State>>, String);

impl InFlight {
    fn begin(state: Arc<Mutex<State>>, action: String) -> InFlight {
        {
            let mut state = state.lock().unwrap();
            let now = state.in_flight.entry(action.clone()).or_default();
            *now += 1;
            let now = *now;
            let most = state.most_in_flight.entry(action.clone()).or_default();
            *most = now.max(*most);
        }
        InFlight(state, action)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        *state.in_flight.entry(self.1.clone()).or_default() -= 1;
    }
}

impl State {
    fn note(
        &mut self,
        action: String,
        body: Value,
        (authorization, signed_at): (String, String),
    ) -> (Call, Option<Fault>) {
        let number = self
            .calls
            .iter()
            .filter(|call| call.action == action)
            .count();
        let call = Call {
            action,
            body,
            authorization,
            signed_at,
            number,
            at: Instant::now(),
        };
        self.calls.push(call.clone());
        let fault = self.script.as_mut().and_then(|script| script(&call));
        (call, fault)
    }

    fn receive(&mut self, most: usize, visibility: Duration) -> Vec<Value> {
        let now = Instant::now();
        let blocked: HashSet<String> = self
            .messages
            .iter()
            .filter(|message| !message.deleted && message.visible_at > now)
            .filter_map(|message| message.group.clone())
            .collect();
        let handles = &mut self.handles;
        self.messages
            .iter_mut()
            .filter(|message| message.is_visible())
            .filter(|message| {
                message
                    .group
                    .as_ref()
                    .is_none_or(|group| !blocked.contains(group))
            })
            .take(most)
            .map(|message| {
                *handles += 1;
                let handle = format!("handle-{}-{handles}-{:0>300}", message.id, "");
                message.receive_count += 1;
                message.visible_at = now + visibility;
                message.handle = Some(handle.clone());
                let mut attributes = json!({
                    "SentTimestamp": "1700000000000",
                    "ApproximateReceiveCount": message.receive_count.to_string(),
                });
                if let Some(group) = &message.group {
                    attributes["MessageGroupId"] = json!(group);
                }
                json!({
                    "MessageId": message.id.to_string(),
                    "ReceiptHandle": handle,
                    "Body": message.body,
                    "Attributes": attributes,
                })
            })
            .collect()
    }

    fn batch(
        &mut self,
        call: &Call,
        failing: &HashSet<String>,
        code: &str,
        sender_fault: bool,
    ) -> Value {
        let now = Instant::now();
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        let mut ids = HashSet::new();
        let entries = call.body["Entries"].as_array().unwrap();
        assert!(entries.len() <= 10);
        for entry in entries {
            let id = entry["Id"].as_str().unwrap();
            assert!(ids.insert(id), "entry ids must be distinct");
            let handle = entry["ReceiptHandle"].as_str().unwrap();
            if failing.contains(id) {
                failed.push(json!({"Id": id, "Code": code, "SenderFault": sender_fault}));
                continue;
            }
            let message = self
                .messages
                .iter_mut()
                .find(|message| message.handle.as_deref() == Some(handle));
            match message {
                Some(message) => {
                    match entry["VisibilityTimeout"].as_u64() {
                        Some(seconds) => message.visible_at = now + Duration::from_secs(seconds),
                        None => message.deleted = true,
                    }
                    successful.push(json!({ "Id": id }));
                }
                None => failed
                    .push(json!({"Id": id, "Code": "ReceiptHandleIsInvalid", "SenderFault": true})),
            }
        }
        json!({"Successful": successful, "Failed": failed})
    }
}
