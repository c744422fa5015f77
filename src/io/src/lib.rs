//! Everything of sipbox that can block: sockets, files, databases, clocks.
//!
//! A server is built in this order: parse flags (`bin`), [`listen::bind`], [`secrets::load`], make the machine,
//! [`driver::run`]. The driver owns the machine, feeds it and carries out what it asks for.

pub mod capture;
pub mod certificate;
pub mod clock;
pub mod control;
pub mod dns;
pub mod driver;
pub mod entropy;
pub mod events;
pub mod hep;
pub mod listen;
pub mod log;
pub mod media;
pub mod metrics;
pub mod pcapng;
pub mod ports;
pub mod ready;
pub mod secrets;
pub mod services;
pub mod signals;
pub mod start;
pub mod store;
pub mod tls;
pub mod websocket;
