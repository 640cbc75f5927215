//! conf/examples/production.yaml, served by the real binary: every part that it has, over TLS with HTTP/1.1 and HTTP/2.

mod site;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{Request, Uri};
use serde_json::Value;

use self::site::{Http2, Reply, Site, VERSIONS, Version, page};
use super::compress::decode;
use crate::lab::authority::handshake;
use crate::lab::client::{exchange, read_head};
use crate::lab::grpc::Channel;
use crate::lab::recorder::Received;
use crate::lab::scripted::Scripted;

/// A WebSocket server that echoes bytes.
fn websocket_backend() -> Scripted {
    Scripted::start(|mut stream| {
        let head = read_head(&mut stream).to_ascii_lowercase();
        // A health check only connects.
        if head.is_empty() {
            return;
        }
        assert!(head.starts_with("get /live ") && head.contains("upgrade: websocket"), "{head}");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )
            .unwrap();
        let mut part = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut part) {
            if stream.write_all(&part[..length]).is_err() {
                return;
            }
        }
    })
}

/// The requests that are no health checks.
fn without_checks(all: Vec<Received>) -> Vec<Received> {
    all.into_iter().filter(|received| !received.head.starts_with("GET /health ")).collect()
}

#[test]
fn production_file_leads_to_https_and_to_one_host_of_each_domain() {
    let site = Site::start();
    let plain = exchange(site.plain, b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!((plain.status, plain.header("location")), (308, "https://example.com/a?b=c"));
    for version in VERSIONS {
        for domain in ["example.com", "example.org"] {
            let reply = site.send(version, &format!("GET https://www.{domain}/a?b=c"), &[]);
            assert_eq!((reply.status, reply.header("location")), (301, format!("https://{domain}/a?b=c")));
            assert_eq!(reply.header("strict-transport-security"), "max-age=31536000; includeSubDomains");
        }
    }
    assert!(without_checks(site.backends.shop.take()).is_empty(), "no backend sees them");
    let line: Value = serde_json::from_str(&site.lab.wait_for_access("\"cause\":\"redirect\"")).unwrap();
    assert_eq!((&line["status"], &line["host"]), (&301.into(), &"www.example.com".into()));
}

#[test]
fn production_file_protects_and_compresses_the_pages_of_the_shop() {
    let site = Site::start();
    for version in VERSIONS {
        for coding in ["zstd", "br", "gzip"] {
            let reply = site.send(version, "GET https://example.com/", &[("accept-encoding", coding)]);
            assert_eq!((reply.status, reply.header("content-encoding")), (200, coding.to_owned()));
            assert_eq!(reply.header("vary"), "Accept-Encoding");
            assert!(reply.body.len() < page().len() / 4, "{} bytes", reply.body.len());
            assert_eq!(String::from_utf8(decode(coding, &reply.body)).unwrap(), page());
        }
        let reply = site.send(version, "GET https://example.com/", &[]);
        assert_eq!((reply.header("content-encoding"), reply.text()), (String::new(), page()));
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("x-frame-options", "SAMEORIGIN"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("x-powered-by", ""),
            ("server", ""),
        ] {
            assert_eq!(reply.header(name), value, "{name}");
        }
    }
}

#[test]
fn production_file_strips_the_prefix_of_the_api_and_responds_to_preflights() {
    let site = Site::start();
    let origin = ("origin", "https://app.example.com");
    for version in VERSIONS {
        let reply = site.send(version, "GET https://example.com/api/items?page=2", &[origin]);
        assert_eq!((reply.status, reply.text().as_str()), (200, "items"));
        assert_eq!(reply.header("access-control-allow-origin"), "https://app.example.com");
        assert_eq!(reply.header("access-control-allow-credentials"), "true");
        let received = without_checks(site.backends.api.take());
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].brief(), "GET /items?page=2");
        assert_eq!(received[0].values("x-forwarded-prefix"), ["/api"]);
        assert_eq!(received[0].values("x-forwarded-proto"), ["https"]);
        let ask = [origin, ("access-control-request-method", "PUT")];
        let preflight = site.send(version, "OPTIONS https://example.com/api/items", &ask);
        assert_eq!((preflight.status, preflight.body.len()), (204, 0));
        assert_eq!(preflight.header("access-control-allow-methods"), "GET, POST, PUT, DELETE");
        assert_eq!(preflight.header("access-control-allow-headers").to_lowercase(), "content-type, x-api-key");
        assert_eq!(preflight.header("access-control-max-age"), "3600");
        let other = [("origin", "https://other.example"), ask[1]];
        let denied = site.send(version, "OPTIONS https://example.com/api/items", &other);
        assert_eq!((denied.status, denied.header("access-control-allow-origin")), (403, String::new()));
    }
    assert!(without_checks(site.backends.api.take()).is_empty(), "preflights do not reach the API");
}

