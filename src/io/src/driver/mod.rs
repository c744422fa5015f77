//! Runs one [`Machine`] on one thread, or several on as many: sockets, timers, questions, signals.
//!
//! In: machines, bound sockets, services. Out: when it returns, the machines have drained (SIGTERM) or their time was
//! up. Everything happens on a tokio current-thread runtime a worker, so that a machine needs no lock; what blocks
//! (databases, DNS) is on threads of its own and answers by channel (`services`). Keep-alives are answered here and never
//! reach a machine; neither does a part of a message, nor what a flooding address sends.
//!
//! | file | concept |
//! | --- | --- |
//! | `options` | how a server is run |
//! | `workers` | whose message it is, where there are several |
//! | `udp`, `datagrams` | UDP in batches |
//! | `accept`, `connections`, `stream`, `websocket`, `http`, `web` | connections |
//! | `sending` | how a machine's messages leave |
//! | `keepalive`, `flood`, `overload` | what the machine never sees |
//! | `ng` | asking relays |
//! | `scrape` | `--metrics` |

mod accept;
mod connections;
mod datagrams;
mod flood;
mod http;
mod keepalive;
mod ng;
mod options;
mod overload;
mod scrape;
mod sending;
mod stream;
#[cfg(test)]
mod tests;
mod udp;
mod web;
mod websocket;
mod workers;

pub use options::{Options, RateLimit, WebSocketOptions};
pub use workers::MOST as MOST_WORKERS;

use crate::dns::Dns;
use crate::listen::{self, Bound, Socket};
use crate::services::{ReplyTo, Services};
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError, raise_open_files};
use crate::{entropy, log, ready, tls};
use accept::{Certificates, Door};
use bytes::Bytes;
use connections::{Arrival, Arrivals, Connections, Places};
use datagrams::Datagrams;
use flood::Flood;
use ng::Relays;
use overload::Change;
use sipbox_core::flow::{Flow, Listener, ListenerId, ServerKey, Target, Transport};
use sipbox_core::limits::SERVER_NAMES;
use sipbox_core::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use sipbox_core::store;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant as TokioInstant;
use udp::Udp;
use workers::{Crew, Owners, Passed};

/// Inputs of one kind that are worked on before the others have their turn.
const BATCH: usize = 64;
/// Threads for files of `--web-root`.
const FILE_THREADS: usize = 8;

/// A TLS, HTTP or TCP handshake must be done within this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A message must be written within this; the peer reads too slowly beyond it.
const WRITE: Duration = Duration::from_secs(10);
/// After draining, connections may write what is queued for this long.
const FLUSH: Duration = Duration::from_millis(500);
/// How often a worker that has drained looks whether the others have.
const OTHERS: Duration = Duration::from_millis(20);
/// Arrivals that wait for the machine; connections read no further beyond it.
const ARRIVALS: usize = 256;
/// As good as never.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// Serves until SIGTERM or SIGINT. Prints the ready line when it does. Of `workers` threads the first has the machine; the
/// others have their share of the connections, and of what TLS and WebSocket cost.
pub fn run<M: Machine>(
    workers: u8,
    machine: M,
    bound: Vec<Bound>,
    services: Services,
    options: Options,
) -> Result<(), StartError> {
    let (lead, others) = (|| (Some(machine), services), |_| (None, Services::default()));
    work_together(workers, Owners::First, lead, &others, bound, options, Control::Signals)
}

/// The same with a machine for each of `workers` threads; `each` makes that of a number, and what it may ask.
pub fn run_workers<M: Machine>(
    workers: u8,
    each: impl Fn(u8) -> (M, Services) + Sync,
    bound: Vec<Bound>,
    options: Options,
) -> Result<(), StartError> {
    work_together(workers, Owners::Each, || each(0), &each, bound, options, Control::Signals)
}

