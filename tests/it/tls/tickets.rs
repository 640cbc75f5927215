//! Sessions that another machine resumes.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::HandshakeKind::{Full, Resumed};

use super::with_tls;
use crate::lab::authority::{Authority, Client, handshake, replace};
use crate::lab::{Backend, Lab, free_port};

/// A line as `openssl rand -base64 48` makes it.
fn key() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..64).map(|_| char::from(DIGITS[fastrand::usize(..64)])).chain(['\n']).collect()
}

fn visit(port: u16, config: &Arc<rustls::ClientConfig>) -> rustls::HandshakeKind {
    let mut connection = handshake(port, "a.test", config).unwrap();
    connection.write_all(b"GET /apiA HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok();
    assert!(answer.contains("200 OK"), "{answer}");
    connection.conn.handshake_kind().unwrap()
}

fn loaded(lab: &Lab, times: usize) {
    crate::lab::eventually("the keys are read", crate::lab::PATIENCE, || {
        lab.log().matches("TLS file loaded").count() == times
    });
}

#[test]
fn machines_with_the_same_keys_resume_each_others_sessions_and_keys_rotate() {
    let (backend, authority, folder) =
        (Backend::start("one"), Authority::new("authority"), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys");
    let (first, second) = (key(), key());
    replace(&keys, &first);
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let files = folder.path().display();
    let tls = format!(
        "{{ certificates: [{{ certificate: '{files}/one.pem', key: '{files}/one-key.pem' }}], ticket_keys: '{files}/keys' }}"
    );
    let (here, there) = (free_port(), free_port());
    let labs = [here, there].map(|port| Lab::start(&with_tls(port, &backend, &tls)));
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        let config = Client { versions: &versions, ..Client::new(&authority) }.config();
        assert_eq!([visit(here, &config), visit(there, &config), visit(here, &config)], [Full, Resumed, Resumed]);
    }

    let config = Client::new(&authority).config();
    assert_eq!(visit(here, &config), Full);
    replace(&keys, format!("{second}{first}"));
    labs.iter().for_each(|lab| loaded(lab, 1));
    assert_eq!([visit(there, &config), visit(here, &config)], [Resumed, Resumed], "the old key still opens");
    replace(&keys, &second);
    labs.iter().for_each(|lab| loaded(lab, 2));
    assert_eq!(visit(there, &config), Resumed, "the ticket was made anew with the new key");

    replace(&keys, key());
    labs.iter().for_each(|lab| loaded(lab, 3));
    assert_eq!(visit(here, &config), Full, "no key of old is left");
    replace(&keys, "broken");
    labs[0].wait_for_log("line 1 is not 48 bytes in base64");
    assert_eq!(visit(there, &config), Resumed, "what cannot be read changes nothing");
}

#[test]
fn a_new_certificate_ends_no_session() {
    let (backend, authority) = (Backend::start("one"), Authority::new("authority"));
    let (port, folder) = (free_port(), Arc::new(tempfile::tempdir().unwrap()));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let tls = "{ certificates: [{ certificate: '{folder}/one.pem', key: '{folder}/one-key.pem' }] }";
    let lab = Lab::start_in(Arc::clone(&folder), &with_tls(port, &backend, tls));
    let config = Client::new(&authority).config();
    assert_eq!(visit(port, &config), Full);
    authority.issue(&["a.test"]).write(folder.path(), "one");
    lab.wait_for_log("certificate loaded");
    assert_eq!(visit(port, &config), Resumed);
}

#[test]
fn a_ticket_does_not_get_around_client_certificates() {
    let (backend, authority, folder) =
        (Backend::start("one"), Authority::new("authority"), tempfile::tempdir().unwrap());
    replace(&folder.path().join("keys"), key());
    replace(&folder.path().join("ca.pem"), authority.pem());
    authority.issue(&["a.test"]).write(folder.path(), "one");
    let files = folder.path().display();
    let tls = |more: &str| {
        format!(
            "{{ certificates: [{{ certificate: '{files}/one.pem', key: '{files}/one-key.pem' }}], ticket_keys: '{files}/keys'{more} }}"
        )
    };
    let (open, closed) = (free_port(), free_port());
    let _open = Lab::start(&with_tls(open, &backend, &tls("")));
    let closing = format!(", client_auth: {{ mode: required, ca: '{files}/ca.pem' }}");
    let _closed = Lab::start(&with_tls(closed, &backend, &tls(&closing)));
    let config = Client::new(&authority).config();
    assert_eq!([visit(open, &config), visit(open, &config)], [Full, Resumed]);
    let mut connection = handshake(closed, "a.test", &config).unwrap();
    connection.write_all(b"GET /apiA HTTP/1.1\r\nHost: a.test\r\n\r\n").ok();
    let refused = connection.read(&mut [0; 1]).unwrap_err().to_string();
    assert!(refused.contains("CertificateRequired"), "{refused}");
}
