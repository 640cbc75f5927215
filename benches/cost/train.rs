//! The training load of a profile-guided build: all protocols, keep-alive and new connections, small and large
//! responses.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{BoxError, Connector, PROTOCOLS};
use crate::proxy::Proxy;

/// How long each part of the load lasts.
const PART: Duration = Duration::from_secs(4);
/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// Requests on a connection before it is replaced, in the mix.
const MIX_REQUESTS: usize = 10;

/// Sends the load to `program`, then ends it.
pub(crate) async fn train(program: &Path) -> Result<(), BoxError> {
    let proxy = Proxy::start_program(program)?;
    for protocol in PROTOCOLS {
        let connector = Arc::new(Connector::new(protocol, &proxy)?);
        for (body, requests) in [(1024, usize::MAX), (16 << 10, MIX_REQUESTS), (1 << 20, usize::MAX)] {
            let until = Instant::now() + PART;
            let clients = (0..CONNECTIONS).map(|_| connections(Arc::clone(&connector), body, requests, until));
            let sent: Vec<_> = clients.collect::<JoinSet<_>>().join_all().await;
            let sent: usize = sent.into_iter().sum::<Result<_, _>>()?;
            println!("{}: {sent} responses of {body} bytes", protocol.name());
        }
    }
    proxy.stop();
    Ok(())
}

/// Sends requests until `until`, with a new connection after `requests` of them. Returns their number.
async fn connections(
    connector: Arc<Connector>,
    body: usize,
    requests: usize,
    until: Instant,
) -> Result<usize, BoxError> {
    let mut sent = 0;
    while Instant::now() < until {
        let mut client = connector.connect().await?;
        let mut on_this = 0;
        while on_this < requests && Instant::now() < until {
            client.request(body).await?;
            on_this += 1;
        }
        sent += on_this;
    }
    Ok(sent)
}
