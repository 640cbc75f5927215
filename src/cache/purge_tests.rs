//! Tests of purges: scopes, times, bounds, journal, and a comparison with a plain model.

use http::HeaderMap;

use super::*;

/// A time in seconds after 2023-11-14.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn subject<'a>(key: &'a str, host: &'a str, path: &'a str, stored_at: SystemTime) -> Subject<'a> {
    Subject { key: key.as_bytes(), uri: key.as_bytes(), host, path, stored_at }
}

fn verdict(purges: &Generations, subject: &Subject<'_>) -> Verdict {
    purges.verdict(subject, ["t1", "t2"].into_iter())
}

/// A response of `a.test/img/a` with the tags `t1` and `t2`, stored at a time that was given out.
fn stored(purges: &Generations, seconds: u64) -> Subject<'static> {
    subject("key", "a.test", "/img/a", purges.stamp(at(seconds)))
}

fn prefix(host: Option<&str>, path: &str) -> Scope {
    Scope::Prefix { host: host.map(str::to_owned), path: path.to_owned() }
}

#[test]
fn purge_concerns_the_responses_of_its_scope() {
    // Scope, whether it concerns the response.
    let cases = [
        (Scope::All, true),
        (Scope::Key(b"key".to_vec()), true),
        (Scope::Key(b"ke".to_vec()), false),
        (Scope::Key(b"key2".to_vec()), false),
        (Scope::Key(b"".to_vec()), false),
        (Scope::Key(b"t1".to_vec()), false),
        (Scope::Tag("t1".to_owned()), true),
        (Scope::Tag("t2".to_owned()), true),
        (Scope::Tag("t3".to_owned()), false),
        (Scope::Tag("T1".to_owned()), false),
        (Scope::Tag("t".to_owned()), false),
        (Scope::Tag("key".to_owned()), false),
        (prefix(None, ""), true),
        (prefix(None, "/"), true),
        (prefix(None, "/img/"), true),
        (prefix(None, "/im"), true),
        (prefix(None, "/img/a"), true),
        (prefix(None, "/img/ab"), false),
        (prefix(None, "/img/b"), false),
        (prefix(None, "/IMG/"), false),
        (prefix(None, "img/"), false),
        (prefix(Some("a.test"), "/img/"), true),
        (prefix(Some("a.test"), ""), true),
        (prefix(Some("a.test"), "/css/"), false),
        (prefix(Some("b.test"), "/img/"), false),
        (prefix(Some(""), "/img/"), false),
    ];
    for (scope, concerns) in cases {
        for (kind, effect) in [(Kind::Hard, Verdict::Gone), (Kind::Soft, Verdict::Soft)] {
            let purges = Generations::default();
            let response = stored(&purges, 0);
            purges.purge(scope.clone(), kind, at(10));
            let expected = if concerns { effect } else { Verdict::Valid };
            assert_eq!(verdict(&purges, &response), expected, "{scope:?} {kind:?}");
            let at_once = Subject { stored_at: at(10), ..response };
            assert_eq!(verdict(&purges, &at_once), expected, "{scope:?} {kind:?}, stored at the same time");
            let later = stored(&purges, 10);
            assert_eq!(verdict(&purges, &later), Verdict::Valid, "{scope:?} {kind:?}, stored later");
        }
    }
}

#[test]
fn response_is_valid_without_purges() {
    let purges = Generations::default();
    assert!(purges.is_empty());
    assert_eq!(verdict(&purges, &stored(&purges, 0)), Verdict::Valid);
    assert_eq!(verdict(&purges, &subject("key", "a.test", "/", at(1000))), Verdict::Valid);
    assert_eq!((purges.len(), purges.to_lines().len()), (0, 0));
}

