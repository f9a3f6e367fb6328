//! An SQS in memory that does as SQS' documentation says, until a test's script tells it to misbehave.
//!
//! It is as strict as AWS about limits (ten messages, ten entries, distinct entry ids), keeps the calls it saw, and
//! lets a test choose `SentTimestamp`. Queues are standard ones; LocalStack has FIFO.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::queue::Queue;
use crate::run;

mod http;
mod store;

use http::{Connection, Reply, Request};
use store::Store;

/// What the server saw.
#[derive(Clone, Debug)]
pub struct Call {
    /// `ReceiveMessage`, `DeleteMessageBatch`, …
    pub action: String,
    /// The request.
    pub request: Value,
    /// Who signed it, and for what: the `Authorization` header.
    pub authorization: String,
    /// When it came.
    pub at: Instant,
    /// How many calls of this action came before it.
    pub earlier: usize,
}

/// What the server does with a call.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What SQS does.
    Serve,
    /// What SQS does, but after this delay.
    ServeAfter(Duration),
    /// What SQS does, but its answer arrives after this delay.
    ServeAndReplyAfter(Duration),
    /// What SQS does, but the answer never arrives: the connection is reset.
    ServeAndReset,
    /// A receive that gives each message twice over, under one id and two handles.
    ServeTwice,
    /// A receive that gives messages and leaves them visible, so that the next one gives them again.
    ServeAndKeepVisible,
    /// The same, the newest messages first.
    ServeNewestAndKeepVisible,
    /// A batch of which these entries (counted from 0) fail with this code, and the others are done.
    FailEntries {
        /// Places in the batch; those past its end are ignored.
        entries: Vec<usize>,
        /// SQS' code, such as `InternalError`.
        code: &'static str,
    },
    /// SQS' way to refuse a call.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// SQS' code, such as `com.amazonaws.sqs#QueueDoesNotExist`.
        code: &'static str,
    },
    /// An HTTP answer that SQS would not give.
    Garbage {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: &'static str,
    },
    /// The connection is reset, nothing is done.
    Reset,
    /// No answer, as long as the server lives.
    Hang,
}

type Script = Box<dyn FnMut(&Call) -> Answer + Send>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stores: HashMap<String, Store>,
    script: Script,
    calls: Vec<Call>,
    /// How many there were of each action.
    counts: HashMap<String, usize>,
    clock_ahead: i64,
    stopped: bool,
}

/// The server; its port closes when it is dropped.
pub struct ScriptedSqs {
    endpoint: String,
    shared: Arc<Shared>,
}

impl ScriptedSqs {
    /// Starts one that behaves.
    pub fn start() -> ScriptedSqs {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            stores: HashMap::new(),
            script: Box::new(|_| Answer::Serve),
            calls: Vec::new(),
            counts: HashMap::new(),
            clock_ahead: 0,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let for_listener = Arc::clone(&shared);
        thread::spawn(move || listen(&listener, &for_listener));
        ScriptedSqs { endpoint, shared }
    }

    /// A new queue here.
    pub fn queue(&self) -> Queue {
        self.queue_named(&run::unique_name("logins"))
    }

    /// A new queue here, of this name.
    pub fn queue_named(&self, name: &str) -> Queue {
        self.state()
            .stores
            .insert(name.to_owned(), Store::default());
        Queue::existing(&self.endpoint, name)
    }

