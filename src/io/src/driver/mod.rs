//! Runs one [`Machine`] on one thread: sockets, timers, questions, signals.
//!
//! In: a machine, bound sockets, services. Out: when it returns, the machine has drained (SIGTERM) or its time was
//! up. Everything happens on a tokio current-thread runtime, so that a machine needs no lock; what blocks
//! (databases, DNS) is on threads of its own and answers by channel (`services`).
//! Keep-alives are answered here and never reach a machine; neither does a part of a message.

mod keepalive;
mod ng;
#[cfg(test)]
mod tests;
mod udp;

use crate::clock::Clock;
use crate::events::Events;
use crate::listen::{self, Bound, Socket};
use crate::services::{ReplyTo, Services};
use crate::signals::{Order, Signals};
use crate::start::{Kind, StartError};
use crate::{log, ready};
use bytes::Bytes;
use ng::Relays;
use sipbox_core::flow::Target;
use sipbox_core::machine::{Event, Input, Level, Machine, Output, Question, Reply, Ticket};
use sipbox_core::store;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant as TokioInstant;
use udp::Udp;

/// Inputs of one kind that are worked on before the others have their turn.
const BATCH: usize = 64;
/// Threads for DNS look-ups; each blocks in the system's resolver.
const RESOLVER_THREADS: usize = 8;

/// How a server is run.
pub struct Options {
    /// `proxy`: for the ready line.
    pub command: &'static str,
    pub clock: Clock,
    /// How long work that is under way may last after SIGTERM.
    pub drain: Duration,
    pub events: Option<Events>,
}

/// Serves until SIGTERM or SIGINT. Prints the ready line when it does.
pub fn run<M: Machine>(
    machine: M,
    bound: Vec<Bound>,
    services: Services,
    options: Options,
) -> Result<(), StartError> {
    runtime()?.block_on(LocalSet::new().run_until(async move {
        let signals = Signals::new().map_err(|error| system("signals", &error))?;
        serve(machine, bound, services, options, Control::Signals(signals)).await
    }))
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
    let addresses: Vec<String> = bound.iter().map(|b| listen::describe(&b.listener)).collect();
    let mut udp = Vec::new();
    for Bound { listener, socket } in bound {
        match socket {
            Socket::Udp(socket) => {
                udp.push(Udp::new(listener.id, socket).map_err(|error| system("--listen", &error))?);
            }
            Socket::Tcp(_) => {
                return Err(StartError::new(
                    Kind::Usage,
                    format!("--listen {}: only udp:", listener.transport),
                ));
            }
        }
    }
    let (answer, mut answers) = mpsc::unbounded_channel();
    let relays = Relays::new(services.relays.clone()).map_err(|error| system("--relay", &error))?;
    let mut driver = Driver { machine, udp, relays, services, answer, options, failed: VecDeque::new() };
    ready::ready(driver.options.command, &addresses);

    let mut watchdog = ready::watchdog_interval().map(tokio::time::interval);
    let mut drained_by = None;
    driver.settle();
    loop {
        if drained_by.is_some() && driver.machine.is_idle() {
            break;
        }
        let timeout = driver.machine.poll_timeout().map(|at| driver.options.clock.to_std(at).into());
        tokio::select! {
            order = control.next() => match order {
                Order::Stop if drained_by.is_some() => break,
                Order::Stop => {
                    ready::stopping();
                    drained_by = Some(TokioInstant::now() + driver.options.drain);
                    driver.feed(Input::Drain);
                }
                Order::Reload => {
                    if let Some(events) = &driver.options.events {
                        events.reopen();
                    }
                    driver.feed(Input::Reload);
                }
                Order::Dump => driver.dump(),
            },
            Some((ticket, reply)) = answers.recv() => {
                driver.feed(Input::Answer { ticket, reply });
            }
            index = udp::readable(&driver.udp) => driver.receive(index),
            () = sleep_until(timeout) => {
                driver.machine.handle_timeout(driver.options.clock.now());
                driver.settle();
            }
            () = sleep_until(drained_by) => break,
            () = tick(&mut watchdog) => ready::alive(),
        }
    }
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
    udp: Vec<Udp>,
    relays: Relays,
    services: Services,
    answer: mpsc::UnboundedSender<(Ticket, Reply)>,
    options: Options,
    /// What could not be sent while outputs were drained: fed afterwards.
    failed: VecDeque<(Target, Bytes)>,
}

impl<M: Machine> Driver<M> {
    fn feed(&mut self, input: Input) {
        self.machine.handle_input(self.options.clock.now(), input);
        self.settle();
    }

    /// Drains the outputs, and the outputs of failures that this causes.
    fn settle(&mut self) {
        loop {
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Transmit { target, data } => self.transmit(target, data),
                    Output::Ask { ticket, question } => self.ask(ticket, question),
                    Output::Close { .. } => {}
                    Output::Event(event) => self.event(&event),
                }
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

    fn transmit(&mut self, target: Target, data: Bytes) {
        let listener = match target {
            Target::Flow(flow) => flow.listener,
            Target::Address { listener, .. } => listener,
        };
        let sent = match self.udp.iter().find(|udp| udp.listener == listener) {
            Some(udp) => udp.send(&data, target.remote()),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if let Err(error) = sent {
            tracing::debug!(peer = %format_args!("{}:{}", target.transport(), target.remote()), %error, "send-failed");
            self.failed.push_back((target, data));
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
        for line in lines {
            eprintln!("{line}");
        }
    }
}