fn work_together<M: Machine>(
    workers: u8,
    owners: Owners,
    lead: impl FnOnce() -> (M, Services),
    each: &(impl Fn(u8) -> (M, Services) + Sync),
    bound: Vec<Bound>,
    options: Options,
    control: Control,
) -> Result<(), StartError> {
    let workers = workers.clamp(1, MOST_WORKERS);
    let shared = Shared::new(&bound, &options)?;
    let mut places =
        listen::share(bound, usize::from(workers))?.into_iter().zip(workers::crews(workers, owners));
    let Some((bound, leader)) = places.next() else { return Ok(()) };
    if places.len() == 0 {
        return work(leader, bound, options, shared, control, Start::Alone, lead);
    }
    std::thread::scope(|scope| {
        let (ready, others) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for (bound, crew) in places {
            let (options, shared, ready, number) =
                (options.clone(), shared.clone(), ready.clone(), crew.number);
            let begin = move || {
                let start = Start::Tell(ready);
                work(crew, bound, options, shared, Control::Passed, start, || each(number))
            };
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            match thread.spawn_scoped(scope, begin) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    leader.send_home();
                    return Err(system("thread for --workers", &error));
                }
            }
        }
        drop(ready);
        let start = Start::After(others, threads.len());
        let mut served = work(leader, bound, options, shared, control, start, lead);
        for thread in threads {
            // One that panicked has told so itself.
            let ended =
                thread.join().unwrap_or_else(|_| Err(StartError::new(Kind::System, "a worker ended")));
            served = served.and(ended);
        }
        served
    })
}

/// What all workers of a process have in common; locked when a connection comes or goes, never for a message.
#[derive(Clone)]
struct Shared {
    places: Places,
    certificates: Certificates,
}

impl Shared {
    fn new(bound: &[Bound], options: &Options) -> Result<Self, StartError> {
        raise_open_files();
        let encrypted = bound.iter().any(|b| matches!(b.listener.transport, Transport::Tls | Transport::Wss));
        let config = if encrypted { Some(tls::configure(&options.tls)?) } else { None };
        Ok(Shared {
            places: Places::new(options.max_connections),
            certificates: Arc::new(Mutex::new(config)),
        })
    }
}

/// When a worker tells the world that it serves.
enum Start {
    Alone,
    /// It tells the one that prints the line.
    Tell(std::sync::mpsc::Sender<()>),
    /// When so many others have told.
    After(std::sync::mpsc::Receiver<()>, usize),
}

/// One worker to its end, on this thread.
fn work<M: Machine>(
    crew: Crew,
    bound: Vec<Bound>,
    options: Options,
    shared: Shared,
    control: Control,
    start: Start,
    make: impl FnOnce() -> (M, Services),
) -> Result<(), StartError> {
    let runtime = runtime()?;
    let served = runtime.block_on(LocalSet::new().run_until(async move {
        let (machine, services) = make();
        serve(machine, bound, services, options, Place { crew, shared, control, start }).await
    }));
    // Look-ups of a DNS that does not answer last for half a minute: nobody waits for their end.
    runtime.shutdown_background();
    served
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .build()
        .map_err(|error| system("runtime", &error))
}

fn system(what: &str, error: &io::Error) -> StartError {
    StartError::new(Kind::System, format!("{what}: {error}"))
}

/// Who tells it to stop.
enum Control {
    Signals,
    /// The worker that has the signals.
    Passed,
    #[cfg(test)]
    Channel(mpsc::UnboundedReceiver<Order>),
}

impl Control {
    /// Orders come by a channel, which costs less to look at than four signals.
    fn orders(self) -> Result<Option<mpsc::UnboundedReceiver<Order>>, StartError> {
        Ok(match self {
            Control::Signals => {
                let mut signals = Signals::new().map_err(|error| system("signals", &error))?;
                let (sender, orders) = mpsc::unbounded_channel();
                tokio::task::spawn_local(async move { while sender.send(signals.next().await).is_ok() {} });
                Some(orders)
            }
            Control::Passed => None,
            #[cfg(test)]
            Control::Channel(orders) => Some(orders),
        })
    }
}

