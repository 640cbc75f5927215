//! Random requests, and the random responses of an origin that keeps its own rules: it personalises a response only if
//! it also states that the response is not for everyone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Error, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;

use super::super::wire::Message;
use super::Records;
use super::model::{Record, Request, State};
use super::operator::tag;

/// The header with the id of the request, which l7lb forwards.
pub const SEQUENCE: &str = "X-Sequence";

/// A request. `tags` are ETags that the client has seen.
pub fn request(rng: &mut Rng, target: &str, id: String, tags: &[String]) -> Request {
    let method = *choice(rng, &["GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST"]);
    let mut fields = vec![(SEQUENCE, id.clone())];
    let mut add = |chance: usize, name: &'static str, values: &[&str]| {
        if rng.usize(..100) < chance {
            fields.push((name, (*choice(rng, values)).to_owned()));
        }
    };
    add(15, "Authorization", &["user-a", "user-b"]);
    add(20, "Cookie", &["user-c", "user-d"]);
    add(50, "X-Variant", &["1", "2"]);
    add(30, "Accept-Language", &["de", "en"]);
    let directives = ["no-cache", "no-store", "max-age=0", "max-age=30", "max-stale", "min-fresh=40", "only-if-cached"];
    add(15, "Cache-Control", &directives);
    add(8, "Range", &["bytes=0-9", "bytes=-5"]);
    if !tags.is_empty() && rng.usize(..100) < 15 {
        let recent = tags.len().saturating_sub(20);
        fields.push(("If-None-Match", choice(rng, &tags[recent..]).clone()));
    }
    if method == "POST" {
        fields.push(("Content-Length", "0".to_owned()));
    }
    Request { id, method, target: target.to_owned(), fields }
}

fn choice<'a, T>(rng: &mut Rng, values: &'a [T]) -> &'a T {
    &values[rng.usize(..values.len())]
}

/// The response to a request, and its record.
pub fn respond(records: &Records, rng: &Mutex<Rng>, request: &Message, stream: &mut TcpStream) -> std::io::Result<()> {
    let mut rng = rng.lock().unwrap().fork();
    std::thread::sleep(Duration::from_millis(rng.u64(..4)));
    if rng.usize(..100) < 50 && validates(records, &mut rng, request, stream)? {
        return Ok(());
    }
    let id = format!("{}-{:016x}", request.field(SEQUENCE).unwrap_or_default(), rng.u64(..));
    let status = if request.method() == "POST" { *choice(&mut rng, &[200, 201, 400]) } else { status(&mut rng) };
    let identity = ["authorization", "cookie"].into_iter().find_map(|name| request.field(name));
    let personal = identity.is_some() && rng.usize(..100) < 70;
    let mut fields = fields(&mut rng, personal, request.field("authorization").is_some());
    if rng.bool() {
        fields.push(("ETag".to_owned(), format!("\"{id}\"")));
    }
    fields.push(("Cache-Tag".to_owned(), tags(request.target())));
    let truncated = rng.usize(..100) < 3;
    let identity = identity.filter(|_| personal).unwrap_or_else(|| "-".to_owned());
    let body = body(&id, request.target(), &identity, rng.usize(..3000));
    let record = Record {
        id: id.clone(),
        target: request.target().to_owned(),
        request: request.fields.clone(),
        status,
        truncated,
        length: body.len(),
        states: vec![State { fields: fields.clone(), sent: Instant::now() }],
    };
    records.lock().unwrap().insert(id, record);
    let length = body.len() + if truncated { 3 } else { 0 };
    let head = head(status, &fields, &format!("Content-Length: {length}\r\n"));
    stream.write_all(head.as_bytes())?;
    if request.method() != "HEAD" {
        stream.write_all(body.as_bytes())?;
        if truncated {
            return Err(Error::other("truncated"));
        }
    }
    Ok(())
}

