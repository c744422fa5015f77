//! Runs one [`Machine`] on one thread: sockets, timers, questions, signals.
//!
//! In: a machine, bound sockets, services. Out: when it returns, the machine has drained (SIGTERM) or its time was
//! up. Everything happens on a tokio current-thread runtime, so that a machine needs no lock; what blocks
//! (databases, DNS) is on threads of its own and answers by channel (`services`).
//! Keep-alives are answered here and never reach a machine; neither does a part of a message.

mod accept;
mod connections;
mod http;
mod keepalive;
mod ng;
mod stream;
#[cfg(test)]
mod tests;
mod udp;
mod web;
mod websocket;

use crate::clock::Clock;
use crate::events::Events;
use crate::listen::{self, Bound, Socket};
use crate::services::{ReplyTo, Services};
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError};
use crate::{hep, log, ready, tls};
use accept::{Certificates, Door};
use bytes::Bytes;
use connections::{Arrival, Arrivals, Connections, NotSent};
use ng::Relays;
use sipbox_core::flow::{Flow, Listener, ListenerId, Target, Transport};
use sipbox_core::limits::{CONNECTIONS, SIP_MESSAGE_BYTES};
use sipbox_core::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use sipbox_core::store;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant as TokioInstant;
use udp::Udp;

/// Inputs of one kind that are worked on before the others have their turn.
const BATCH: usize = 64;
/// Threads for DNS look-ups; each blocks in the system's resolver.
const RESOLVER_THREADS: usize = 8;

/// A TLS, HTTP or TCP handshake must be done within this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A message must be written within this; the peer reads too slowly beyond it.
const WRITE: Duration = Duration::from_secs(10);
/// After draining, connections may write what is queued for this long.
const FLUSH: Duration = Duration::from_millis(500);
/// Arrivals that wait for the machine; connections read no further beyond it.
const ARRIVALS: usize = 256;

/// How a server is run. [`Options::new`] has the defaults.
pub struct Options {
    /// `proxy`: for the ready line.
    pub command: &'static str,
    pub clock: Clock,
    /// How long work that is under way may last after SIGTERM.
    pub drain: Duration,
    pub events: Option<Events>,
    /// For `tls:` and `wss:` listeners.
    pub tls: tls::Settings,
    /// For `ws:` and `wss:` listeners.
    pub websocket: WebSocketOptions,
    pub max_connections: usize,
    /// `--hep`: gets a copy of each SIP message, received and sent.
    pub hep: Option<hep::Sender>,
}

impl Options {
    pub fn new(command: &'static str, clock: Clock) -> Self {
        Options {
            command,
            clock,
            drain: Duration::from_secs(10),
            events: None,
            tls: tls::Settings::default(),
            websocket: WebSocketOptions::default(),
            max_connections: CONNECTIONS,
            hep: None,
        }
    }
}

/// How WebSocket ports behave.
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// Names that a Host may have, or be below; none: any.
    pub hosts: Vec<String>,
    /// Patterns of allowed Origins, `*` for any characters; none: the page's own host.
    pub origins: Vec<String>,
    /// Bytes of one message.
    pub max_message: usize,
    /// Pause between pings; a peer that is silent for two is gone.
    pub ping: Duration,
    /// A directory of static files on the same port.
    pub web_root: Option<PathBuf>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        WebSocketOptions {
            hosts: Vec::new(),
            origins: Vec::new(),
            max_message: SIP_MESSAGE_BYTES,
            ping: Duration::from_secs(30),
            web_root: None,
        }
    }
}

/// Serves until SIGTERM or SIGINT. Prints the ready line when it does.
pub fn run<M: Machine>(
    machine: M,
    bound: Vec<Bound>,
    services: Services,
    options: Options,
) -> Result<(), StartError> {
    let runtime = runtime()?;
    let served = runtime.block_on(LocalSet::new().run_until(async move {
        let signals = Signals::new().map_err(|error| system("signals", &error))?;
        serve(machine, bound, services, options, Control::Signals(signals)).await
    }));
    // Look-ups of a DNS that does not answer last for half a minute: nobody waits for their end.
    runtime.shutdown_background();
    served
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS)
        .build()
        .map_err(|error| system("runtime", &error))
}

fn system(what: &str, error: &io::Error) -> StartError {
    StartError::new(Kind::System, format!("{what}: {error}"))
}

/// Who tells it to stop.
enum Control {
    Signals(Signals),
    #[cfg(test)]
    Channel(mpsc::UnboundedReceiver<Order>),
}

