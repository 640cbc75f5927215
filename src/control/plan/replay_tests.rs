//! Replays of constructed requests.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};

use super::replay::{OutcomeKind, Replay, replay};
use crate::config::load;
use crate::decision::snapshot::Snapshot;
use crate::observe::recent_requests::{RecordedRequest, RequestKey};
use crate::routing::affinity::cookie::pool_id;

const HEAD: &str = "listeners: [{ address: 0.0.0.0:8080 }]
pools:
  a: { backends: [{ address: 127.0.0.1:1 }] }
  b: { backends: [{ address: 127.0.0.1:2 }] }
  c: { backends: [{ address: 127.0.0.1:3 }] }
";

fn snapshot(rest: &str, before: Option<&Snapshot>, now: Instant) -> Snapshot {
    let checked = load::parse(&format!("{HEAD}{rest}"), "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    Snapshot::build(&checked, before, now).unwrap()
}

/// A request for a path by a client, in milliseconds after the start.
fn request(start: Instant, (path, client, millis): (&str, u8, u64)) -> RecordedRequest<'_> {
    let at = start + Duration::from_millis(millis);
    let key = RequestKey { client: Ipv4Addr::new(192, 0, 2, client).into(), ..RequestKey::example(at, path) };
    RecordedRequest { key, headers: Vec::new(), path_truncated: false }
}

/// The replay of requests given as path, client and time.
fn replayed(old: &str, new: &str, requests: &[(&str, u8, u64)]) -> Replay {
    let start = Instant::now();
    let before = snapshot(old, None, start);
    // The new snapshot is built long after the requests.
    let now = start + Duration::from_secs(600);
    let after = snapshot(new, Some(&before), now);
    replay(&before, &after, requests.iter().map(|one| request(start, *one)), now)
}

/// The moves in percent.
fn moves(replay: &Replay) -> BTreeMap<String, f64> {
    let percent = |share: f64| (share * 10_000.0).round() / 100.0;
    replay.moves.iter().map(|one| (format!("{} > {}", one.from, one.to), percent(one.share))).collect()
}

fn expected(moves: &[(&str, f64)]) -> BTreeMap<String, f64> {
    moves.iter().map(|(text, share)| ((*text).to_owned(), *share)).collect()
}

#[test]
fn moves_have_their_shares_and_samples() {
    let old = "routes: [{ path: /, pool: a }, { path: /b, pool: b }, { path: /c, pool: c }]";
    let new = "routes: [{ path: /x, pool: a }, { path: /b, pool: a }, { path: /c, pool: c, body_size: 1 }]";
    let requests = [
        ("/x/1", 1, 0),
        ("/b", 1, 1),
        ("/b/2", 2, 2),
        ("/c", 1, 3),
        ("/", 3, 4),
        ("/", 4, 5),
        ("/x", 5, 6),
        ("/x", 5, 7),
    ];
    let result = replayed(old, new, &requests);
    assert_eq!(moves(&result), expected(&[("pool b > pool a", 25.0), ("pool a > 404 no_route", 25.0)]));
    assert_eq!((result.requests, result.seconds, result.moved), (8, 600.0, 0.5));
    let lost = result.moves.iter().find(|one| one.to != OutcomeKind::Pool("a".to_owned())).unwrap();
    assert_eq!((lost.requests, lost.samples.len()), (2.0, 1), "the same request is one sample");
    assert_eq!(lost.samples[0].to_string(), "GET example.com/");
    assert_eq!(lost.samples[0].client.to_string(), "192.0.2.3");
}

#[test]
fn probabilities_are_compared_for_several_pools() {
    let split = |a: u32, b: u32, c: u32| format!("routes: [{{ path: /, pool: {{ a: {a}, b: {b}, c: {c} }} }}]");
    let one = [("/", 1, 0); 4];
    let result = replayed(&split(95, 5, 0), &split(90, 10, 0), &one);
    assert_eq!(moves(&result), expected(&[("pool a > pool b", 5.0)]));
    let result = replayed(&split(60, 40, 0), &split(30, 20, 50), &one);
    assert_eq!(moves(&result), expected(&[("pool a > pool c", 30.0), ("pool b > pool c", 20.0)]));
    assert!(moves(&replayed(&split(3, 7, 0), &split(30, 70, 0), &one)).is_empty(), "the same probabilities");
}

