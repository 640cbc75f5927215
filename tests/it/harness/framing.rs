//! Tells where an HTTP/1 message ends, for the parts of the harness that speak
//! HTTP/1 in raw bytes so that no library hides what happened.

/// How far a message reaches into the bytes received so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// More is to come.
    Partial,
    /// The message takes so many bytes.
    Whole(usize),
    /// The message ends where the connection does.
    UntilClose,
    /// This is no HTTP/1 message, for the reason given.
    Malformed(String),
}

/// The start line and headers of a message.
#[derive(Debug, Clone)]
pub struct Head {
    /// The first line.
    pub start_line: String,
    /// The headers as they came.
    pub headers: Vec<(String, String)>,
    /// How many bytes it took, the empty line at its end included.
    pub length: usize,
}

impl Head {
    /// Reads the head at the start of the bytes, once it is whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = find(bytes, b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let start_line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Some(Self {
            start_line,
            headers,
            length: end + 4,
        })
    }

    /// The value of the first header of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut matching = self.headers.iter();
        let found = matching.find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a header of this name lists the token.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|listed| listed.trim().eq_ignore_ascii_case(token))
    }

    /// The status of an answer; 0 when the start line has none.
    pub fn status(&self) -> u16 {
        let mut words = self.start_line.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse().ok());
        status.filter(|_| version.starts_with("HTTP/1.")).unwrap_or(0)
    }

    /// Whether the sender closes the connection after this answer.
    pub fn closes(&self) -> bool {
        if self.start_line.starts_with("HTTP/1.0") {
            !self.lists("connection", "keep-alive")
        } else {
            self.lists("connection", "close")
        }
    }

    /// How far the message with this head reaches; `unframed` is what it means
    /// that neither length nor chunks are announced.
    fn extent(&self, bytes: &[u8], unframed: Extent) -> Extent {
        if self.lists("transfer-encoding", "chunked") {
            return chunks_extent(bytes, self.length);
        }
        match self.value("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) if bytes.len() >= self.length + length => {
                Extent::Whole(self.length + length)
            }
            Some(Ok(_)) => Extent::Partial,
            Some(Err(_)) => Extent::Malformed("a content-length that is no number".to_owned()),
            None => unframed,
        }
    }
}

/// How far the request at the start of the bytes reaches.
pub fn request_extent(bytes: &[u8]) -> Extent {
    match Head::parse(bytes) {
        Some(head) => head.extent(bytes, Extent::Whole(head.length)),
        None => Extent::Partial,
    }
}

/// How far the answer at the start of the bytes reaches, interim answers before
/// it included, and the head of the final one. The method is that of the
/// request: the answer to HEAD has no body.
pub fn answer_extent(bytes: &[u8], method: &str) -> (Extent, Option<Head>) {
    let mut start = 0;
    loop {
        let rest = &bytes[start..];
        let Some(head) = Head::parse(rest) else {
            return (Extent::Partial, None);
        };
        let extent = match head.status() {
            0 => Extent::Malformed(format!("the start line {:?}", head.start_line)),
            // Switched protocols: what follows is no HTTP any more.
            101 => Extent::Whole(head.length),
            100..=199 => {
                start += head.length;
                continue;
            }
            204 | 304 => Extent::Whole(head.length),
            _ if method == "HEAD" => Extent::Whole(head.length),
            _ => head.extent(rest, Extent::UntilClose),
        };
        let extent = match extent {
            Extent::Whole(length) => Extent::Whole(start + length),
            other => other,
        };
        return (extent, Some(head));
    }
}

/// Follows the chunks that start at this place up to the end of the trailers.
fn chunks_extent(bytes: &[u8], mut place: usize) -> Extent {
    loop {
        let Some(line) = find(&bytes[place..], b"\r\n") else {
            return Extent::Partial;
        };
        let text = String::from_utf8_lossy(&bytes[place..place + line]).into_owned();
        let digits = text.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(digits, 16) else {
            return Extent::Malformed(format!("a chunk of the size {text:?}"));
        };
        if size == 0 {
            // The last chunk's own line end also ends an empty trailer section.
            return match find(&bytes[place + line..], b"\r\n\r\n") {
                Some(end) => Extent::Whole(place + line + end + 4),
                None => Extent::Partial,
            };
        }
        place += line + 2 + size + 2;
        if bytes.len() < place {
            return Extent::Partial;
        }
        if &bytes[place - 2..place] != b"\r\n" {
            return Extent::Malformed("a chunk without its line end".to_owned());
        }
    }
}

/// Where `wanted` starts in `bytes`.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