impl Control {
    async fn next(&mut self) -> Order {
        match self {
            Control::Signals(signals) => signals.next().await,
            #[cfg(test)]
            Control::Channel(orders) => orders.recv().await.unwrap_or(Order::Stop),
        }
    }
}

async fn serve<M: Machine>(
    machine: M,
    bound: Vec<Bound>,
    services: Services,
    options: Options,
    mut control: Control,
) -> Result<(), StartError> {
    let listeners = listen::listeners(&bound);
    let addresses: Vec<String> = listeners.iter().map(listen::describe).collect();
    let encrypted = listeners.iter().any(|l| matches!(l.transport, Transport::Tls | Transport::Wss));
    let certificates =
        Certificates::new(RefCell::new(if encrypted { Some(tls::server(&options.tls)?) } else { None }));
    let (arrivals, mut arrived) = mpsc::channel(ARRIVALS);
    let connections = Connections::new(options.max_connections);
    let door = Door {
        ids: connections.ids.clone(),
        places: connections.places.clone(),
        certificates: certificates.clone(),
        websocket: Rc::new(options.websocket.clone()),
        arrivals: arrivals.clone(),
    };
    let mut udp = Vec::new();
    let mut doors = Vec::new();
    for Bound { listener, socket } in bound {
        match socket {
            Socket::Udp(socket) => {
                udp.push(Udp::new(listener.id, socket).map_err(|error| system("--listen", &error))?);
            }
            Socket::Tcp(socket) => {
                let socket = TcpListener::from_std(socket).map_err(|error| system("--listen", &error))?;
                let accepting = accept::run(socket, listener.transport, listener.id, door.clone());
                doors.push(tokio::task::spawn_local(accepting));
            }
        }
    }
    // Only connections hold arrivals' senders from here on, besides the driver for those that it opens.
    drop(door);
    let (answer, mut answers) = mpsc::unbounded_channel();
    let relays = Relays::new(services.relays.clone()).map_err(|error| system("--relay", &error))?;
    let mut driver = Driver {
        machine,
        listeners,
        udp,
        connections,
        certificates,
        arrivals,
        relays,
        services,
        answer,
        options,
        failed: VecDeque::new(),
        websockets: 0,
    };
    ready::ready(driver.options.command, &addresses);

    let mut watchdog = ready::watchdog_interval().map(tokio::time::interval);
    let mut drained_by = None;
    driver.settle();
    loop {
        if drained_by.is_some() && driver.machine.is_idle() {
            if driver.websockets == 0 {
                break;
            }
            // Their end is work for the machine: whoever holds bindings for them is told.
            driver.close_websockets();
        }
        let timeout = driver.machine.poll_timeout().map(|at| driver.options.clock.to_std(at).into());
        tokio::select! {
            order = control.next() => match order {
                Order::Stop if drained_by.is_some() => break,
                Order::Stop => {
                    ready::stopping();
                    // New connections are new work.
                    doors.drain(..).for_each(|door| door.abort());
                    drained_by = Some(TokioInstant::now() + driver.options.drain);
                    driver.feed(Input::Drain);
                }
                Order::Reload => driver.reload(),
                Order::Dump => driver.dump(),
            },
            Some((ticket, reply)) = answers.recv() => {
                driver.feed(Input::Answer { ticket, reply });
            }
            Some(arrival) = arrived.recv() => driver.arrive(arrival, &mut arrived),
            index = udp::readable(&driver.udp) => driver.receive(index),
            () = sleep_until(timeout) => {
                driver.machine.handle_timeout(driver.options.clock.now());
                driver.settle();
            }
            // Failures that are left over.
            () = std::future::ready(()), if !driver.failed.is_empty() => driver.settle(),
            () = sleep_until(drained_by) => break,
            () = tick(&mut watchdog) => ready::alive(),
        }
    }
    // What is queued is written; each task then ends, and with the last one the channel does.
    let Driver { mut connections, arrivals, .. } = driver;
    connections.clear();
    drop(arrivals);
    let _ = tokio::time::timeout(FLUSH, async { while arrived.recv().await.is_some() {} }).await;
    Ok(())
}