#[test]
fn client_with_affinity_keeps_its_pool() {
    let by_address = |a: u32, b: u32| {
        format!("routes: [{{ path: /, pool: {{ a: {a}, b: {b} }}, sticky: {{ by: client_ip, keep: pool }} }}]")
    };
    let requests: Vec<_> = (0..=255).map(|client| ("/", client, 0)).collect();
    let result = replayed(&by_address(50, 50), &by_address(40, 60), &requests);
    assert_eq!(result.moves.len(), 1);
    let whole = result.moves[0].requests;
    assert!(whole.fract() == 0.0 && (10.0..45.0).contains(&whole), "about a tenth of 256 clients, whole: {whole}");

    let start = Instant::now();
    let cookie = |a: u32, b: u32, extra: &str| {
        let text = format!("routes: [{{ path: /, pool: {{ a: {a}, b: {b} }}, sticky: {{ cookie: {{ {extra} }} }} }}]");
        snapshot(&text, None, start)
    };
    let bound = |pool: &str| {
        let mut recorded = request(start, ("/", 1, 0));
        recorded.key.bound = Some(pool_id(pool));
        recorded
    };
    let result = |old: &Snapshot, rest: &str, recorded: RecordedRequest<'static>| {
        moves(&replay(old, &snapshot(rest, Some(old), start), [recorded], start))
    };
    let same = "routes: [{ path: /, pool: { a: 1, b: 99 }, sticky: { cookie: {} } }]";
    let old = cookie(1, 1, "");
    assert!(result(&old, same, bound("a")).is_empty(), "its cookie is valid");
    assert_eq!(
        result(&old, same, request(start, ("/", 1, 0))),
        expected(&[("pool a > pool b", 49.0)]),
        "without a cookie"
    );
    let gone = "routes: [{ path: /, pool: { a: 0, b: 1 }, sticky: { cookie: {} } }]";
    assert_eq!(result(&old, gone, bound("a")), expected(&[("pool a > pool b", 100.0)]));
    let renamed = "routes: [{ path: /, pool: { a: 1, b: 1 }, sticky: { cookie: { name: other } } }]";
    assert_eq!(
        result(&old, renamed, bound("a")),
        expected(&[("pool a > pool b", 50.0)]),
        "the cookie has another name"
    );
}

#[test]
fn recorded_header_determines_affinity_and_another_gives_a_note() {
    let text = |headers: &str, a: u32| {
        format!(
            "recent_requests: {{ headers: [{headers}] }}\nroutes: [{{ path: /, pool: {{ a: {a}, b: 50 }}, sticky: {{ by: header, name: X-User, keep: pool }} }}]"
        )
    };
    let start = Instant::now();
    let recorded = |user: &str| {
        let mut recorded = request(start, ("/", 1, 0));
        recorded.headers = vec![(HeaderName::from_static("x-user"), HeaderValue::from_str(user).unwrap())];
        recorded
    };
    let users: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let (old, new) = (snapshot(&text("x-user", 50), None, start), snapshot(&text("x-user", 40), None, start));
    let result = replay(&old, &new, users.iter().map(|user| recorded(user)), start);
    assert!(result.notes.is_empty() && result.moves.iter().all(|one| one.requests.fract() == 0.0), "{result:?}");
    let old = snapshot(&text("", 50), None, start);
    let result = replay(&old, &new, [request(start, ("/", 1, 0))], start);
    assert_eq!(result.notes.len(), 1, "{result:?}");
    assert!(result.moved > 0.05 && result.moved < 0.06, "5/90 by the shares: {result:?}");
}

/// Which clients would newly and no longer be limited.
fn limited(old: &str, new: &str, requests: &[(&str, u8, u64)]) -> (Vec<String>, Vec<String>, BTreeMap<String, f64>) {
    let limit = |limit: &str| format!("rate_limit: {limit}\nroutes: [{{ path: /, pool: a }}]");
    let result = replayed(&limit(old), &limit(new), requests);
    let names = |samples: &[std::net::IpAddr]| samples.iter().map(ToString::to_string).collect();
    assert_eq!(result.newly_limited.count, result.newly_limited.samples.len());
    (names(&result.newly_limited.samples), names(&result.no_longer_limited.samples), moves(&result))
}

