//! Tests of the lines of a journal.

use super::*;

fn purge(scope: Scope, kind: Kind) -> Purge {
    Purge { scope, kind, at: UNIX_EPOCH + Duration::new(1_700_000_000, 1) }
}

fn prefix(host: Option<&str>, path: &str) -> Scope {
    Scope::Prefix { host: host.map(str::to_owned), path: path.to_owned() }
}

#[test]
fn line_is_readable_and_reads_back() {
    // Scope, kind, line after the checksum.
    let cases = [
        (Scope::All, Kind::Hard, "1700000000.000000001 hard all"),
        (Scope::All, Kind::Soft, "1700000000.000000001 soft all"),
        (Scope::Tag("product-42".to_owned()), Kind::Hard, "1700000000.000000001 hard tag product-42"),
        (Scope::Tag("a b%\n\u{e4}".to_owned()), Kind::Hard, "1700000000.000000001 hard tag a%20b%25%0A%C3%A4"),
        (Scope::Tag(String::new()), Kind::Soft, "1700000000.000000001 soft tag "),
        (Scope::Key(b"h6:a.testp1:/\xff".to_vec()), Kind::Hard, "1700000000.000000001 hard key h6:a.testp1:/%FF"),
        (prefix(None, "/img/"), Kind::Hard, "1700000000.000000001 hard prefix /img/"),
        (prefix(None, ""), Kind::Hard, "1700000000.000000001 hard prefix "),
        (prefix(Some("a.test"), "/img/"), Kind::Soft, "1700000000.000000001 soft host-prefix a.test /img/"),
        (prefix(Some(""), ""), Kind::Soft, "1700000000.000000001 soft host-prefix  "),
    ];
    for (scope, kind, text) in cases {
        let purge = purge(scope, kind);
        let line = purge.to_line();
        assert_eq!(line.get(9..), Some(format!("{text}\n").as_str()));
        assert_eq!(Purge::parse_line(&line), Ok(purge.clone()));
        assert_eq!(Purge::parse_line(line.trim_end_matches('\n')), Ok(purge));
    }
    let line = purge(Scope::Tag("a".to_owned()), Kind::Hard).to_line();
    assert_eq!(
        line,
        format!("{:08x} 1700000000.000000001 hard tag a\n", crc32fast::hash(&line.as_bytes()[9..line.len() - 1]))
    );
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    let line = purge(prefix(Some("a.test"), "/img/"), Kind::Hard).to_line();
    let text = line.trim_end_matches('\n');
    for end in 0..text.len() {
        assert_eq!(Purge::parse_line(&text[..end]), Err(DamagedLine), "{end}");
    }
    for index in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[index] ^= 1;
        assert_eq!(Purge::parse_line(std::str::from_utf8(&bytes).unwrap()), Err(DamagedLine), "{index}");
    }
}

#[test]
fn lines_with_a_valid_checksum_but_another_form_are_damaged() {
    for text in [
        "",
        "1 hard all",
        "1.0 all",
        "1.0 hard",
        "1.0 hard everything",
        "1.0 firm all",
        "x.0 hard all",
        "1.x hard all",
        "1.0 hard all x",
        "1.0 hard tag",
        "1.0 hard tag a b",
        "1.0 hard tag %f",
        "1.0 hard tag %zz",
        "1.0 hard tag %FF",
        "1.0 hard host-prefix a",
        "99999999999999999999.0 hard all",
        "18446744073709551615.0 hard all",
    ] {
        let line = format!("{:08x} {text}", crc32fast::hash(text.as_bytes()));
        assert_eq!(Purge::parse_line(&line), Err(DamagedLine), "{text}");
    }
}