/// Never, for `None`.
async fn sleep_until(at: Option<TokioInstant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

struct Driver<M> {
    machine: M,
    listeners: Vec<Listener>,
    udp: Vec<Udp>,
    connections: Connections,
    certificates: Certificates,
    /// For the connections that we open.
    arrivals: Arrivals,
    relays: Relays,
    services: Services,
    answer: mpsc::UnboundedSender<(Ticket, Reply)>,
    options: Options,
    /// What could not be sent while outputs were drained: fed afterwards.
    failed: VecDeque<(Target, Bytes)>,
    /// WebSocket connections whose tasks have not ended.
    websockets: usize,
}

impl<M: Machine> Driver<M> {
    fn feed(&mut self, input: Input) {
        if self.options.hep.is_some()
            && let Input::Packet { flow, data } = &input
        {
            self.copy(flow.listener, flow.transport, flow.remote, true, data);
        }
        self.machine.handle_input(self.options.clock.now(), input);
        self.settle();
    }

    /// Drains the outputs, and feeds at most a batch of failures: a machine that answers a failure with what fails
    /// again has its next turn after everybody else's.
    fn settle(&mut self) {
        for more in (0..=BATCH).rev() {
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Transmit { target, data } => self.transmit(target, data),
                    Output::Ask { ticket, question } => self.ask(ticket, question),
                    // Its task writes what is queued, ends, and tells so by `Closed`.
                    Output::Close { flow } => self.connections.remove(&flow),
                    Output::Event(event) => self.event(&event),
                }
            }
            if more == 0 {
                return;
            }
            let Some((target, data)) = self.failed.pop_front() else { return };
            self.machine.handle_input(self.options.clock.now(), Input::SendFailed { target, data });
        }
    }

    /// One batch from a UDP socket.
    fn receive(&mut self, index: usize) {
        for _ in 0..BATCH {
            let Some(packet) = self.udp.get_mut(index).and_then(Udp::receive) else { return };
            self.feed(packet);
        }
    }

    /// What connections have to tell: this one, and those that are there already.
    fn arrive(&mut self, first: Arrival, arrived: &mut mpsc::Receiver<Arrival>) {
        let mut next = Some(first);
        for more in (0..BATCH).rev() {
            match next.take() {
                Some(Arrival::Packet { flow, data }) => self.feed(Input::Packet { flow, data }),
                Some(Arrival::Opened { flow, queue }) => {
                    self.connections.insert(flow, queue);
                    self.websockets += usize::from(flow.transport.is_websocket());
                    self.opened(flow);
                }
                Some(Arrival::Established { flow }) => self.opened(flow),
                Some(Arrival::Closed { flow, opened, reason, unsent }) => {
                    self.connections.remove(&flow);
                    self.websockets -= usize::from(flow.transport.is_websocket());
                    self.failed.extend(unsent);
                    let (level, name) = if opened {
                        (Level::Debug, "connection-closed")
                    } else {
                        (Level::Warn, "unreachable")
                    };
                    self.event(&Event::new(level, name).with("peer", flow).with("reason", reason));
                    if opened {
                        self.feed(Input::FlowClosed { flow });
                    } else {
                        self.settle();
                    }
                }
                Some(Arrival::Refused { transport, remote, reason }) => {
                    let peer = format!("{transport}:{remote}");
                    self.event(&Event::new(Level::Info, "refused").with("peer", peer).with("reason", reason));
                }
                None => return,
            }
            if more > 0 {
                next = arrived.try_recv().ok();
            }
        }
    }

    fn opened(&mut self, flow: Flow) {
        self.event(&Event::new(Level::Debug, "connection-opened").with("peer", flow));
        self.feed(Input::FlowOpened { flow });
    }

    fn transmit(&mut self, target: Target, data: Bytes) {
        // A second handle on the same bytes, and only where somebody wants a copy.
        let copy = self.options.hep.is_some().then(|| data.clone());
        if let (Ok(()), Some(data)) = (self.send(target, data), copy) {
            let listener = match target {
                Target::Flow(flow) => flow.listener,
                Target::Address { listener, .. } => listener,
            };
            self.copy(listener, target.transport(), target.remote(), false, &data);
        }
    }

    /// For `--hep`. Our end is the listener's address, also on a connection that we opened from another port.
    fn copy(
        &mut self,
        listener: ListenerId,
        transport: Transport,
        remote: SocketAddr,
        received: bool,
        data: &[u8],
    ) {
        let local = self.listeners.iter().find(|l| l.id == listener).map(|l| l.local);
        if let (Some(hep), Some(local)) = (&mut self.options.hep, local) {
            let (source, destination) = if received { (remote, local) } else { (local, remote) };
            hep.copy(self.options.clock.now(), transport, source, destination, data);
        }
    }

    /// What could not be sent is put aside, to be told to the machine.
    fn send(&mut self, target: Target, data: Bytes) -> Result<(), ()> {
        let (unsent, error) = match target.transport() {
            Transport::Udp => {
                let listener = match target {
                    Target::Flow(flow) => flow.listener,
                    Target::Address { listener, .. } => listener,
                };
                let sent = match self.udp.iter().find(|udp| udp.listener == listener) {
                    Some(udp) => udp.send(&data, target.remote()),
                    None => Err(io::ErrorKind::NotConnected.into()),
                };
                match sent {
                    Ok(()) => return Ok(()),
                    Err(error) => ((target, data), error.to_string()),
                }
            }
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                match self.connections.send(target, data) {
                    Ok(()) => return Ok(()),
                    Err(NotSent::Gone(target, data)) => match self.open(target, data) {
                        Ok(()) => return Ok(()),
                        Err((item, reason)) => (item, reason.to_owned()),
                    },
                    Err(NotSent::Full(target, data)) => {
                        ((target, data), "the peer reads too slowly".to_owned())
                    }
                }
            }
        };
        tracing::debug!(peer = %format_args!("{}:{}", target.transport(), target.remote()), error, "send-failed");
        self.failed.push_back(unsent);
        Err(())
    }

    /// Opens a connection to an address, with a first message.
    fn open(&mut self, target: Target, data: Bytes) -> Result<(), ((Target, Bytes), &'static str)> {
        let Target::Address { listener, transport, remote } = target else {
            return Err(((target, data), "the connection is gone"));
        };
        if transport != Transport::Tcp {
            return Err(((target, data), "connections of this kind are not opened by us"));
        }
        let Some(local) = self.listeners.iter().find(|l| l.id == listener).map(|l| l.local.ip()) else {
            return Err(((target, data), "no such listener"));
        };
        let place = match self.connections.places.take(remote.ip()) {
            Ok(place) => place,
            Err(reason) => return Err(((target, data), reason)),
        };
        let flow = connections::flow(transport, listener, remote, self.connections.ids.next());
        let (queue, outbox) = connections::queue();
        self.connections.insert(flow, queue);
        let arrivals = self.arrivals.clone();
        tokio::task::spawn_local(async move {
            stream::opened(local, flow, outbox, arrivals).await;
            drop(place);
        });
        match self.connections.send(target, data) {
            Ok(()) => Ok(()),
            Err(NotSent::Gone(target, data) | NotSent::Full(target, data)) => {
                Err(((target, data), "the message is too long"))
            }
        }
    }

    fn close_websockets(&mut self) {
        let open: Vec<Flow> =
            self.connections.flows().filter(|f| f.transport.is_websocket()).copied().collect();
        for flow in open {
            self.connections.remove(&flow);
        }
    }

    /// SIGHUP.
    fn reload(&mut self) {
        if let Some(events) = &self.options.events {
            events.reopen();
        }
        if self.certificates.borrow().is_some() {
            match tls::server(&self.options.tls) {
                Ok(config) => *self.certificates.borrow_mut() = Some(config),
                Err(error) => tracing::error!(%error, "certificates-not-read: the old ones are kept"),
            }
        }
        self.feed(Input::Reload);
    }

    fn ask(&mut self, ticket: Ticket, question: Question) {
        let to = ReplyTo::new(ticket, self.answer.clone());
        match question {
            Question::Store(query) => match &mut self.services.store {
                Some(store) => store.ask(query, to),
                None => to.send(Reply::Store(Err(store::Error::Unavailable("no database".into())))),
            },
            Question::Resolve { host, port } => {
                tokio::task::spawn_local(async move {
                    let found = tokio::net::lookup_host((host.as_str(), port)).await;
                    to.send(Reply::Resolve(found.map(Iterator::collect).unwrap_or_default()));
                });
            }
            Question::Relay { relay, request } => self.relays.ask(relay, request, to),
        }
    }

    fn event(&self, event: &Event) {
        log::write(event);
        if let Some(events) = &self.options.events
            && event.level > Level::Debug
        {
            events.write(self.options.clock.now(), event);
        }
    }

    /// SIGUSR1: its state as JSON lines on standard error.
    fn dump(&self) {
        let mut lines = Vec::new();
        self.machine.dump(&mut lines);
        for flow in self.connections.flows() {
            lines.push(
                serde_json::json!({ "connection": flow.connection.map(|c| c.0), "peer": flow.to_string() })
                    .to_string(),
            );
        }
        for line in lines {
            eprintln!("{line}");
        }
    }
}
