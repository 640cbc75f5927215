//! Crafted frames: each limit at its edge, every split, and passing time.

use std::time::{Duration, Instant};

use super::budget::Budget;
use super::meter::END_STREAM;
use super::meter::frame_type::{
    CONTINUATION, DATA, HEADERS, PING, PRIORITY, PRIORITY_UPDATE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::*;

const PREFACE_BYTES: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_HEADERS: u8 = 0x4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn opened(now: Instant) -> FrameMeter {
    let mut meter = FrameMeter::new(Limits::default(), now);
    meter.observe(PREFACE_BYTES, now).unwrap();
    meter
}

/// How many of `bytes` pass on a new connection, and which limit stops them.
fn passing(bytes: &[u8], most: u32) -> (u32, Option<Flood>) {
    let now = Instant::now();
    let mut meter = opened(now);
    for count in 0..most {
        if let Err(flood) = meter.observe(bytes, now) {
            return (count, Some(flood));
        }
    }
    (most, None)
}

#[test]
fn each_flood_is_stopped_exactly_at_its_limit() {
    let limits = Limits::default();
    let cases = [
        (frame(RST_STREAM, 0, 1, &[0; 4]), limits.resets, Flood::Resets),
        (frame(PING, 0, 0, &[0; 8]), limits.pings, Flood::Pings),
        (frame(PING, 1, 0, &[0; 8]), limits.pings, Flood::Pings),
        (frame(SETTINGS, 0, 0, &[]), limits.settings, Flood::Settings),
        (frame(SETTINGS, 1, 0, &[]), limits.settings, Flood::Settings),
        (frame(PRIORITY, 0, 3, &[0; 5]), limits.priorities, Flood::Priorities),
        (frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03u=1"), limits.priorities, Flood::Priorities),
        (frame(DATA, 0, 1, &[]), limits.empty_data, Flood::EmptyData),
        (window_update(1, 1), limits.small_window_updates, Flood::SmallWindowUpdates),
        (window_update(0, 1023), limits.small_window_updates, Flood::SmallWindowUpdates),
        (frame(WINDOW_UPDATE, 0, 0, &[]), limits.small_window_updates, Flood::SmallWindowUpdates),
        (frame(0x7, 0, 0, &[0; 8]), limits.others, Flood::Others),
        (frame(0xfa, 0, 0, b"grease"), limits.others, Flood::Others),
    ];
    for (bytes, limit, flood) in cases {
        assert_eq!(passing(&bytes, limit + 1), (limit, Some(flood)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn frames_of_requests_are_never_limited() {
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x84");
    let cases = [
        request.clone(),
        [request, frame(DATA, 0, 1, &[7; 16_384]), frame(DATA, END_STREAM, 1, &[])].concat(),
        window_update(0, 1024),
        window_update(7, 0x7fff_ffff),
    ];
    for bytes in cases {
        assert_eq!(passing(&bytes, 10_000), (10_000, None));
    }
}

#[test]
fn rapid_reset_is_stopped_and_cancelling_a_tenth_of_requests_is_not() {
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82");
    let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
    let (count, flood) = passing(&[request.as_slice(), &reset].concat(), 1000);
    assert_eq!(flood, Some(Flood::Resets));
    assert!((200..=223).contains(&count), "{count}");
    let calls = [request.repeat(10), reset].concat();
    assert_eq!(passing(&calls, 10_000), (10_000, None));
}

#[test]
fn ping_after_a_connection_window_update_is_free() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    assert_eq!(passing(&[window_update(0, 4096), ping.clone()].concat(), 10_000), (10_000, None));
    let stream = [window_update(1, 4096), ping.clone()].concat();
    assert_eq!(passing(&stream, 601), (600, Some(Flood::Pings)), "a window update of a stream does not count");
    let two = [window_update(0, 4096), ping.clone(), ping].concat();
    assert_eq!(passing(&two, 601), (600, Some(Flood::Pings)), "one ping per window update");
    let dribbled = [window_update(0, 1), frame(PING, 0, 0, &[0; 8])].concat();
    assert_eq!(passing(&dribbled, 100_001), (100_000, Some(Flood::SmallWindowUpdates)));
}

#[test]
fn header_block_is_limited_in_frames_and_bytes() {
    let open = |bytes: usize| frame(HEADERS, 0, 1, &vec![0; bytes]);
    let more = |bytes: usize| frame(CONTINUATION, 0, 1, &vec![0; bytes]);
    let now = Instant::now();
    let run = |parts: &[Vec<u8>]| opened(now).observe(&parts.concat(), now);
    assert_eq!(run(&[open(1), more(0).repeat(8)]), Ok(()));
    assert_eq!(run(&[open(1), more(0).repeat(9)]), Err(Flood::Continuations));
    assert_eq!(run(&[open(16_384), more(16_384).repeat(3)]), Ok(()));
    assert_eq!(run(&[open(16_384), more(16_384).repeat(3), more(1)]), Err(Flood::HeaderBlock));
    assert_eq!(
        run(&[open(1), more(0).repeat(8), open(1), more(0).repeat(8)]),
        Ok(()),
        "the next block counts from zero"
    );
}

#[test]
fn oversized_frame_is_rejected_at_its_header() {
    let now = Instant::now();
    for kind in [DATA, HEADERS, PING, CONTINUATION, 0xfa] {
        let header = [0, 0x40, 0x01, kind, 0, 0, 0, 0, 1];
        assert_eq!(opened(now).observe(&header, now), Err(Flood::FrameSize));
    }
    let most = [0, 0x40, 0x00, DATA, 0, 0, 0, 0, 1];
    assert_eq!(opened(now).observe(&most, now), Ok(()));
    let window_update = [0, 0x40, 0x01, WINDOW_UPDATE, 0, 0, 0, 0, 1];
    assert_eq!(opened(now).observe(&window_update, now), Err(Flood::FrameSize));
}

/// A trace that exceeds a limit in its second last frame, split at every position.
#[test]
fn every_split_gives_the_same_result() {
    let now = Instant::now();
    let limits = Limits { settings: 2, pings: 1, ..Limits::default() };
    let trace = [
        PREFACE_BYTES.to_vec(),
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        window_update(0, 65_536),
        frame(HEADERS, 0, 1, b"\x82"),
        frame(CONTINUATION, END_HEADERS, 1, b"\x86\x84"),
        frame(DATA, END_STREAM, 1, b"body"),
        frame(PING, 0, 0, b"12345678"),
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 1, 0, &[]),
    ]
    .concat();
    let last = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let flooded = trace.len() + 9;
    let whole = [trace, last].concat();
    for first in 0..=whole.len() {
        for second in first..=whole.len() {
            let mut meter = FrameMeter::new(limits, now);
            let mut seen = Ok(());
            for part in [&whole[..first], &whole[first..second], &whole[second..]] {
                seen = seen.and_then(|()| meter.observe(part, now));
            }
            assert_eq!(seen, Err(Flood::Settings), "split at {first} and {second}");
        }
    }
    let mut meter = FrameMeter::new(limits, now);
    let dribbled: Vec<_> = whole.iter().map(|byte| meter.observe(&[*byte], now)).collect();
    assert_eq!(
        dribbled.iter().position(Result::is_err),
        Some(flooded - 1),
        "detected with the last byte of the header"
    );
}

#[test]
fn budgets_refill_over_time_up_to_their_capacity() {
    let start = Instant::now();
    let mut budget = Budget::new(600, start);
    let mut spend = |now: Instant| (0..10_000).take_while(|_| budget.take(now)).count();
    assert_eq!(spend(start), 600);
    assert_eq!(spend(start), 0);
    assert_eq!(spend(start + Duration::from_millis(99)), 0, "one frame takes a tenth of a second");
    assert_eq!(spend(start + Duration::from_millis(100)), 1, "fractions add up");
    assert_eq!(spend(start + Duration::from_millis(1100)), 10);
    assert_eq!(spend(start + Duration::from_secs(3600)), 600);
    assert_eq!(spend(start), 0, "a clock that goes back refills nothing");
}

#[test]
fn connection_within_its_budgets_is_never_closed() {
    let start = Instant::now();
    let ping = frame(PING, 0, 0, &[0; 8]);
    let mut meter = opened(start);
    for second in 0..600 {
        let now = start + Duration::from_secs(second);
        meter.observe(&ping.repeat(10), now).unwrap();
    }
}

#[test]
fn no_limit_overflows() {
    let now = Instant::now();
    let most = u32::MAX;
    let limits = Limits { resets: most, pings: most, settings: 0, ..Limits::default() };
    let mut meter = FrameMeter::new(limits, now);
    meter.observe(PREFACE_BYTES, now).unwrap();
    let later = now + Duration::from_secs(86_400);
    meter.observe(&frame(PING, 0, 0, &[0; 8]), later).unwrap();
    meter.observe(&frame(HEADERS, 4, 1, &[]), later).unwrap();
    meter.observe(&frame(RST_STREAM, 0, 1, &[0; 4]), later).unwrap();
    assert_eq!(meter.observe(&frame(SETTINGS, 0, 0, &[]), later), Err(Flood::Settings), "a limit of zero allows none");
}

#[test]
fn random_bytes_never_panic() {
    let mut random = fastrand::Rng::with_seed(0x9113);
    let now = Instant::now();
    for _ in 0..2000 {
        let mut meter = opened(now);
        for _ in 0..20 {
            let length = random.usize(..40);
            let bytes: Vec<u8> = (0..length).map(|_| random.u8(..) & random.u8(..)).collect();
            if meter.observe(&bytes, now).is_err() {
                break;
            }
        }
    }
}