#[test]
fn purge_of_a_uri_concerns_all_keys_of_it() {
    let purges = Generations::default();
    let stored_at = purges.stamp(at(0));
    purges.purge_key(b"uri", Kind::Hard, at(1));
    let variant = Subject { key: b"uri and headers", uri: b"uri", host: "", path: "", stored_at };
    assert_eq!(verdict(&purges, &variant), Verdict::Gone);
    let other = Subject { key: b"uri2 and headers", uri: b"uri2", ..variant };
    assert_eq!(verdict(&purges, &other), Verdict::Valid);
    purges.purge_key(b"uri2 and headers", Kind::Soft, at(2));
    assert_eq!(verdict(&purges, &other), Verdict::Soft);
}

#[test]
fn long_keys_are_recorded_by_their_hash() {
    let purges = Generations::default();
    let (first, second) = ("x".repeat(10_000), format!("{}y", "x".repeat(9_999)));
    let stored_at = purges.stamp(at(0));
    let record = purges.purge_key(first.as_bytes(), Kind::Hard, at(1));
    assert!(record.to_line().len() < 120);
    assert_eq!(verdict(&purges, &subject(&first, "", "", stored_at)), Verdict::Gone);
    assert_eq!(verdict(&purges, &subject(&second, "", "", stored_at)), Verdict::Valid);
    let restarted = Generations::default();
    restarted.load(record.to_line().as_bytes(), at(2));
    assert_eq!(verdict(&restarted, &subject(&first, "", "", stored_at)), Verdict::Gone);
}

#[test]
fn hard_purge_outweighs_a_soft_one_in_any_order() {
    for order in [[Kind::Hard, Kind::Soft], [Kind::Soft, Kind::Hard]] {
        let purges = Generations::default();
        let response = stored(&purges, 0);
        for kind in order {
            purges.purge_tag("t1", kind, at(1));
        }
        assert_eq!(verdict(&purges, &response), Verdict::Gone, "{order:?}");
    }
    let purges = Generations::default();
    purges.purge_tag("t1", Kind::Hard, at(1));
    let response = stored(&purges, 2);
    purges.purge_all(Kind::Soft, at(3));
    assert_eq!(verdict(&purges, &response), Verdict::Soft, "the hard purge was before");
}

#[test]
fn host_of_a_prefix_is_compared_in_lower_case() {
    let purges = Generations::default();
    let response = stored(&purges, 0);
    purges.purge_prefix(Some("A.Test"), "/img/", Kind::Hard, at(1));
    assert_eq!(verdict(&purges, &response), Verdict::Gone);
}

#[test]
fn clock_that_goes_back_neither_revives_old_responses_nor_purges_new_ones() {
    let purges = Generations::default();
    let old = stored(&purges, 1000);
    purges.purge_all(Kind::Hard, at(0));
    assert_eq!(verdict(&purges, &old), Verdict::Gone);
    let new = stored(&purges, 0);
    assert!(new.stored_at > old.stored_at);
    assert_eq!(verdict(&purges, &new), Verdict::Valid);
}

#[test]
fn response_of_an_unknown_future_counts_as_older_than_every_purge() {
    let purges = Generations::default();
    let foreign = subject("key", "a.test", "/img/a", at(1000));
    purges.purge_tag("t3", Kind::Hard, at(10));
    assert_eq!(verdict(&purges, &foreign), Verdict::Valid, "not concerned");
    purges.purge_tag("t1", Kind::Hard, at(11));
    assert_eq!(verdict(&purges, &foreign), Verdict::Gone);
    purges.stamp(at(1001));
    assert_eq!(verdict(&purges, &foreign), Verdict::Valid, "its time is known to be after the purge");
}