/// Responds with 304 to If-None-Match, if it names a response of this target; its record gets the new fields.
fn validates(records: &Records, rng: &mut Rng, request: &Message, stream: &mut TcpStream) -> std::io::Result<bool> {
    let tag = request.field("if-none-match").unwrap_or_default();
    let mut records = records.lock().unwrap();
    let Some(record) = records.get_mut(tag.trim_matches('"')) else { return Ok(false) };
    if record.target != request.target() || request.method() == "POST" {
        return Ok(false);
    }
    let personal = !record.is_for_everyone();
    let mut fields = self::fields(rng, personal, request.field("authorization").is_some());
    // A new Vary would describe another selection than the stored one.
    fields.retain(|(name, _)| !["Vary", "Set-Cookie"].contains(&name.as_str()));
    fields.push(("ETag".to_owned(), tag));
    record.update(&fields);
    stream.write_all(head(304, &fields, "").as_bytes())?;
    Ok(true)
}

/// The tags of the responses to `/route/worker/number`.
fn tags(target: &str) -> String {
    let parts: Vec<&str> = target.split('/').collect();
    format!("all, {}", tag(parts[1], parts[2].parse().unwrap()))
}

fn status(rng: &mut Rng) -> u16 {
    *choice(rng, &[200, 200, 200, 200, 200, 200, 200, 200, 203, 301, 302, 404, 410, 500, 503, 299])
}

/// Fields of a response; those of a personal one keep it from others.
fn fields(rng: &mut Rng, personal: bool, is_authorized: bool) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut add = |name: &str, value: &str| fields.push((name.to_owned(), value.to_owned()));
    if personal {
        match rng.usize(..5) {
            0 => add("Cache-Control", "private, max-age=60"),
            1 => add("Cache-Control", "no-store"),
            // Authorization alone keeps it from others (RFC 9111 §3.5).
            2 if is_authorized => add("Cache-Control", "max-age=60"),
            3 => {
                add("Cache-Control", "max-age=60");
                add("Set-Cookie", "session=1");
            }
            _ => {
                add("Cache-Control", "public, max-age=60");
                add("Vary", "Authorization, Cookie");
            }
        }
        return fields;
    }
    let lifetimes = [
        "max-age=60",
        "max-age=60",
        "MAX-AGE=\"60\", public",
        "s-maxage=60, max-age=0",
        "max-age=1",
        "max-age=1, must-revalidate",
        "max-age=1, stale-while-revalidate=2",
        "max-age=1, stale-if-error=60",
        "public, max-age=60, must-revalidate",
        "max-age=0",
        "no-cache",
        "no-store, max-age=60",
        "private, max-age=60",
        "no-cache=\"X-Field\", max-age=60",
        "max-age=60, s-maxage=0",
    ];
    if rng.usize(..10) > 0 {
        add("Cache-Control", lifetimes[rng.usize(..lifetimes.len())]);
    }
    if rng.usize(..4) == 0 {
        add("Vary", choice::<&str>(rng, &["X-Variant", "x-variant, Accept-Language", "Accept-Language", "*"]));
    }
    if rng.usize(..6) == 0 {
        add("Age", choice::<&str>(rng, &["10", "59", "61", "1000", "x"]));
    }
    if rng.usize(..12) == 0 {
        add("Set-Cookie", "session=2");
    }
    if rng.usize(..8) == 0 {
        add("X-Field", "1");
    }
    fields
}

fn head(status: u16, fields: &[(String, String)], last: &str) -> String {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Status\r\nDate: {date}\r\n{lines}{last}\r\n")
}

/// `id|target|identity|payload|hash`: a mix of two bodies has a wrong hash.
fn body(id: &str, target: &str, identity: &str, size: usize) -> String {
    let text = format!("{id}|{target}|{identity}|{}", "payload.".repeat(size / 8));
    let hash = hash(&text);
    format!("{text}|{hash:016x}")
}

pub fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