#[test]
fn production_file_limits_each_key_of_the_api() {
    let site = Site::start();
    let url: Uri = "https://example.com/api/items".parse().unwrap();
    site.run(async {
        let mut connection = site.http2("example.com").await;
        let mut ok = 0;
        for _ in 0..100 {
            let preflight = [("origin", "https://app.example.com"), ("access-control-request-method", "PUT")];
            assert_eq!(connection.send("OPTIONS", &url, &preflight).await.status, 204, "a preflight does not count");
            ok += usize::from(connection.send("GET", &url, &[("x-api-key", "one")]).await.status == 200);
        }
        assert_eq!(ok, 100);
        let fields = [("x-api-key", "one"), ("accept", "application/json"), ("origin", "https://app.example.com")];
        let limited = connection.send("GET", &url, &fields).await;
        assert_eq!(limited.status, 429);
        assert!(limited.header("ratelimit").starts_with("\"per-key\";r=0;"), "{limited:?}");
        // Until the next window, and until 1 of the 100 requests of this one counts no more.
        assert!((1..=61).contains(&limited.header("retry-after").parse::<u64>().unwrap()), "{limited:?}");
        assert_eq!(limited.header("access-control-allow-origin"), "https://app.example.com", "pages can read it");
        let error: Value = serde_json::from_slice(&limited.body).unwrap();
        assert_eq!(error["error"]["cause"], "rate_limited");
        assert_eq!(connection.send("GET", &url, &[("x-api-key", "two")]).await.status, 200);
    });
    for (key, status) in [("one", 429), ("two", 200)] {
        assert_eq!(site.send(Version::One, "GET https://example.com/api/x", &[("x-api-key", key)]).status, status);
    }
}

#[test]
fn production_file_forwards_websocket_over_both_versions_of_http() {
    let site = Site::start();
    let mut stream = handshake(site.port, "example.com", &site.tls("http/1.1")).unwrap();
    stream
        .write_all(
            b"GET /live HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let head = read_head(&mut stream).to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: "), "{head}");
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut received = [0; 5];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(&received, word.as_bytes());
    }
    if crate::lab::lacks_own_engine() {
        return;
    }
    site.run(async {
        let stream = site.connect(("example.com", "h2"), Ipv4Addr::LOCALHOST).await;
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let request = Request::connect("https://example.com/live").extension(h2::ext::Protocol::from("websocket"));
        let request = request.header("sec-websocket-version", "13").body(()).unwrap();
        let (response, mut sending) = sender.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        for word in ["hello", "again"] {
            sending.send_data(Bytes::from(word), false).unwrap();
            let mut received = Vec::new();
            while received.len() < word.len() {
                received.extend_from_slice(&body.data().await.unwrap().unwrap());
            }
            assert_eq!(received, word.as_bytes());
        }
    });
}

#[test]
fn production_file_forwards_grpc_with_its_trailers() {
    let site = Site::start();
    let reply = site.run(async {
        let channel = Channel::over(site.connect(("example.com", "h2"), Ipv4Addr::LOCALHOST).await).await;
        channel.call_at("https://example.com/shop.v1.Orders/Echo", &[], &[b"one", b"two"]).await
    });
    assert_eq!((reply.head.status.as_u16(), reply.status()), (200, "0"));
    assert_eq!(reply.messages, [&b"one"[..], b"two"]);
    assert_eq!(reply.trailers["x-lab-trailer"], "kept");
    assert!(!reply.is_trailers_only);
    let calls = site.backends.orders.calls();
    assert_eq!((calls.len(), &calls[0]["x-forwarded-proto"]), (1, &"https".parse().unwrap()));
}

#[test]
fn production_file_keeps_a_client_of_the_old_application_at_its_backend() {
    let site = Site::start();
    for version in VERSIONS {
        let mut seen = BTreeMap::<String, usize>::new();
        for _ in 0..16 {
            let first = site.send(version, "GET https://example.com/legacy/cart", &[]);
            let cookies = first.header("set-cookie");
            let own = cookies.split(", ").find(|cookie| cookie.starts_with("legacy=")).unwrap();
            assert!(own.contains("Path=/legacy") && own.contains("Secure") && own.contains("HttpOnly"), "{own}");
            let own = own.split(';').next().unwrap().to_owned();
            let backend = first.header("x-backend");
            assert_eq!(
                (first.status, first.header("location")),
                (302, "/legacy/login".to_owned()),
                "it is mapped back"
            );
            assert!(cookies.contains(&format!("session={backend}; Path=/legacy")), "{cookies}");
            // An odd number of requests for each client, because backends get requests in turn.
            for _ in 0..2 {
                let next = site.send(version, "GET https://example.com/legacy/cart", &[("cookie", &own)]);
                assert_eq!(next.header("x-backend"), backend);
            }
            *seen.entry(backend).or_default() += 1;
        }
        assert_eq!(seen.len(), 2, "new clients are distributed: {seen:?}");
    }
    let received = without_checks(site.backends.legacy[0].take());
    assert_eq!(received[0].brief(), "GET /cart");
    assert_eq!(received[0].values("x-forwarded-prefix"), ["/legacy"]);
}