#[test]
fn limits_are_replayed_at_the_recorded_times() {
    let none = "{ type: none }";
    // One client sends 4 requests at once, another one every 600 ms, a third one as many as the first, half a
    // second apart.
    let mut requests = vec![("/", 1, 0), ("/", 1, 10), ("/", 1, 20), ("/", 1, 30)];
    requests.extend([("/", 2, 0), ("/", 2, 600), ("/", 2, 1200), ("/", 2, 1800)]);
    requests.extend([("/", 3, 980), ("/", 3, 990), ("/", 3, 1000), ("/", 3, 1010)]);
    requests.sort_by_key(|(_, _, at)| *at);
    let one = || vec!["192.0.2.1".to_owned()];
    let two = || vec!["192.0.2.1".to_owned(), "192.0.2.3".to_owned()];
    let share =
        |requests: f64| expected(&[("pool a > 429 rate_limited", (requests / 12.0 * 10_000.0).round() / 100.0)]);
    // Windows start at 0, 1 s, 2 s: the third client has a quota on both sides of the edge.
    let fixed = limited(none, "{ type: fixed_window, limit: 3, window: 1s }", &requests);
    assert_eq!(fixed, (one(), vec![], share(1.0)));
    let sliding = limited(none, "{ type: sliding_window, limit: 3, window: 1s }", &requests);
    assert_eq!(sliding, (two(), vec![], share(2.0)));
    let bucket = limited(none, "{ type: token_bucket, limit: 2, window: 1s, burst: 3 }", &requests);
    assert_eq!(bucket, (two(), vec![], share(2.0)));
    let looser = limited(
        "{ type: fixed_window, limit: 3, window: 1s }",
        "{ type: fixed_window, limit: 4, window: 1s }",
        &requests,
    );
    let moved = expected(&[("429 rate_limited > pool a", 8.33)]);
    assert_eq!(looser, (vec![], one(), moved));
}

#[test]
fn state_of_the_connection_is_replayed() {
    let start = Instant::now();
    let (old, new) = ("routes: [{ path: /, pool: a }]", "routes: [{ path: /, pool: b }]");
    let (before, after) = (snapshot(old, None, start), snapshot(new, None, start));
    let mut recorded = request(start, ("/", 1, 0));
    recorded.key.misdirected = true;
    assert!(replay(&before, &after, [recorded.clone()], start).moves.is_empty(), "421 before and after");
    recorded.key.misdirected = false;
    recorded.key.content_length = Some(11);
    let small = snapshot("routes: [{ path: /, pool: a, body_size: 10 }]", None, start);
    let result = replay(&before, &small, [recorded], start);
    assert_eq!(moves(&result), expected(&[("pool a > 413 body_too_large", 100.0)]));
}

/// A random configuration and random requests.
fn random(random: &mut fastrand::Rng) -> (String, Vec<(String, u8, u64)>) {
    let kinds = ["fixed_window", "sliding_window", "token_bucket"];
    let mut limit = || {
        let kind = kinds[random.usize(..3)];
        format!("{{ type: {kind}, limit: {}, window: {}s }}", random.u32(1..20), random.u32(1..20))
    };
    let overall = limit();
    let route = limit();
    let paths = ["/", "/a", "/a/b", "/c", "/%2F", "*"];
    let sticky = ["", ", sticky: { by: client_ip }", ", sticky: { cookie: {} }"][random.usize(..3)];
    let (a, b) = (random.u32(1..100), random.u32(..100));
    let text = format!(
        "rate_limit: {overall}\nroutes:\n  - {{ path: /a, pool: {{ a: {a}, b: {b} }}{sticky}, rate_limit: {route} }}\n  - {{ path: /c, pool: c, methods: [GET] }}"
    );
    let mut at = 0;
    let requests = (0..500).map(|_| {
        at += random.u64(..200);
        (paths[random.usize(..paths.len())].to_owned(), random.u8(..5), at)
    });
    let requests = requests.collect();
    (text, requests)
}

#[test]
fn plan_of_the_active_configuration_moves_nothing() {
    for seed in 0..25 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let (text, requests) = random(&mut chance);
        let requests: Vec<_> = requests.iter().map(|(path, client, at)| (path.as_str(), *client, *at)).collect();
        let result = replayed(&text, &format!("# a comment\n{text}"), &requests);
        assert_eq!((result.requests, result.moved, result.moves.len()), (500, 0.0, 0), "{text}\n{result}");
        assert_eq!((result.newly_limited.count, result.no_longer_limited.count), (0, 0), "{text}\n{result}");
    }
}

#[test]
fn shares_of_moves_never_exceed_all_requests() {
    for seed in 0..25 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let ((old, requests), (new, _)) = (random(&mut chance), random(&mut chance));
        let requests: Vec<_> = requests.iter().map(|(path, client, at)| (path.as_str(), *client, *at)).collect();
        let there = replayed(&old, &new, &requests);
        assert!((0.0..=1.000_001).contains(&there.moved), "{there}");
        let back = replayed(&new, &old, &requests);
        assert_eq!(there.newly_limited.count, back.no_longer_limited.count, "{there}{back}");
    }
}
