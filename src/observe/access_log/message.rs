//! Syslog messages (RFC 5424), and the configuration of their receiver.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::fault::{Faults, Place};
use crate::observe::digits::{ascii, rfc3339_millis};

/// The longest name of an application (§6.2.5), and of a host (§6.2.4).
const APP_NAME_MAX: usize = 48;
const HOSTNAME_MAX: usize = 255;

/// The length of the time before each line, and of the space after it.
const TIME: usize = 24;

/// Configuration of a syslog receiver.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The receiver: `udp:HOST:PORT`, `tcp:HOST:PORT` or `unix:PATH`; default `unix:/dev/log`.
    pub address: Option<String>,
    /// The facility.
    pub facility: Facility,
    /// The severity.
    pub severity: Severity,
    /// The name of the application; default `l7lb`.
    pub app_name: Option<String>,
    /// The name of the host; default: that of the system.
    pub hostname: Option<String>,
}

/// A facility (RFC 5424 §6.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "RFC 5424 defines each")]
pub enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    #[default]
    Local7 = 23,
}

/// A severity (RFC 5424 §6.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "RFC 5424 defines each")]
pub enum Severity {
    Warning = 4,
    Notice = 5,
    #[default]
    Info = 6,
    Debug = 7,
}

/// How messages reach the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram for each message, to a host and port.
    Udp(String),
    /// A stream with octet counting, to a host and port.
    Tcp(String),
    /// A socket in the file system: of datagrams, or a stream with line ends.
    Unix(PathBuf),
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(receiver) => write!(f, "udp:{receiver}"),
            Self::Tcp(receiver) => write!(f, "tcp:{receiver}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A checked receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub(super) transport: Transport,
    priority: u8,
    app_name: String,
    hostname: Option<String>,
}

impl Config {
    /// Checks the block.
    pub(super) fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        let transport = transport(self.address.as_deref().unwrap_or("unix:/dev/log"));
        if transport.is_none() {
            let hint = "write for example `udp:10.0.0.1:514`, `tcp:logs.example.com:601` or `unix:/dev/log`";
            faults.add(place.key("address"), "this is not a syslog receiver", hint);
        }
        for (key, name, max) in [("app_name", &self.app_name, APP_NAME_MAX), ("hostname", &self.hostname, HOSTNAME_MAX)]
        {
            if name.as_ref().is_some_and(|name| !is_name(name, max)) {
                let hint = format!("write 1 to {max} visible ASCII characters");
                faults.add(place.key(key), "this is not a name of syslog", hint);
            }
        }
        let priority = self.facility as u8 * 8 + self.severity as u8;
        let app_name = self.app_name.clone().unwrap_or_else(|| "l7lb".to_owned());
        Some(Spec { transport: transport?, priority, app_name, hostname: self.hostname.clone() })
    }
}

fn is_name(name: &str, max: usize) -> bool {
    (1..=max).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn transport(address: &str) -> Option<Transport> {
    let (kind, receiver) = address.split_once(':')?;
    if kind == "unix" {
        return (!receiver.is_empty()).then(|| Transport::Unix(receiver.into()));
    }
    let (host, port) = receiver.rsplit_once(':')?;
    let is_host = host.starts_with('[') && host.ends_with(']') || !host.contains([':', '/', '[', ']']);
    if host.is_empty() || !is_host || port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return None;
    }
    match kind {
        "udp" => Some(Transport::Udp(receiver.to_owned())),
        "tcp" => Some(Transport::Tcp(receiver.to_owned())),
        _ => None,
    }
}

/// The header of messages, without their time.
pub(super) struct Header {
    before: String,
    after: String,
}

impl Header {
    pub(super) fn new(spec: &Spec) -> Self {
        let system = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let hostname = spec.hostname.clone().unwrap_or_else(system);
        // A missing value is a hyphen (§6).
        let hostname = if is_name(&hostname, HOSTNAME_MAX) { hostname } else { "-".to_owned() };
        let (priority, app_name) = (spec.priority, &spec.app_name);
        Self {
            before: format!("<{priority}>1 "),
            after: format!(" {hostname} {app_name} {} access - ", std::process::id()),
        }
    }

    /// Adds the message for a line, which starts with its time.
    pub(super) fn push_message(&self, line: &str, message: &mut Vec<u8>) {
        message.extend_from_slice(self.before.as_bytes());
        let (time, text) = match line.split_at_checked(TIME) {
            Some((time, text)) if time.ends_with('Z') && text.starts_with(' ') => {
                (time, text.get(1..).unwrap_or_default())
            }
            // The output changed while this line was made.
            _ => ("-", line),
        };
        message.extend_from_slice(time.as_bytes());
        message.extend_from_slice(self.after.as_bytes());
        message.extend_from_slice(text.as_bytes());
    }
}

/// Starts a line for syslog with its time.
pub(super) fn push_time(line: &mut String, time: SystemTime) {
    line.push_str(ascii(&rfc3339_millis(time)));
    line.push(' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_the_header_of_rfc_5424_and_the_time_of_the_request() {
        let config = Config {
            facility: Facility::Local0,
            severity: Severity::Notice,
            app_name: Some("edge".into()),
            hostname: Some("lb1.example.com".into()),
            ..Config::default()
        };
        let spec = config.check(&Place::root(), &mut Faults::default()).unwrap();
        assert_eq!(spec.transport, Transport::Unix("/dev/log".into()));
        let header = Header::new(&spec);
        let mut line = String::new();
        push_time(&mut line, SystemTime::UNIX_EPOCH);
        line.push_str("status=200");
        let mut message = Vec::new();
        header.push_message(&line, &mut message);
        let expected = "<133>1 1970-01-01T00:00:00.000Z lb1.example.com edge PID access - status=200";
        let expected = expected.replace("PID", &std::process::id().to_string());
        assert_eq!(String::from_utf8(message).unwrap(), expected);
        let mut message = Vec::new();
        header.push_message("ü", &mut message);
        assert!(String::from_utf8(message).unwrap().starts_with("<133>1 - lb1.example.com edge "));
    }

    #[test]
    fn receiver_is_udp_tcp_or_a_unix_socket() {
        for (address, known) in [
            ("udp:10.0.0.1:514", true),
            ("tcp:logs.example.com:601", true),
            ("tcp:[::1]:601", true),
            ("unix:/dev/log", true),
            ("unix:", false),
            ("udp:10.0.0.1", false),
            ("udp::514", false),
            ("udp:10.0.0.1:0", false),
            ("udp://10.0.0.1:514", false),
            ("tls:10.0.0.1:6514", false),
            ("/dev/log", false),
            ("tcp:::1:601", false),
        ] {
            assert_eq!(transport(address).is_some(), known, "{address}");
        }
    }
}
