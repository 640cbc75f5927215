//! Chunked bodies, valid and invalid, each read at once and byte by byte.

use super::{Chunk, Chunked, DetailedRejection};

fn follow(bytes: &[u8]) -> Result<Chunk, DetailedRejection> {
    let at_once = Chunked::default().advance(bytes);
    let mut chunked = Chunked::default();
    let mut dribbled = Ok(Chunk { consumed: 0, data: 0, done: false });
    for byte in bytes {
        let next = chunked.advance(&[*byte]);
        dribbled = dribbled.and_then(|sum| {
            let next = next?;
            Ok(Chunk { consumed: sum.consumed + next.consumed, data: sum.data + next.data, done: next.done })
        });
    }
    assert_eq!(at_once, dribbled, "{}", bytes.escape_ascii());
    at_once
}

fn detail(bytes: &str) -> &'static str {
    match follow(bytes.as_bytes()) {
        Err(rejection) => rejection.detail,
        Ok(chunk) => panic!("{bytes:?}: {chunk:?}"),
    }
}

#[test]
fn end_of_a_chunked_body_is_found() {
    for (body, data) in [
        ("0\r\n\r\n", 0),
        ("5\r\nhello\r\n0\r\n\r\n", 5),
        ("5\r\n\r\n0\r\n\r\n00000\r\n\r\n", 5),
        ("000000000000000a\r\n0123456789\r\nA\r\n0123456789\r\n0000\r\n\r\n", 20),
        ("1\r\nx\r\n0\r\nTrailer: a b\r\nX:\r\n\r\n", 1),
        ("1;a\r\nx\r\n0;a=b;c=\"d;\u{e9}\"\r\n\r\n", 1),
    ] {
        let followed = format!("{body}GET / HTTP/1.1\r\n");
        let wanted = Chunk { consumed: body.len(), data, done: true };
        assert_eq!(follow(followed.as_bytes()), Ok(wanted), "{body:?}");
        for length in 0..body.len() {
            assert!(!follow(&body.as_bytes()[..length]).unwrap().done, "{length} of {body:?}");
        }
    }
}

#[test]
fn chunk_size_that_is_not_plain_hexadecimal_is_rejected() {
    for size in ["", " 5", "\t5", "+5", "-5", ";a", "\r", "\n", "g", "x5"] {
        assert_eq!(detail(&format!("{size}\r\nhello\r\n0\r\n\r\n")), "a chunk without a size", "{size:?}");
    }
    for size in ["0x5", "5g", "5_", "5,", "5\0", "5\n", "5.0"] {
        let wanted = "a chunk size that is not hexadecimal";
        assert_eq!(detail(&format!("{size}\r\nhello\r\n0\r\n\r\n")), wanted, "{size:?}");
    }
    assert_eq!(detail("00000000000000005\r\n"), "a chunk size of too many digits");
    assert_eq!(detail("10000000000000000\r\n"), "a chunk size of too many digits");
    assert_eq!(detail("5\rx"), "a chunk size without CRLF");
    assert_eq!(follow(b"ffffffffffffffff\r\nabc"), Ok(Chunk { consumed: 21, data: 3, done: false }));
}

#[test]
fn chunk_data_of_another_size_is_rejected() {
    for body in ["5\r\nhello0\r\n\r\n", "5\r\nhell\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r0\r\n"] {
        assert_eq!(detail(body), "chunk data that does not match the chunk size", "{body:?}");
    }
}

#[test]
fn malformed_or_long_chunk_extensions_are_rejected() {
    for extension in
        [";a", " ;a", "\t; a", ";a=b", ";a = b ;c", ";a ;b", ";a=\"\"", ";a=\"b\\\"\\\\;\té\" ; c=d", ";a;b;c=1"]
    {
        let body = format!("1{extension}\r\nx\r\n0{extension}\r\n\r\n");
        assert_eq!(follow(body.as_bytes()).map(|chunk| chunk.done), Ok(true), "{extension:?}");
    }
    for extension in [
        " ",
        ";",
        ";;",
        "; ",
        ";a ",
        ";a=",
        ";a= ",
        ";=b",
        ";a=b c",
        ";a b",
        ";a=b=c",
        ";a\"b\"",
        ";a=\"b",
        ";a=\"b\"c",
        ";a=\"\\",
        ";a=\"\0\"",
        ";a=\"\x7f\"",
        ";a\0",
        ";a=b\n",
        ";a=\"b\n\"",
        " a",
        ";a=b ",
        ";a=\"b\" ",
    ] {
        let body = format!("1{extension}\r\nx\r\n0\r\n\r\n");
        assert_eq!(detail(&body), "a malformed chunk extension", "{extension:?}");
    }
    let body = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(length - 1));
    assert!(follow(body(256).as_bytes()).unwrap().done);
    assert_eq!(detail(&body(257)), "chunk extensions that are too long");
}

#[test]
fn malformed_or_long_trailers_are_rejected() {
    for (trailers, wanted) in [
        ("X : y\r\n", "space before the colon of a field"),
        (" X: y\r\n", "a folded field, or space before a field"),
        ("X: y\r\n z\r\n", "a folded field, or space before a field"),
        ("X\r\n", "a field without a colon"),
        ("X: y\n", "a bare LF in the header"),
        ("X: y\rz", "a bare CR in the header"),
        ("\n", "a bare LF in the header"),
        ("\r\r", "a bare CR in the header"),
        ("X: \0\r\n", "a control character in a field value"),
        (": y\r\n", "an empty field name"),
    ] {
        assert_eq!(detail(&format!("0\r\n{trailers}\r\n")), wanted, "{trailers:?}");
    }
    // Name, colon, line end and empty line take six bytes.
    let body = |length: usize| format!("0\r\nX:{}\r\n\r\n", "y".repeat(length - 6));
    assert!(follow(body(8192).as_bytes()).unwrap().done);
    assert_eq!(detail(&body(8193)), "trailers that are too long");
}

#[test]
fn chunk_data_is_skipped_in_pieces_of_any_size() {
    let mut chunked = Chunked::default();
    assert_eq!(chunked.advance(b"10000\r\n").unwrap().data, 0);
    let piece = vec![b'\r'; 0x4000];
    for _ in 0..4 {
        assert_eq!(chunked.advance(&piece), Ok(Chunk { consumed: 0x4000, data: 0x4000, done: false }));
    }
    let end = b"\r\n0\r\n\r\nnext";
    assert_eq!(chunked.advance(end), Ok(Chunk { consumed: end.len() - 4, data: 0, done: true }));
    assert_eq!(chunked.advance(b"next"), Ok(Chunk { consumed: 0, data: 0, done: true }));
}
