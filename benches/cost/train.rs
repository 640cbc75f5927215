//! The training load of a profile-guided build: all protocols, keep-alive and new connections, small and large
//! responses.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Client, PROTOCOLS, Protocol};
use crate::proxy::Proxy;

/// How long each part of the load lasts.
const PART: Duration = Duration::from_secs(4);
/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// Requests on a connection before it is replaced, in the mix.
const MIX_REQUESTS: usize = 10;

/// Sends the load to `program`, then ends it.
pub(crate) async fn train(program: &Path) -> Result<(), Box<dyn Error>> {
    let proxy = Proxy::start_program(program)?;
    for protocol in PROTOCOLS {
        for (body, requests) in [(1024, usize::MAX), (16 << 10, MIX_REQUESTS), (1 << 20, usize::MAX)] {
            let until = Instant::now() + PART;
            let clients = (0..CONNECTIONS).map(|_| connections(protocol, &proxy, body, requests, until));
            let sent: usize = futures(clients).await?.into_iter().sum();
            println!("{}: {sent} responses of {body} bytes", protocol.name());
        }
    }
    proxy.stop();
    Ok(())
}

/// Sends requests until `until`, with a new connection after `requests` of them.
async fn connections(
    protocol: Protocol,
    proxy: &Proxy,
    body: usize,
    requests: usize,
    until: Instant,
) -> Result<usize, Box<dyn Error>> {
    let mut sent = 0;
    while Instant::now() < until {
        let mut client = Client::connect(protocol, proxy).await?;
        let mut on_this = 0;
        while on_this < requests && Instant::now() < until {
            client.request(body).await?;
            on_this += 1;
        }
        sent += on_this;
    }
    Ok(sent)
}

/// Runs all futures at the same time, on this task.
async fn futures<F, T, E>(futures: impl Iterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut all = true;
        for (future, result) in &mut pending {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(done) => *result = Some(done),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, result)| result).collect()
}
