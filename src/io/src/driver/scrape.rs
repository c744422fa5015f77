//! Serves `/metrics`, `/healthz` and `/readyz` beside SIP: `--metrics`.
//!
//! In: HTTP requests without a body, one a connection. Out: the page, or whether the server takes new work. A few at a time, each
//! with a time limit: whoever holds a connection open keeps nobody from asking. Not here: what is counted (`metrics`).

use super::http::{self, Request};
use crate::metrics::{CONTENT_TYPE, Metrics};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at a time.
const AT_ONCE: usize = 32;
/// For request and answer together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Until it is dropped.
pub(super) async fn run(listener: TcpListener, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                tokio::task::spawn_local(async move {
                    let _ = timeout(PATIENCE, answer(stream, &metrics)).await;
                    drop(place);
                });
            }
            // No file descriptors: some may be closed soon.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while http::head_end(&head).is_none() && head.len() < http::HEAD_BYTES {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, kind, body) = match Request::parse(&head) {
        Some(request) if matches!(request.method, "GET" | "HEAD") => page(&request, metrics),
        Some(_) | None => ("400 Bad Request", "text/plain", String::new()),
    };
    let head_only = head.starts_with(b"HEAD ");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        body.len(),
        if head_only { "" } else { &body }
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn page(request: &Request<'_>, metrics: &Metrics) -> (&'static str, &'static str, String) {
    match request.target.split('?').next().unwrap_or_default() {
        "/metrics" => ("200 OK", CONTENT_TYPE, metrics.text()),
        "/healthz" => ("200 OK", "text/plain", "alive\n".to_owned()),
        "/readyz" if metrics.is_serving() => ("200 OK", "text/plain", "ready\n".to_owned()),
        "/readyz" => ("503 Service Unavailable", "text/plain", "draining\n".to_owned()),
        _ => ("404 Not Found", "text/plain", "/metrics /healthz /readyz\n".to_owned()),
    }
}
