//! Attacks on the cache: a client must neither change the stored response of others, nor read one that is not for it,
//! nor block others.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::origin::{Origin, ok};
use super::wire::{Client, Kind, Message, get, head, read, read_head};
use super::{cached, configuration};
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// An origin that puts the whole request into its response: what it uses can poison the cache.
fn reflecting(fields: &'static str) -> Origin {
    Origin::responding(move |request| ok(fields, &format!("{} {:?} {}", request.start, request.fields, request.text())))
}

const CACHEABLE: &str = "Cache-Control: max-age=60\r\n";

/// Requests of an attacker and then of another client; the second must not see `evil`.
fn poisons(port: u16, target: &str, attack: &[u8], victim: &str) -> bool {
    let mut attacker = Client::connect(port);
    attacker.send(attack);
    let reflected = read(&mut attacker.reader, Kind::Response);
    assert!(reflected.is_some(), "{target}: {}", attack.escape_ascii());
    get(port, victim, &[]).text().contains("evil")
}

#[test]
fn forwarding_headers_of_a_client_do_not_reach_the_stored_response() {
    let origin = reflecting(CACHEABLE);
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let names = ["X-Forwarded-Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "X-Request-Id"];
    for (number, name) in names.into_iter().enumerate() {
        let target = format!("/{number}");
        let attack = head("GET", &target, &[(name, "host=evil")]);
        assert!(!poisons(port, &target, &attack, &target), "{name}");
    }
}

/// Headers by which frameworks replace the target, the method or the host of a request.
#[test]
fn headers_that_override_the_request_do_not_poison_the_cache() {
    let origin = reflecting(CACHEABLE);
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let names = [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Forwarded-Scheme",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Port",
        "X-Host",
        "X-Original-Host",
        "X-Forwarded-Path",
    ];
    let poisoned: Vec<&str> = names
        .into_iter()
        .enumerate()
        .filter(|(number, name)| {
            let target = format!("/{number}");
            poisons(port, &target, &head("GET", &target, &[(name, "evil")]), &target)
        })
        .map(|(_, name)| name)
        .collect();
    assert!(poisoned.is_empty(), "{poisoned:?}");
}

#[test]
fn body_of_a_get_does_not_poison_the_cache() {
    let origin = reflecting(CACHEABLE);
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let attack = b"GET /a HTTP/1.1\r\nHost: cache.test\r\nContent-Length: 4\r\n\r\nevil";
    assert!(!poisons(port, "/a", attack, "/a"));
    let attack = b"GET /b HTTP/1.1\r\nHost: cache.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n";
    assert!(!poisons(port, "/b", attack, "/b"));
}

#[test]
fn target_in_absolute_form_does_not_poison_the_cache() {
    let origin = reflecting(CACHEABLE);
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let attack = b"GET http://evil.test/a HTTP/1.1\r\nHost: cache.test\r\n\r\n";
    assert!(!poisons(port, "/a", attack, "/a"));
    let attack = b"GET http://cache.test/b HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    assert!(!poisons(port, "/b", attack, "/b"));
}

/// Parameters that the key omits, written so that an origin reads others.
#[test]
fn parameters_that_the_key_omits_do_not_hide_others() {
    let origin = reflecting(CACHEABLE);
    let attacks = [
        ("query: without_tracking", "?a=1&utm_source=x;a=evil"),
        ("query: without_tracking", "?a=1&utm_source=x%26a=evil;a=evil"),
        ("query: without_tracking", "?utm_source=x;a=evil&a=1"),
        ("query: only, parameters: [a]", "?a=1&a=evil"),
        ("query: only, parameters: [a]", "?a=1&%61=evil"),
        ("query: only, parameters: [a]", "?a=1&b=2;a=evil"),
        ("query: only, parameters: [a]", "?a=1&A=evil"),
        ("query: only, parameters: [a]", "?a=1&a[]=evil"),
        ("query: sorted", "?a=1&a=evil"),
    ];
    for (key, query) in attacks {
        let port = free_port();
        let _lab = cached(port, origin.port, &format!("key: {{ {key} }}"));
        let target = format!("/x{query}");
        let attack = head("GET", &target, &[]);
        // The origin reads `evil` as the value of `a`, so the victim's `a=1` must not get this response.
        assert!(!poisons(port, &target, &attack, "/x?a=1"), "{key}: {query}");
    }
}

#[test]
fn private_responses_below_static_looking_paths_are_not_stored() {
    let responses = [
        "Cache-Control: private, max-age=60\r\n",
        "Cache-Control: no-store\r\n",
        "Cache-Control: max-age=60\r\nSet-Cookie: session=1\r\n",
        "Cache-Control: no-cache\r\n",
        "Cache-Control: max-age=0\r\n",
        "Content-Type: text/css\r\n",
        "Vary: *\r\n",
    ];
    let targets = ["/account/x.css", "/account;x.css", "/account/x.css?y", "/account%3Fx.css", "/account%0Ax.css"];
    for fields in responses {
        let origin = Origin::responding(move |request| ok(fields, &request.field("cookie").unwrap_or_default()));
        let port = free_port();
        let _lab = cached(port, origin.port, "");
        for target in targets {
            get(port, target, &[("Cookie", "secret")]);
            let stolen = get(port, target, &[]);
            assert!(!stolen.text().contains("secret") && !stolen.is_hit(), "{fields} {target} {stolen:?}");
        }
    }
}

/// Targets and hosts that look alike. The cache must give each the response that the origin would give.
#[test]
fn targets_that_an_origin_may_distinguish_have_different_keys() {
    let origin = Origin::responding(|request| {
        ok(CACHEABLE, &format!("{} {}", request.target(), request.field("host").unwrap_or_default().to_lowercase()))
    });
    let (port, plain_port) = (free_port(), free_port());
    let _lab = cached(port, origin.port, "");
    let _plain = Lab::start(&configuration(plain_port, origin.port, "  - { path: /, pool: a }\n"));
    let alike = [
        &["/a", "/a/", "/A", "/%61", "/a?", "/a%3F", "/a;", "/a;b", "/a%20", "/a%00", "/./a", "/b/../a", "//a"][..],
        &["/a/b", "/a%2Fb", "/a%2fb", "/a//b", "/a/./b", "/a/c/../b", "/a%5Cb", "/a\\b", "/a/%2e/b"],
        &["/q?a=1&b=2", "/q?a=1%26b=2", "/q?b=2&a=1", "/q?a=1&b=2&", "/q?a=1;b=2", "/q?A=1&b=2", "/q?a=1&b=2#x"],
        &["/q?a=+", "/q?a=%20", "/q?a=%2B", "/q?a", "/q?a=", "/q??a", "/q?a?b", "/q?a=/", "/q?a=%2F"],
    ];
    for target in alike.into_iter().flatten() {
        let ask = |port| Client::connect(port).ask("GET", target, &[("Connection", "close")]);
        let (from_origin, first, second) = (ask(plain_port), ask(port), ask(port));
        assert_eq!((first.status(), second.status()), (from_origin.status(), from_origin.status()), "{target}");
        if from_origin.status() == 200 {
            assert_eq!((first.text(), second.text()), (from_origin.text(), from_origin.text()), "{target}");
        }
    }
    let hosts =
        ["a.test", "A.test", "a.test:80", "a.test:81", "a.test:8080", "b.test", "a.test.evil", "a", "127.0.0.1"];
    for host in hosts {
        let normal =
            |text: String| text.to_lowercase().replace(".test:80 ", ".test").trim_end_matches(":80").to_owned();
        let ask = |port| normal(get(port, "/host", &[("Host", host)]).text());
        assert_eq!((ask(port), ask(port)), (ask(plain_port), ask(plain_port)), "{host}");
    }
}

#[test]
fn long_targets_that_differ_in_their_last_byte_have_different_keys() {
    let origin = Origin::responding(|request| ok(CACHEABLE, &request.target()[request.target().len() - 1..]));
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let long = "x".repeat(7000);
    for _ in 0..2 {
        for last in ["a", "b"] {
            assert_eq!(get(port, &format!("/{long}{last}"), &[]).text(), last);
            assert_eq!(get(port, &format!("/?{long}{last}"), &[]).text(), last);
        }
    }
}

/// The resident memory of a process in bytes.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn many_variants_of_one_target_neither_mix_nor_exceed_the_memory() {
    let padding = "p".repeat(10_000);
    let origin = Origin::responding(move |request| {
        let variant = request.field("x-variant").unwrap_or_default();
        ok("Cache-Control: max-age=60\r\nVary: X-Variant\r\n", &format!("{variant}|{padding}"))
    });
    let port = free_port();
    let routes = "  - { path: /, pool: a, cache: {} }\ncache: { memory: { size: 2MiB } }\n";
    let lab = Lab::start(&configuration(port, origin.port, routes));
    let mut client = Client::connect(port);
    let mut ask = |number: usize| client.ask("GET", "/", &[("X-Variant", &number.to_string())]).text();
    ask(0);
    let before = memory(lab.pid());
    for number in 0..3000 {
        let body = ask(number);
        assert_eq!(body.split('|').next(), Some(number.to_string().as_str()));
    }
    for number in (0..3000).step_by(111) {
        assert!(ask(number).starts_with(&format!("{number}|")));
    }
    // 30 MB of responses passed a store of 2 MiB.
    let growth = memory(lab.pid()).saturating_sub(before);
    assert!(growth < 20 << 20, "{growth} bytes");
}

