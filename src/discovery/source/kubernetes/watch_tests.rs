//! Tests of the source with an API server that never ends a watch, over HTTP/1.1.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::config::Reach;
use super::*;
use crate::discovery::source::Family;
use crate::tls::endpoint::Endpoint;
use kubeconfig::Access;

const LIST: &str = r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"s","resourceVersion":"5"},
    "addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"]}]}]}"#;

/// Answers lists, and starts watches that stay silent. Sends the path of each request to `requests`.
async fn serve(mut stream: TcpStream, requests: mpsc::UnboundedSender<String>) {
    let mut received = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        received.push(byte);
        if !received.ends_with(b"\r\n\r\n") {
            continue;
        }
        let path = String::from_utf8_lossy(&received).split(' ').nth(1).unwrap_or_default().to_owned();
        received.clear();
        let response = if path.contains("watch=true") {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{LIST}", LIST.len())
        };
        requests.send(path).unwrap();
        stream.write_all(response.as_bytes()).await.unwrap();
    }
}

/// A source whose watches last at most `watch`, and the paths of its requests.
async fn source(watch: Duration) -> (KubernetesSource, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, sender.clone()));
        }
    });
    let access = Access {
        endpoint: Endpoint { tls: false, host: "127.0.0.1".to_owned(), port },
        path: "/prefix".to_owned(),
        ca: None,
        server_name: None,
        identity: None,
        token: None,
        namespace: Some("web".to_owned()),
    };
    let reach = Reach::Kubeconfig(Box::new(access));
    let (service, timeout) = ("api".to_owned(), Duration::from_secs(5));
    let spec = Spec { service, namespace: None, port: None, family: Family::Any, reach, timeout };
    (KubernetesSource { watch, ..KubernetesSource::new(spec) }, requests)
}

#[tokio::test]
async fn watch_that_is_silent_after_its_time_is_replaced_at_its_version() {
    let (source, mut requests) = source(Duration::from_millis(50)).await;
    assert_eq!(source.discover().await.unwrap().0.len(), 1);
    source.changed().await;
    assert_eq!(source.discover().await.unwrap().0.len(), 1);
    let path = "/prefix/apis/discovery.k8s.io/v1/namespaces/web/endpointslices?\
                labelSelector=kubernetes.io%2Fservice-name%3Dapi&";
    let watch = format!("{path}watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=1");
    for expected in [format!("{path}limit=100"), watch.clone(), watch] {
        assert_eq!(requests.recv().await, Some(expected));
    }
}