/// Never, for `None`.
async fn next_order(orders: &mut Option<mpsc::UnboundedReceiver<Order>>) -> Order {
    match orders {
        Some(orders) => orders.recv().await.unwrap_or(Order::Stop),
        None => std::future::pending().await,
    }
}

/// Where a worker stands.
struct Place {
    crew: Crew,
    shared: Shared,
    control: Control,
    start: Start,
}

async fn serve<M: Machine>(
    machine: M,
    bound: Vec<Bound>,
    services: Services,
    options: Options,
    place: Place,
) -> Result<(), StartError> {
    let Place { crew, shared, control, start } = place;
    let mut orders = control.orders()?;
    let listeners = listen::listeners(&bound);
    let addresses: Vec<String> = listeners.iter().map(listen::describe).collect();
    let (arrivals, mut arrived) = mpsc::channel(ARRIVALS);
    let connections = Connections::new(shared.places, crew.number, crew.count());
    let mut rng = entropy::rng().map_err(|error| system("random numbers", &error))?;
    let flood = options.rate_limit.clone().map(|limit| Rc::new(RefCell::new(Flood::new(limit, &mut rng))));
    let door = Door {
        flood: flood.clone().map(|flood| (flood, options.clock)),
        ids: connections.ids.clone(),
        places: connections.places.clone(),
        certificates: shared.certificates.clone(),
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
    let options_dns = options.dns.clone();
    let likes = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let can = likes.into_iter().filter(|like| listeners.iter().any(|own| own.transport == *like)).collect();
    let mut driver = Driver {
        machine,
        listeners,
        udp,
        datagrams: Datagrams::new(),
        connections,
        certificates: shared.certificates,
        arrivals,
        relays,
        services,
        answer,
        flood,
        options,
        crew,
        failed: VecDeque::new(),
        websockets: 0,
        servers: HashMap::new(),
        overload_tag: rng.token(10),
        dns: Dns::new(options_dns, rng),
        can,
    };
    if let Some(at) = driver.options.metrics_at.take()
        && driver.crew.number == 0
    {
        let listener = at.try_clone().and_then(TcpListener::from_std);
        let listener = listener.map_err(|error| system("--metrics", &error))?;
        tokio::task::spawn_local(scrape::run(listener, driver.options.metrics.clone()));
    }
    match start {
        Start::Alone => ready::ready(driver.options.command, &addresses),
        Start::Tell(ready) => drop(ready.send(())),
        Start::After(others, count) => {
            if others.iter().take(count).count() < count {
                // The thread that could not begin tells why, when it is joined.
                driver.crew.send_home();
                return Ok(());
            }
            ready::ready(driver.options.command, &addresses);
        }
    }

    driver.options.metrics.set_serving(true);
    let _held = log::hold();
    let mut watchdog = ready::Watchdog::of_systemd();
    let mut drained_by = None;
    // One timer for all of the machine's, set again only where it has to ring earlier: it costs more than a message's parsing.
    let mut alarm = pin!(tokio::time::sleep(FAR));
    driver.settle();
    loop {
        driver.flush();
        log::flush_due();
        if drained_by.is_some() && driver.crew.all_idle(driver.machine.is_idle()) {
            if driver.crew.all_empty(driver.websockets == 0) {
                break;
            }
            // Their end is work for the machine: whoever holds bindings for them is told.
            driver.close_websockets();
        }
        let timeout = driver.machine.poll_timeout().map(|at| driver.options.clock.to_std(at));
        let timeout: Option<TokioInstant> = timeout.into_iter().chain(log::due()).min().map(Into::into);
        if let Some(at) = timeout
            && (alarm.is_elapsed() || at < alarm.deadline())
        {
            alarm.as_mut().reset(at);
        }
        let look = drained_by.is_some() && !driver.crew.is_alone();
        let order = tokio::select! {
            order = next_order(&mut orders) => Some(order),
            Some((ticket, reply)) = answers.recv() => {
                driver.feed(Input::Answer { ticket, reply });
                for _ in 1..BATCH {
                    let Ok((ticket, reply)) = answers.try_recv() else { break };
                    driver.feed(Input::Answer { ticket, reply });
                }
                None
            }
            Some(arrival) = arrived.recv() => {
                driver.arrive(arrival, &mut arrived);
                None
            }
            passed = driver.crew.next() => driver.handed(passed),
            () = udp::readable(&driver.udp) => {
                driver.receive();
                None
            }
            () = &mut alarm, if timeout.is_some() => {
                let now = driver.options.clock.now();
                if driver.machine.poll_timeout().is_some_and(|at| at <= now) {
                    driver.machine.handle_timeout(now);
                    driver.settle();
                }
                None
            }
            // Failures that are left over.
            () = std::future::ready(()), if !driver.failed.is_empty() => {
                driver.settle();
                None
            }
            () = tokio::time::sleep(OTHERS), if look => None,
            () = sleep_until(drained_by) => break,
            () = watchdog.due() => {
                if driver.crew.all_alive() {
                    ready::alive();
                }
                None
            }
        };
        if let Some(order) = order
            && driver.obey(order, &mut drained_by, &mut doors)
        {
            break;
        }
    }
    driver.crew.ended();
    // What is queued is written; each task then ends, and with the last one the channel does.
    driver.flush();
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

struct Driver<M> {
    machine: M,
    listeners: Vec<Listener>,
    udp: Vec<Udp>,
    datagrams: Datagrams,
    connections: Connections,
    certificates: Certificates,
    /// For the connections that we open.
    arrivals: Arrivals,
    relays: Relays,
    services: Services,
    answer: mpsc::UnboundedSender<(Ticket, Reply)>,
    options: Options,
    flood: Option<Rc<RefCell<Flood>>>,
    crew: Crew,
    /// What could not be sent while outputs were drained: fed afterwards.
    failed: VecDeque<(Target, Bytes)>,
    /// WebSocket connections whose tasks have not ended.
    websockets: usize,
    /// Names that TLS servers have to prove, of those that were asked for.
    servers: HashMap<ServerKey, Box<str>>,
    dns: Dns,
    /// Of the To of what is refused.
    overload_tag: String,
    /// What we can send by, the one that we like best first.
    can: Rc<[Transport]>,
}

impl<M: Machine> Driver<M> {
    fn feed(&mut self, input: Input) {
        self.machine.handle_input(self.options.clock.now(), input);
        self.settle();
    }

    /// A message came from a peer: to the machine that it belongs to.
    fn packet(&mut self, flow: Flow, data: Bytes) {
        let owner = self.crew.owner(&data);
        if owner == self.crew.number {
            self.own_packet(flow, data);
        } else {
            self.crew.pass(owner, Passed::Packet { flow, data });
        }
    }

    fn own_packet(&mut self, flow: Flow, data: Bytes) {
        self.options.metrics.received(flow.transport);
        if self.options.hep.is_some() {
            self.copy(flow.listener, flow.transport, flow.remote, true, &data);
        }
        self.feed(Input::Packet { flow, data });
    }

    /// Whether something from there is looked at.
    fn takes(&mut self, flow: &Flow, data: &[u8]) -> bool {
        let Some(flood) = &self.flood else { return true };
        let Err(event) = flood.borrow_mut().takes(self.options.clock.now(), flow.remote.ip(), data) else {
            return true;
        };
        self.options.metrics.banned();
        event.iter().for_each(|event| self.event(event));
        false
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
                    Output::Close { flow } => match self.connections.elsewhere(&Target::Flow(flow)) {
                        Some(owner) => self.crew.pass(owner, Passed::Close { flow }),
                        None => self.connections.remove(&flow),
                    },
                    Output::Event(event) => self.event(&event),
                }
            }
            if more == 0 {
                return;
            }
            let Some((target, data)) = self.failed.pop_front() else { return };
            match self.crew.sender(&data) {
                Some(other) if other != self.crew.number => {
                    self.crew.pass(other, Passed::Failed { target, data });
                }
                _ => {
                    self.machine.handle_input(self.options.clock.now(), Input::SendFailed { target, data });
                }
            }
        }
    }

    /// One batch from each UDP socket.
    fn receive(&mut self) {
        for index in 0..self.udp.len() {
            let Some(udp) = self.udp.get(index) else { return };
            let listener = udp.listener;
            let count = udp.receive(&mut self.datagrams);
            if let Some(change) = self.udp.get_mut(index).and_then(|udp| udp.look(count)) {
                self.overloaded(listener, &change);
            }
            for at in 0..count {
                let Some((remote, data)) = self.datagrams.received(at) else { continue };
                if keepalive::is_line_breaks(data) {
                    continue;
                }
                let flow = Flow { transport: Transport::Udp, listener, remote, connection: None };
                // What is not taken is not even copied.
                if let Some(flood) = &self.flood
                    && let Err(event) = flood.borrow_mut().takes(self.options.clock.now(), remote.ip(), data)
                {
                    self.options.metrics.banned();
                    event.iter().for_each(|event| self.event(event));
                    continue;
                }
                if let Some(answer) = keepalive::binding_response(data, remote) {
                    self.send(Target::Flow(flow), answer.into());
                    continue;
                }
                if let Some(udp) = self.udp.get_mut(index)
                    && let Some(refusal) = udp.overload.refuse(data, &self.overload_tag)
                {
                    udp.send(Target::Flow(flow), refusal.into());
                    self.options.metrics.refused();
                    continue;
                }
                let data = Bytes::copy_from_slice(data);
                self.packet(flow, data);
            }
            // The next socket's datagrams take these buffers.
            self.flush();
        }
    }

    fn overloaded(&self, listener: ListenerId, change: &Change) {
        let listener = self.listeners.iter().find(|own| own.id == listener).map(listen::describe);
        let event = match change {
            Change::Begins { lost } => Event::new(Level::Warn, "overloaded")
                .with("lost", lost)
                .with("reason", "more comes than can be worked on; new requests get 503")
                .with("mend", "more --workers, or fewer clients on this host"),
            Change::Ends { refused } => Event::new(Level::Info, "overload-over").with("refused", refused),
        };
        self.event(&event.with("listener", listener.unwrap_or_default()));
    }

    /// What another worker hands over, and what there is more of.
    fn handed(&mut self, first: Passed) -> Option<Order> {
        let mut next = Some(first);
        for more in (0..BATCH).rev() {
            match next.take()? {
                Passed::Packet { flow, data } => self.own_packet(flow, data),
                Passed::Transmit { target, data } => {
                    self.send(target, data);
                    self.settle();
                }
                Passed::Failed { target, data } => self.feed(Input::SendFailed { target, data }),
                Passed::Opened { flow } => {
                    self.connections.insert_elsewhere(&flow);
                    self.feed(Input::FlowOpened { flow });
                }
                Passed::Closed { flow } => {
                    self.connections.remove_elsewhere(&flow);
                    self.feed(Input::FlowClosed { flow });
                }
                Passed::Close { flow } => self.connections.remove(&flow),
                Passed::Order(order) => return Some(order),
            }
            if more > 0 {
                next = self.crew.try_next();
            }
        }
        None
    }

    /// Whether it is to end at once.
    fn obey(
        &mut self,
        order: Order,
        drained_by: &mut Option<TokioInstant>,
        doors: &mut Vec<tokio::task::JoinHandle<()>>,
    ) -> bool {
        // One has the signals: it tells the others, after what they share is there.
        let leads = self.crew.number == 0;
        if leads && order == Order::Reload {
            self.reload_shared();
        }
        if leads {
            self.crew.pass_to_all(|| Passed::Order(order));
        }
        match order {
            Order::Stop if drained_by.is_some() => return true,
            Order::Stop => {
                if leads {
                    ready::stopping();
                    self.options.metrics.set_serving(false);
                }
                // New connections are new work.
                doors.drain(..).for_each(|door| door.abort());
                *drained_by = Some(TokioInstant::now() + self.options.drain);
                self.feed(Input::Drain);
            }
            Order::Reload => self.feed(Input::Reload),
            Order::Dump => self.dump(),
        }
        false
    }

    /// What connections have to tell: this one, and those that are there already.
    fn arrive(&mut self, first: Arrival, arrived: &mut mpsc::Receiver<Arrival>) {
        let mut next = Some(first);
        for more in (0..BATCH).rev() {
            match next.take() {
                Some(Arrival::Packet { flow, data }) => {
                    if self.takes(&flow, &data) {
                        self.connections.heard(&flow, &data);
                        self.packet(flow, data);
                    } else {
                        // It may begin anew, and gets as far.
                        self.connections.remove(&flow);
                    }
                }
                Some(Arrival::Opened { flow, queue, certificate }) => {
                    self.connections.accepted(flow, queue, certificate);
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
                        self.options.metrics.disconnected();
                        self.crew.pass_to_all(|| Passed::Closed { flow });
                        self.feed(Input::FlowClosed { flow });
                    } else {
                        self.settle();
                    }
                }
                Some(Arrival::NotSecured(event)) => self.event(&event),
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
        self.options.metrics.connected();
        self.event(&Event::new(Level::Debug, "connection-opened").with("peer", flow));
        self.crew.pass_to_all(|| Passed::Opened { flow });
        self.feed(Input::FlowOpened { flow });
    }

    /// SIGHUP: what all workers share.
    fn reload_shared(&mut self) {
        if let Some(events) = &self.options.events {
            events.reopen();
        }
        let encrypted = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if encrypted {
            match tls::configure(&self.options.tls) {
                Ok(config) => {
                    *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
                }
                Err(error) => tracing::error!(%error, "certificates-not-read: the old ones are kept"),
            }
        }
    }

    fn ask(&mut self, ticket: Ticket, question: Question) {
        let to = ReplyTo::new(ticket, self.answer.clone());
        match question {
            Question::Store(query) => match &mut self.services.store {
                Some(store) => store.ask(query, to),
                None => to.send(Reply::Store(Err(store::Error::Unavailable("no database".into())))),
            },
            Question::Resolve { host, port } => {
                self.expect_server(&host);
                let dns = self.dns.clone();
                tokio::task::spawn_local(async move {
                    to.send(Reply::Resolve(dns.addresses(&host, port).await));
                });
            }
            Question::Locate(wanted) => {
                self.expect_server(&wanted.host);
                let (dns, can) = (self.dns.clone(), self.can.clone());
                tokio::task::spawn_local(async move {
                    to.send(Reply::Locate(dns.locate(wanted, &can).await));
                });
            }
            Question::Relay { relay, request } => self.relays.ask(relay, request, to),
        }
    }

    /// A TLS connection to one of its addresses may follow.
    fn expect_server(&mut self, host: &str) {
        if self.servers.len() >= SERVER_NAMES {
            // Whoever is asked for again is known again.
            self.servers.clear();
        }
        self.servers.entry(ServerKey::of(host)).or_insert_with(|| host.into());
    }

    fn event(&self, event: &Event) {
        log::write(event);
        if event.level > Level::Debug {
            self.options.metrics.event(event.name);
        }
        if let Some(events) = &self.options.events
            && event.level > Level::Debug
        {
            events.write(self.options.clock.now(), event);
        }
    }

    /// SIGUSR1: its state as JSON lines on standard error.
    fn dump(&self) {
        log::flush();
        let mut lines = Vec::new();
        self.machine.dump(&mut lines);
        if let Some(flood) = &self.flood {
            flood.borrow().dump(self.options.clock.now(), &mut lines);
        }
        if self.crew.lost() > 0 {
            lines.push(serde_json::json!({ "passed_and_lost": self.crew.lost() }).to_string());
        }
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