#[test]
fn production_file_asks_for_a_password_and_restricts_internal_paths_to_networks() {
    let site = Site::start();
    // admin:example-password and admin:wrong
    let (right, wrong) = ("Basic YWRtaW46ZXhhbXBsZS1wYXNzd29yZA==", "Basic YWRtaW46d3Jvbmc=");
    for version in VERSIONS {
        let without = site.send(version, "GET https://example.com/admin/users", &[]);
        assert_eq!(without.status, 401);
        assert!(without.text().contains("This did not work"), "{without:?}");
        assert!(without.header("www-authenticate").starts_with("Basic realm=\"administration\""), "{without:?}");
        let fields = [("authorization", wrong), ("accept", "application/json")];
        let denied = site.send(version, "GET https://example.com/admin/users", &fields);
        let error: Value = serde_json::from_slice(&denied.body).unwrap();
        assert_eq!((denied.status, &error["error"]["cause"]), (401, &"unauthorized".into()));
        assert!(without_checks(site.backends.shop.take()).is_empty());
        let fields = [("authorization", right), ("x-user", "root")];
        assert_eq!(site.send(version, "GET https://example.com/admin/users", &fields).status, 200);
        let received = without_checks(site.backends.shop.take());
        assert_eq!(received[0].values("x-user"), ["admin"], "the name is not that of the client");
        assert!(received[0].values("authorization").is_empty());

        let request = "GET https://example.com/internal/metrics";
        let outside = site.send_from(Ipv4Addr::new(127, 0, 0, 2), version, request, &[("x-forwarded-for", "10.1.1.1")]);
        assert_eq!(outside.status, 403);
        assert!(without_checks(site.backends.shop.take()).is_empty());
        assert_eq!(site.send(version, request, &[]).status, 200);
        assert_eq!(without_checks(site.backends.shop.take()).len(), 1);
    }
    let line: Value = serde_json::from_str(&site.lab.wait_for_access("access_denied")).unwrap();
    assert_eq!((&line["client"], &line["status"]), (&"127.0.0.2".into(), &403.into()));
}

#[test]
fn production_file_sends_a_share_of_the_magazine_to_the_canary() {
    let site = Site::start();
    let url: Uri = "https://example.org/".parse().unwrap();
    let counts = site.run(async {
        let mut connection = site.http2("example.org").await;
        count(&mut connection, &url, 1000).await
    });
    // 5 % of 1,000, with five standard deviations of a binomial distribution.
    let canary = counts.get("canary").copied().unwrap_or_default();
    assert!((15..=85).contains(&canary) && counts["stable"] == 1000 - canary, "{counts:?}");
    let reply = site.send(Version::One, "GET https://example.org/", &[]);
    assert!(["stable", "canary"].contains(&reply.text().as_str()), "{reply:?}");
}

/// The bodies of so many responses.
async fn count(connection: &mut Http2, url: &Uri, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = connection.send("GET", url, &[]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        *counts.entry(reply.text()).or_default() += 1;
    }
    counts
}

#[test]
fn production_file_closes_and_opens_the_shop_by_its_switch_file() {
    let site = Site::start();
    let switch = site.lab.folder().join("maintenance");
    for version in VERSIONS {
        let open = || site.send(version, "GET https://example.com/", &[]).status;
        assert_eq!(open(), 200);
        std::fs::write(&switch, "").unwrap();
        let closed = site.send(version, "GET https://example.com/", &[("accept", "text/html")]);
        assert_eq!((closed.status, closed.header("retry-after")), (503, "600".to_owned()));
        assert!(closed.text().contains("We are working on this site"), "{}", closed.text());
        assert_eq!(closed.header("x-content-type-options"), "nosniff");
        assert_eq!(site.send(version, "GET https://example.com/api/items", &[]).status, 200, "the API stays open");
        std::fs::remove_file(&switch).unwrap();
        assert_eq!(open(), 200);
    }
}

#[test]
fn production_file_has_pages_for_errors_of_backends_and_of_itself() {
    let site = Site::start();
    for version in VERSIONS {
        for (request, status, cause) in
            [("GET https://example.com/broken", 500, ""), ("GET https://app.example.com/", 404, "no_route")]
        {
            let html = site.send(version, request, &[("accept", "text/html,*/*;q=0.8")]);
            assert_eq!((html.status, html.header("content-type").as_str()), (status, "text/html; charset=utf-8"));
            let id = html.header("x-request-id");
            assert!(!id.is_empty() && html.text().contains(&format!("the number of your request: {id}")), "{html:?}");
            assert!(!html.text().contains("a trace of the application"));
            let json = site.send(version, request, &[("accept", "application/json")]);
            assert_eq!((json.status, json.header("content-type").as_str()), (status, "application/json"));
            let error: Value = serde_json::from_slice(&json.body).unwrap();
            assert_eq!((&error["error"]["status"], &error["error"]["cause"]), (&status.into(), &cause.into()));
            assert!(vary(&json).contains(&"accept".to_owned()), "{json:?}");
        }
    }
}

/// The fields in `Vary`.
fn vary(reply: &Reply) -> Vec<String> {
    reply.header("vary").split(',').map(|name| name.trim().to_lowercase()).collect()
}