    /// A new queue here whose name says that it is FIFO; it serves as a standard one.
    pub fn fifo_queue(&self) -> Queue {
        let name = format!("{}.fifo", run::unique_name("logins"));
        self.state().stores.insert(name.clone(), Store::default());
        Queue::existing(&self.endpoint, &name)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Puts a message into a queue, sent at this many milliseconds since the Unix epoch.
    pub fn put(&self, queue: &Queue, body: &str, sent_at_ms: u64) {
        self.change(queue, |store| drop(store.put(body, sent_at_ms)));
    }

    /// Puts a message into a queue whose `MessageId` and `SentTimestamp` need not be ones that SQS would write.
    pub fn put_as(&self, queue: &Queue, id: &str, body: &str, sent_at: &str) {
        self.change(queue, |store| store.put_as(id, body, sent_at));
    }

    /// Has a queue say this of itself, with SQS' own names for attributes.
    pub fn set_attribute(&self, queue: &Queue, name: &str, value: impl ToString) {
        self.change(queue, |store| {
            store.attributes.insert(name.to_owned(), value.to_string());
        });
    }

    /// Gives a queue a redrive policy.
    pub fn set_redrive(&self, queue: &Queue, dead_letters: &Queue, max_receive_count: u32) {
        let arn = format!(
            "arn:aws:sqs:us-east-1:000000000000:{}",
            name_of(dead_letters.url())
        );
        let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count});
        self.set_attribute(queue, "RedrivePolicy", policy);
    }

    /// Sets the server's clock this many seconds ahead; behind if negative.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.state().clock_ahead = seconds;
    }

    /// Makes every message in flight visible, as if its visibility timeout had ended.
    pub fn reveal_all(&self, queue: &Queue) {
        self.change(queue, Store::end_all_flights);
    }

    fn change(&self, queue: &Queue, change: impl FnOnce(&mut Store)) {
        let mut state = self.state();
        let store = state.stores.get_mut(name_of(queue.url()));
        change(store.expect("the queue is here"));
        self.shared.changed.notify_all();
    }

    /// Asks `script` about each call from now on.
    pub fn script(&self, script: impl FnMut(&Call) -> Answer + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// Answers every call of `action` like this from now on, and serves the others.
    pub fn always(&self, action: &'static str, answer: Answer) {
        self.script(move |call| {
            if call.action == action {
                answer.clone()
            } else {
                Answer::Serve
            }
        });
    }

    /// Serves every call from now on.
    pub fn behave(&self) {
        self.script(|_| Answer::Serve);
    }

    /// The calls so far that the extension made; the tests' own kind (sending, counting) are left out.
    pub fn calls(&self) -> Vec<Call> {
        let of_tests = ["SendMessageBatch", "GetQueueAttributes", "CreateQueue"];
        let state = self.state();
        state
            .calls
            .iter()
            .filter(|call| !of_tests.contains(&call.action.as_str()))
            .cloned()
            .collect()
    }

    /// The calls of one action so far.
    pub fn calls_of(&self, action: &str) -> Vec<Call> {
        self.calls()
            .into_iter()
            .filter(|call| call.action == action)
            .collect()
    }

    /// How often messages of a queue were handed out, in all.
    pub fn handed_out(&self, queue: &Queue) -> u64 {
        self.state().stores[name_of(queue.url())].handed_out
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for ScriptedSqs {
    fn drop(&mut self) {
        self.state().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state().stopped {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that goes away ends its connection, which is not a failure here.
        thread::spawn(move || drop(converse(stream, &shared)));
    }
}

fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    connection.clock_ahead = shared.state().clock_ahead;
    while let Some(request) = connection.next_request()? {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let (answer, call) = consult_script(shared, &request, body);
        match answer {
            Answer::Hang => return wait_for_stop(shared),
            Answer::Reset => return connection.reset(),
            Answer::ServeAndReset => {
                serve(shared, &call, &answer, &connection);
                return connection.reset();
            }
            Answer::Refuse { status, code } => connection.reply(&refusal(status, code))?,
            Answer::Garbage { status, body } => connection.reply(&Reply {
                status,
                body: body.to_owned(),
                error: None,
            })?,
            Answer::ServeAfter(pause) => {
                thread::sleep(pause);
                connection.reply(&serve(shared, &call, &answer, &connection))?;
            }
            Answer::ServeAndReplyAfter(pause) => {
                let reply = serve(shared, &call, &answer, &connection);
                thread::sleep(pause);
                connection.reply(&reply)?;
            }
            Answer::Serve
            | Answer::ServeTwice
            | Answer::ServeAndKeepVisible
            | Answer::ServeNewestAndKeepVisible
            | Answer::FailEntries { .. } => {
                connection.reply(&serve(shared, &call, &answer, &connection))?;
            }
        }
    }
    Ok(())
}

fn consult_script(shared: &Shared, request: &Request, body: Value) -> (Answer, Call) {
    let mut state = shared.state();
    let count = state.counts.entry(request.action.clone()).or_default();
    let earlier = *count;
    *count += 1;
    let call = Call {
        action: request.action.clone(),
        request: body,
        authorization: request.authorization.clone(),
        at: Instant::now(),
        earlier,
    };
    state.calls.push(call.clone());
    ((state.script)(&call), call)
}

fn wait_for_stop(shared: &Shared) -> io::Result<()> {
    let _state = shared
        .changed
        .wait_while(shared.state(), |state| !state.stopped);
    Ok(())
}

fn refusal(status: u16, code: &str) -> Reply {
    let short = code.rsplit('#').next().unwrap_or(code);
    let body = json!({"__type": code, "message": format!("scripted {short}")}).to_string();
    Reply {
        status,
        body,
        error: Some(short.to_owned()),
    }
}

fn serve(shared: &Shared, call: &Call, answer: &Answer, connection: &Connection) -> Reply {
    let result = if call.action == "ReceiveMessage" {
        receive(shared, &call.request, answer, connection)
    } else {
        let failing = match answer {
            Answer::FailEntries { entries, code } => Some((entries.as_slice(), *code)),
            _ => None,
        };
        let mut state = shared.state();
        let result = with_store(&mut state, &call.request, |store| {
            match call.action.as_str() {
                "SendMessageBatch" => store.send_batch(&call.request),
                "GetQueueAttributes" => Ok(store.attributes()),
                "DeleteMessage" => store.delete(&call.request),
                "DeleteMessageBatch" => store.delete_batch(&call.request, failing),
                "ChangeMessageVisibility" => store.change_visibility(&call.request),
                "ChangeMessageVisibilityBatch" => {
                    store.change_visibility_batch(&call.request, failing)
                }
                _ => Err("com.amazonaws.sqs#UnsupportedOperation"),
            }
        });
        shared.changed.notify_all();
        result
    };
    match result {
        Ok(body) => Reply {
            status: 200,
            body: body.to_string(),
            error: None,
        },
        Err(code) => refusal(400, code),
    }
}

/// Gives what is there, or waits up to `WaitTimeSeconds` for something, or until the client has hung up.
fn receive(
    shared: &Shared,
    request: &Value,
    answer: &Answer,
    connection: &Connection,
) -> store::Result {
    let until =
        Instant::now() + Duration::from_secs(request["WaitTimeSeconds"].as_u64().unwrap_or(0));
    let mut state = shared.state();
    loop {
        if state.stopped || connection.is_hung_up() {
            return Ok(json!({}));
        }
        let messages = with_store(&mut state, request, |store| store.receive(request, answer))?;
        let now = Instant::now();
        if !messages.is_empty() || now >= until {
            return Ok(if messages.is_empty() {
                json!({})
            } else {
                json!({ "Messages": messages })
            });
        }
        // A bound on the wait, so that messages whose time in flight ends are seen.
        let pause = (until - now).min(Duration::from_millis(20));
        state = shared.changed.wait_timeout(state, pause).unwrap().0;
    }
}

fn with_store<T>(
    state: &mut State,
    request: &Value,
    act: impl FnOnce(&mut Store) -> Result<T, &'static str>,
) -> Result<T, &'static str> {
    let name = name_of(request["QueueUrl"].as_str().unwrap_or_default());
    act(state
        .stores
        .get_mut(name)
        .ok_or("com.amazonaws.sqs#QueueDoesNotExist")?)
}

fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