/// Each response names other fields in Vary, and some name very many.
#[test]
fn responses_whose_vary_grows_are_never_mixed() {
    let number = AtomicUsize::new(0);
    let origin = Origin::responding(move |request| {
        let count = number.fetch_add(1, Ordering::Relaxed) % 40;
        let names: Vec<String> = (0..=count).map(|name| format!("X-V{name}")).collect();
        ok(&format!("{CACHEABLE}Vary: {}\r\n", names.join(", ")), &request.field("x-v0").unwrap_or_default())
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let mut client = Client::connect(port);
    for round in 0..400 {
        let value = (round % 7).to_string();
        assert_eq!(client.ask("GET", "/", &[("X-V0", &value)]).text(), value);
    }
}

#[test]
fn response_with_too_many_names_in_vary_is_unstored_with_a_cause_and_remembered() {
    let names: String = (0..17).map(|number| format!("X-{number},")).collect();
    let origin = Origin::responding(move |_| ok(&format!("{CACHEABLE}Vary: {names}\r\n"), "x"));
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let status = || get(port, "/", &[]).field("cache-status").unwrap();
    assert_eq!(status(), "l7lb; fwd=uri-miss; detail=vary_any");
    // A response that is known as one that cannot be stored is forwarded without a fetch, which has no detail.
    assert_eq!(status(), "l7lb; fwd=uri-miss");
}

/// Each response names few fields, but all of them together are too many.
#[test]
fn response_whose_vary_names_others_than_those_of_before_is_stored() {
    let origin = Origin::responding(|request| {
        let first = request.field("x-first").unwrap_or_default();
        let names: String = (0..10).map(|number| format!("X-{first}-{number},")).collect();
        ok(&format!("{CACHEABLE}Vary: X-First, {names}\r\n"), &first)
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    for first in ["a", "b", "c"] {
        let responses = [(); 2].map(|()| get(port, "/", &[("X-First", first)]));
        assert_eq!(responses.each_ref().map(Message::text), [first, first]);
        assert!(responses[1].is_hit(), "{first}: {:?}", responses[1]);
    }
}

#[test]
fn large_response_header_is_the_same_from_the_cache() {
    let value = "v".repeat(6000);
    let origin = Origin::responding(move |_| ok(&format!("{CACHEABLE}X-A: {value}\r\nX-B: {value}\r\n"), "x"));
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let (first, second) = (get(port, "/", &[]), get(port, "/", &[]));
    assert_eq!((first.status(), first.is_hit(), second.is_hit()), (200, false, true));
    assert_eq!((first.field("x-a"), first.field("x-b")), (second.field("x-a"), second.field("x-b")));
}

/// A response that is too large to pass is an error and must not be stored as one.
#[test]
fn response_header_above_the_limit_is_not_stored() {
    let count = AtomicUsize::new(0);
    let origin = Origin::responding(move |_| {
        let size = if count.fetch_add(1, Ordering::Relaxed) == 0 { 2 << 20 } else { 10 };
        ok(&format!("{CACHEABLE}X-A: {}\r\n", "v".repeat(size)), "x")
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "default_ttl: 60s");
    assert_eq!(get(port, "/", &[]).status(), 502);
    assert_eq!(get(port, "/", &[]).status(), 200);
}

#[test]
fn responses_that_never_end_block_no_other_response() {
    let origin = Origin::start(|request, stream| {
        if !request.target().starts_with("/stall") {
            return stream.write_all(ok(CACHEABLE, "fine").as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000\r\n\r\nstart")?;
        std::thread::sleep(PATIENCE);
        Ok(())
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    assert_eq!(get(port, "/hit", &[]).text(), "fine");
    let stalled: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = Client::connect(port);
            client.send(&head("GET", &format!("/stall/{number}"), &[]));
            assert_eq!(read_head(&mut client.reader).unwrap().status(), 200);
            client
        })
        .collect();
    assert!(get(port, "/hit", &[]).is_hit());
    for number in 0..20 {
        assert_eq!(get(port, &format!("/miss/{number}"), &[]).text(), "fine");
    }
    drop(stalled);
    assert!(get(port, "/hit", &[]).is_hit());
}

/// Fills whose clients have all left must end, or an attacker collects them.
#[test]
fn fills_without_clients_do_not_keep_their_origin_connections_forever() {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let origin = Origin::start(move |_, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000000000\r\n\r\n")?;
        // Slowly, until the balancer closes the connection.
        while stream.write_all(b"drip").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        counted.fetch_sub(1, Ordering::SeqCst);
        Err(std::io::Error::other("closed"))
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let clients: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = Client::connect(port);
            client.send(&head("GET", &format!("/{number}"), &[]));
            assert_eq!(read_head(&mut client.reader).unwrap().status(), 200);
            client
        })
        .collect();
    assert_eq!(open.load(Ordering::SeqCst), 20);
    drop(clients);
    eventually("the connections to the origin are closed", PATIENCE, || open.load(Ordering::SeqCst) == 0);
}

/// An origin that is careless about caches: it personalises responses and states only a lifetime.
#[test]
fn response_for_credentials_never_reaches_another_client() {
    let origin = Origin::responding(|request| {
        let directives = request.target().split('?').nth(1).unwrap_or_default().replace('_', ", ");
        ok(
            &format!("Cache-Control: {directives}\r\nETag: \"e\"\r\n"),
            &request.field("authorization").unwrap_or_default(),
        )
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "default_ttl: 60s, stale_while_revalidate: 60s, stale_if_error: 60s");
    for directives in
        ["", "max-age=60", "max-age=60_stale-while-revalidate=60", "no-cache", "private_max-age=60", "immutable"]
    {
        let target = format!("/?{directives}");
        for user in ["Basic alice", "Basic bob", "Bearer token"] {
            assert_eq!(get(port, &target, &[("Authorization", user)]).text(), user, "{directives}");
            let anonymous = get(port, &target, &[("Cache-Control", "no-store")]);
            assert_eq!(anonymous.text(), "", "{directives}");
        }
    }
}

#[test]
fn response_that_varies_by_cookie_never_reaches_another_client() {
    let fields = "Cache-Control: max-age=60\r\nVary: Cookie\r\n";
    let origin = Origin::responding(|request| ok(fields, &request.field("cookie").unwrap_or_default()));
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    for _ in 0..2 {
        for user in ["session=alice", "session=bob", "session=alice; x=1", "x=1; session=alice"] {
            assert_eq!(get(port, "/", &[("Cookie", user)]).text(), user);
        }
        assert_eq!(get(port, "/", &[]).text(), "");
    }
}

/// A client that sends If-None-Match with the ETag of someone else's response learns nothing.
#[test]
fn conditional_request_does_not_reveal_private_responses() {
    let requests = Arc::new(Mutex::new(Vec::<Message>::new()));
    let seen = Arc::clone(&requests);
    let origin = Origin::responding(move |request| {
        seen.lock().unwrap().push(request.clone());
        ok("Cache-Control: private, max-age=60\r\nETag: \"secret\"\r\n", "private")
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    get(port, "/", &[("Cookie", "alice")]);
    let probe = get(port, "/", &[("If-None-Match", "\"secret\"")]);
    assert_eq!(probe.status(), 200, "the origin decides, and it ignores conditions");
    assert_eq!(requests.lock().unwrap().len(), 2);
}

/// Requests whose own responses are not stored must not keep the responses for other clients out of the cache.
#[test]
fn client_whose_responses_are_not_stored_does_not_disable_the_cache_for_others() {
    let origin = reflecting(CACHEABLE);
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let attacks: [(&str, &str); 5] = [
        ("Authorization", "Basic YTpi"),
        ("Cache-Control", "no-store"),
        ("Range", "bytes=0-0"),
        ("If-None-Match", "*"),
        ("If-Match", "\"x\""),
    ];
    let mut disabled = Vec::new();
    for (number, field) in attacks.into_iter().enumerate() {
        let target = format!("/{number}");
        for _ in 0..3 {
            get(port, &target, &[field]);
        }
        get(port, &target, &[]);
        if !get(port, &target, &[]).is_hit() {
            disabled.push(field);
        }
    }
    assert!(disabled.is_empty(), "{disabled:?}");
}

/// A cache behind l7lb could store the error, and send it to clients that want the whole response.
#[test]
fn error_for_a_range_has_neither_the_lifetime_nor_the_validators_of_the_response() {
    let fields = "Cache-Control: max-age=60\r\nETag: \"1\"\r\nExpires: Sat, 01 Jan 2050 00:00:00 GMT\r\nX-Field: 1\r\n";
    let origin = Origin::responding(move |_| ok(fields, "body"));
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    get(port, "/", &[]);
    let error = get(port, "/", &[("Range", "bytes=10-")]);
    assert_eq!((error.status(), error.field("content-range").as_deref()), (416, Some("bytes */4")));
    for name in ["cache-control", "expires", "etag", "age"] {
        assert_eq!(error.field(name), None, "{name}");
    }
    assert_eq!(error.field("x-field").as_deref(), Some("1"));
    assert!(get(port, "/", &[]).is_hit());
}

#[test]
fn range_of_a_response_that_is_too_large_is_forwarded_as_a_range() {
    let origin = Origin::responding(|request| match request.field("range") {
        Some(_) => {
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/5000\r\nContent-Length: 4\r\n\r\nxxxx".to_owned()
        }
        None => ok(CACHEABLE, &"x".repeat(5000)),
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "max_object_size: 4KiB");
    for detail in ["; detail=too_large", ""] {
        let response = get(port, "/", &[("Range", "bytes=0-3")]);
        assert_eq!((response.status(), response.text().as_str()), (206, "xxxx"));
        assert_eq!(response.field("cache-status").unwrap(), format!("l7lb; fwd=uri-miss{detail}"));
    }
    assert_eq!(get(port, "/", &[]).body.len(), 5000);
}

/// RFC 9111 §4.1 lets a cache treat several lines as one. A backend that uses only one of them must not see several.
#[test]
fn repeated_lines_of_a_header_in_vary_do_not_poison_the_responses_of_others() {
    let origin = Origin::responding(|request| {
        let last = |name: &str| request.values(name).last().copied().unwrap_or_default().to_owned();
        let fields = format!("{CACHEABLE}Vary: Accept-Language, Cookie\r\n");
        ok(&fields, &format!("{} {}", last("accept-language"), last("cookie")))
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let attack =
        [("Accept-Language", "de"), ("Accept-Language", "evil"), ("Cookie", "theme=dark"), ("Cookie", "theme=evil")];
    get(port, "/", &attack);
    let fields = [("Accept-Language", "de, evil"), ("Cookie", "theme=dark; theme=evil")];
    for _ in 0..2 {
        assert_eq!(get(port, "/", &fields).text(), "de, evil theme=dark; theme=evil");
    }
}
