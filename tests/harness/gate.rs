//! The way to a server, which can be cut and opened again: what clients see of a server that is killed and comes back.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::queue::Queue;

/// A port that leads to a server on this machine while it is open.
pub struct Gate {
    address: SocketAddr,
    server: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Both ends of each connection since the gate was opened.
    connections: Vec<TcpStream>,
}

impl Gate {
    /// An open gate to the server at `endpoint` (`http://127.0.0.1:4567`).
    pub fn to(endpoint: &str) -> Gate {
        let server = endpoint.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let gate = Gate {
            address: listener.local_addr().unwrap(),
            server,
            state: Arc::default(),
        };
        gate.open_with(listener);
        gate
    }

    /// The queue as it is reached through the gate. Sending and counting go past it.
    pub fn queue(&self, queue: &Queue) -> Queue {
        let name = queue.url().rsplit('/').next().unwrap();
        queue.under_url(&format!("http://{}/000000000000/{name}", self.address))
    }

    /// Ends every connection, whatever is under way on it, and refuses new ones.
    pub fn cut(&self) {
        let connections = {
            let mut state = lock(&self.state);
            state.open = false;
            std::mem::take(&mut state.connections)
        };
        for connection in connections {
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then closes its port.
        let _ = TcpStream::connect(self.address);
        crate::wait::eventually(
            "the port closes",
            std::time::Duration::from_secs(5),
            || TcpStream::connect(self.address).is_err(),
            |refused| *refused,
        );
    }

    /// Lets clients through again.
    pub fn open(&self) {
        self.open_with(TcpListener::bind(self.address).expect("the port is still free"));
    }

    fn open_with(&self, listener: TcpListener) {
        lock(&self.state).open = true;
        let (server, state) = (self.server, Arc::clone(&self.state));
        thread::spawn(move || listen(&listener, server, &state));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.cut();
    }
}

fn listen(listener: &TcpListener, server: SocketAddr, state: &Mutex<State>) {
    for client in listener.incoming() {
        let mut state = lock(state);
        if !state.open {
            return;
        }
        // A client that is gone already, or that finds no server, is on its own.
        if let Ok(client) = client {
            let _ = join(client, server, &mut state);
        }
    }
}

fn join(client: TcpStream, server: SocketAddr, state: &mut State) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        state.connections.push(stream.try_clone()?);
    }
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || carry(client, server));
    thread::spawn(move || carry(server_too, client_too));
    Ok(())
}

/// Carries bytes until one side ends, then ends the other.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}