#[test]
fn stamps_increase_also_across_threads() {
    let purges = Generations::default();
    let mut all: Vec<SystemTime> = std::thread::scope(|scope| {
        let take = || (0..1000).map(|_| purges.stamp(at(5))).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4000);
    assert_eq!(all.first(), Some(&at(5)));
    assert_eq!(purges.stamp(at(6)), at(6));
    assert_eq!(purges.stamp(at(0)), at(6) + Duration::from_nanos(1));
}

#[test]
fn times_outside_of_the_range_of_the_clock_are_tolerated() {
    let purges = Generations::default();
    let before_1970 = UNIX_EPOCH - Duration::from_secs(1);
    let first = purges.stamp(before_1970);
    assert!(first > UNIX_EPOCH);
    purges.purge_all(Kind::Hard, before_1970);
    assert_eq!(verdict(&purges, &subject("key", "", "", before_1970)), Verdict::Gone);
    let far = UNIX_EPOCH + Duration::from_secs(40_000_000_000);
    assert!(purges.stamp(far) > first);
    assert!(purges.stamp(far) > first);
}

#[test]
fn oldest_names_become_a_purge_of_everything_before_them() {
    let purges = Generations::new(Limits { names: 16, prefixes: 16 });
    let first = purges.stamp(at(0));
    for index in 0..16 {
        purges.purge_tag(&format!("n{index}"), Kind::Hard, at(10 + index));
    }
    assert_eq!(purges.len(), 16);
    let untagged = |stored_at| purges.verdict(&subject("key", "", "", stored_at), std::iter::empty());
    assert_eq!(untagged(first), Verdict::Valid);
    purges.purge_tag("one more", Kind::Hard, at(100));
    assert!(purges.len() <= 16);
    assert_eq!(untagged(first), Verdict::Gone, "older than a dropped purge");
    assert_eq!(untagged(at(20)), Verdict::Valid, "newer than the dropped ones");
    for index in 0..16 {
        let tag = format!("n{index}");
        let found = purges.verdict(&subject("key", "", "", first), [tag.as_str()].into_iter());
        assert_eq!(found, Verdict::Gone, "{tag}");
    }
}

#[test]
fn dropped_soft_purges_become_a_soft_one() {
    let purges = Generations::new(Limits { names: 8, prefixes: 8 });
    let first = purges.stamp(at(0));
    for index in 0..9 {
        purges.purge_key(format!("k{index}").as_bytes(), Kind::Soft, at(10 + index));
    }
    assert_eq!(verdict(&purges, &subject("key", "", "", first)), Verdict::Soft);
    let purges = Generations::new(Limits { names: 8, prefixes: 8 });
    let first = purges.stamp(at(0));
    for index in 0..9 {
        purges.purge_prefix(Some("b.test"), &format!("/{index}"), Kind::Soft, at(10 + index));
    }
    assert!(purges.len() <= 8);
    assert_eq!(verdict(&purges, &subject("key", "a.test", "/", first)), Verdict::Soft);
}

#[test]
fn purge_of_everything_forgets_what_it_covers() {
    let purges = Generations::default();
    purges.purge_tag("a", Kind::Hard, at(1));
    purges.purge_key(b"k", Kind::Soft, at(2));
    purges.purge_prefix(Some("a.test"), "/", Kind::Hard, at(3));
    purges.purge_all(Kind::Soft, at(4));
    assert_eq!(purges.len(), 2, "hard purges stay");
    purges.purge_tag("b", Kind::Soft, at(5));
    purges.purge_all(Kind::Hard, at(6));
    assert_eq!(purges.len(), 0);
    assert_eq!(purges.to_lines().len(), 2);
}

#[test]
fn tags_longer_than_the_limit_are_not_recorded() {
    let purges = Generations::default();
    purges.purge_tag(&"t".repeat(MAX_TAG_LENGTH), Kind::Hard, at(1));
    assert_eq!(purges.len(), 1);
    purges.purge_tag(&"t".repeat(MAX_TAG_LENGTH + 1), Kind::Hard, at(1));
    assert_eq!(purges.len(), 1);
}

#[test]
fn journal_restores_all_purges() {
    let purges = Generations::default();
    let response = stored(&purges, 0);
    let mut journal = String::new();
    for (scope, kind) in [
        (Scope::Tag("t1".to_owned()), Kind::Soft),
        (Scope::Key(b"k\n\xff".to_vec()), Kind::Hard),
        (prefix(Some("a.test"), "/x y"), Kind::Hard),
        (prefix(None, ""), Kind::Soft),
        (Scope::All, Kind::Soft),
    ] {
        journal.push_str(&purges.purge(scope, kind, at(10)).to_line());
    }
    let restarted = Generations::default();
    let loaded = restarted.load(journal.as_bytes(), at(20));
    assert_eq!(loaded, Loaded { purges: 5, damaged: 0, torn: false });
    assert_eq!(restarted.to_lines(), purges.to_lines());
    assert_eq!(verdict(&restarted, &response), Verdict::Soft);
    assert!(restarted.stamp(at(0)) > at(10), "the clock does not go back behind a recorded purge");
    let compacted = Generations::default();
    compacted.load(restarted.to_lines().concat().as_bytes(), at(20));
    assert_eq!(compacted.to_lines(), purges.to_lines());
}

#[test]
fn torn_last_line_is_ignored_and_damage_before_it_purges_everything() {
    let purges = Generations::default();
    let response = stored(&purges, 0);
    let first = purges.purge_tag("t9", Kind::Hard, at(10)).to_line();
    let second = purges.purge_tag("t1", Kind::Hard, at(11)).to_line();
    let cut = &second[..second.len() - 5];
    // Journal, what is found, verdict.
    let cases = [
        (String::new(), Loaded::default(), Verdict::Valid),
        (first.clone(), Loaded { purges: 1, ..Loaded::default() }, Verdict::Valid),
        (format!("{first}{second}"), Loaded { purges: 2, ..Loaded::default() }, Verdict::Gone),
        (format!("{first}{cut}"), Loaded { purges: 1, torn: true, damaged: 0 }, Verdict::Valid),
        (format!("{first}\0\0\0"), Loaded { purges: 1, torn: true, damaged: 0 }, Verdict::Valid),
        (format!("{first}{}", second.trim_end()), Loaded { purges: 2, ..Loaded::default() }, Verdict::Gone),
        (format!("{cut}{first}"), Loaded { purges: 0, torn: false, damaged: 1 }, Verdict::Gone),
        (format!("x\n{first}"), Loaded { purges: 1, torn: false, damaged: 1 }, Verdict::Gone),
    ];
    for (journal, expected, effect) in cases {
        let restarted = Generations::default();
        assert_eq!(restarted.load(journal.as_bytes(), at(20)), expected, "{journal}");
        assert_eq!(verdict(&restarted, &response), effect, "{journal}");
    }
    let restarted = Generations::default();
    assert_eq!(restarted.load(b"\xff\xff\n", at(20)).damaged, 1);
}

#[test]
fn tags_come_from_cache_tag_and_surrogate_key() {
    // Lines, tags.
    type Lines<'a> = &'a [(&'static str, &'a str)];
    let cases: &[(Lines<'_>, &[&str])] = &[
        (&[], &[]),
        (&[("cache-tag", "a,b , c d")], &["a", "b", "c d"]),
        (&[("cache-tag", ",a,, ,")], &["a"]),
        (&[("cache-tag", "a"), ("cache-tag", "b")], &["a", "b"]),
        (&[("surrogate-key", " a  b\tc,d ")], &["a", "b", "c,d"]),
        (&[("surrogate-key", "b"), ("cache-tag", "a")], &["a", "b"]),
        (&[("cache-tag", "A,a")], &["A", "a"]),
        (&[("cache-tag", "é")], &["é"]),
    ];
    for (lines, expected) in cases {
        let mut headers = HeaderMap::new();
        for (name, value) in *lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        assert_eq!(tags(&headers).collect::<Vec<_>>(), *expected, "{lines:?}");
    }
}

#[test]
fn number_and_length_of_tags_are_bounded() {
    let mut headers = HeaderMap::new();
    let long = format!("{},{},b", "x".repeat(MAX_TAG_LENGTH), "x".repeat(MAX_TAG_LENGTH + 1));
    headers.insert("cache-tag", HeaderValue::try_from(&long).unwrap());
    assert_eq!(tags(&headers).map(str::len).collect::<Vec<_>>(), [MAX_TAG_LENGTH, 1]);
    let many: Vec<String> = (0..100).map(|index| format!("t{index}")).collect();
    headers.insert("cache-tag", HeaderValue::try_from(many.join(",")).unwrap());
    assert_eq!(tags(&headers).collect::<Vec<_>>(), many[..MAX_TAGS]);
}

/// What the purges mean for a response, from the list of all purges.
fn model(purges: &[Purge], subject: &Subject<'_>, tags: &[&str]) -> Verdict {
    let concerns = |purge: &&Purge| {
        let in_scope = match &purge.scope {
            Scope::All => true,
            Scope::Key(key) => key == subject.key || key == subject.uri,
            Scope::Tag(tag) => tags.contains(&tag.as_str()),
            Scope::Prefix { host, path } => {
                host.as_ref().is_none_or(|host| host == subject.host) && subject.path.starts_with(path)
            }
        };
        in_scope && subject.stored_at <= purge.at
    };
    let effect = |purge: &Purge| if purge.kind == Kind::Hard { Verdict::Gone } else { Verdict::Soft };
    purges.iter().filter(concerns).map(effect).max().unwrap_or(Verdict::Valid)
}

#[test]
fn random_purges_have_the_effect_of_the_model_and_never_less_within_small_bounds() {
    let mut state = 5_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..60 {
        let (exact, bounded) = (Generations::default(), Generations::new(Limits { names: 5, prefixes: 3 }));
        let mut log = Vec::new();
        let mut responses: Vec<(String, SystemTime)> = Vec::new();
        for _ in 0..150 {
            let word = format!("/{}", "ab".get(..usize::try_from(random(3)).unwrap()).unwrap());
            let now = at(random(50));
            if random(2) == 0 {
                let stamp = exact.stamp(now);
                bounded.stamp(stamp);
                responses.push((word, stamp));
                continue;
            }
            let kind = if random(2) == 0 { Kind::Hard } else { Kind::Soft };
            let scope = match random(30) {
                0 => Scope::All,
                1..10 => Scope::Key(format!("{word}{}", random(6)).into_bytes()),
                10..20 => Scope::Tag(format!("t{}", random(8))),
                20..25 => prefix(None, &word),
                _ => prefix(Some(if random(2) == 0 { "a.test" } else { "b.test" }), &word),
            };
            let purge = exact.purge(scope, kind, now);
            bounded.purge(purge.scope.clone(), purge.kind, purge.at);
            log.push(purge);
        }
        assert!(bounded.len() <= 5 + 5 + 3, "round {round}");
        let restarted = Generations::default();
        restarted.load(exact.to_lines().concat().as_bytes(), at(0));
        restarted.stamp(exact.stamp(at(0)));
        for (path, stored_at) in &responses {
            let key = format!("{path}{}", random(6));
            let subject =
                Subject { key: key.as_bytes(), uri: path.as_bytes(), ..subject("", "a.test", path, *stored_at) };
            let tag = format!("t{}", random(8));
            let tags = [tag.as_str()];
            let expected = model(&log, &subject, &tags);
            assert_eq!(exact.verdict(&subject, tags.into_iter()), expected, "round {round}: {subject:?}");
            assert_eq!(restarted.verdict(&subject, tags.into_iter()), expected, "round {round}: {subject:?}");
            assert!(bounded.verdict(&subject, tags.into_iter()) >= expected, "round {round}: {subject:?}");
        }
    }
}
