//! Reads the tables of cases.

use std::time::Duration;

use super::fields::Check;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub file: String,
    pub route: String,
    pub section: String,
    pub name: String,
    pub not_implemented: Option<String>,
    pub number: usize,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub enum Step {
    Wait(Duration),
    Exchange(Box<Exchange>),
}

/// One request of the client and all expectations about it.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    pub method: String,
    pub suffix: String,
    pub fields: Vec<(String, String)>,
    pub body: Option<String>,
    /// `None`: the request does not reach the origin.
    pub origin: Option<Answer>,
    /// The response to a second request of l7lb for this exchange, if it must send one.
    pub second: Option<Answer>,
    /// What the origin receives.
    pub received: Vec<Check>,
    pub status: Option<u16>,
    pub expected_body: Option<Body>,
    pub expected: Vec<Check>,
}

/// The response of the origin.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// l7lb sends the request by itself, after it has responded to the client.
    pub is_background: bool,
    pub status: u16,
    pub flags: Vec<String>,
    pub body: Option<String>,
    pub delay: Duration,
    pub fields: Vec<(String, String)>,
}

impl Answer {
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }
}

/// Flags of a response: framing, an interim response or trailers, no Date, and ends before the body is complete or
/// before the response.
pub const FLAGS: [&str; 9] =
    ["chunked", "close", "interim", "trailer", "nodate", "truncated", "cutchunks", "drop", "empty"];

/// The body that the client expects.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// That of an exchange, counted from 1.
    Of(usize),
    Text(String),
    Contains(String),
}

impl Case {
    /// Whether a request of the case must not reach the origin.
    pub fn expects_stored_response(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Exchange(exchange) if exchange.origin.is_none()))
    }
}

/// Reads all cases of a file.
pub fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut reader = Reader { file, ..Reader::default() };
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            reader.line(line).unwrap_or_else(|| panic!("{file}:{}: {line}", number + 1));
        }
    }
    reader.cases
}

#[derive(Default)]
struct Reader<'a> {
    file: &'a str,
    route: String,
    why: Option<String>,
    cases: Vec<Case>,
}

impl Reader<'_> {
    /// `None` if the line has no valid syntax.
    fn line(&mut self, line: &str) -> Option<()> {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match sign {
            "@" => rest.clone_into(&mut self.route),
            "??" => self.why = Some(rest.to_owned()),
            "==" => {
                let (section, name) = rest.split_once(" | ")?;
                self.open(section, name);
            }
            "+" | "-" => self.pair(rest, sign == "+")?,
            "wait" => {
                let duration = humantime::parse_duration(rest).ok()?;
                self.cases.last_mut()?.steps.push(Step::Wait(duration));
            }
            "<" => self.exchange()?.origin = Some(answer(rest)?),
            "<+" => self.exchange()?.second = Some(answer(rest)?),
            "<~" => self.exchange()?.origin = Some(Answer { is_background: true, ..answer(rest)? }),
            ">" => self.exchange()?.received = checks(rest),
            "=" => expectation(rest, self.exchange()?)?,
            method if method.bytes().all(|byte| byte.is_ascii_uppercase()) => self.request(line)?,
            _ => return None,
        }
        Some(())
    }

    fn open(&mut self, section: &str, name: &str) {
        self.cases.push(Case {
            file: self.file.to_owned(),
            route: self.route.clone(),
            section: section.trim().to_owned(),
            name: name.trim().to_owned(),
            not_implemented: self.why.take(),
            number: 0,
            steps: Vec::new(),
        });
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        match self.cases.last_mut()?.steps.last_mut()? {
            Step::Exchange(exchange) => Some(exchange),
            Step::Wait(_) => None,
        }
    }

    fn request(&mut self, line: &str) -> Option<()> {
        let (head, fields) = halves(line);
        let mut words = head.split(' ');
        let mut exchange = Exchange { method: words.next()?.to_owned(), fields: pairs(fields)?, ..Exchange::default() };
        for word in words.filter(|word| !word.is_empty()) {
            match word.strip_prefix("body=") {
                Some(body) => exchange.body = Some(body.to_owned()),
                None => word.clone_into(&mut exchange.suffix),
            }
        }
        self.cases.last_mut()?.steps.push(Step::Exchange(Box::new(exchange)));
        Some(())
    }

    /// Two GET with the same response.
    fn pair(&mut self, rest: &str, is_stored: bool) -> Option<()> {
        let (section, rest) = rest.split_once(" | ")?;
        let (name, response) = rest.split_once(" | ").unwrap_or((rest, ""));
        self.open(section, name);
        let with_status = response.starts_with(|first: char| first.is_ascii_digit());
        let response = if with_status { response.to_owned() } else { format!("200 | {response}") };
        for is_first in [true, false] {
            self.request_get();
            if is_first || !is_stored {
                self.exchange()?.origin = Some(answer(response.trim_end_matches(" | "))?);
            }
        }
        Some(())
    }

    fn request_get(&mut self) {
        let exchange = Exchange { method: "GET".to_owned(), ..Exchange::default() };
        if let Some(case) = self.cases.last_mut() {
            case.steps.push(Step::Exchange(Box::new(exchange)));
        }
    }
}

/// The part before the first separator, and the rest.
fn halves(text: &str) -> (&str, &str) {
    text.split_once(" | ").map_or((text, ""), |(head, fields)| (head.trim(), fields))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(" | ").map(str::trim).filter(|item| !item.is_empty())
}

/// Fields; a value may be empty.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    items(text)
        .map(|item| item.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
        .collect()
}

fn checks(text: &str) -> Vec<Check> {
    items(text).map(Check::parse).collect()
}

fn answer(text: &str) -> Option<Answer> {
    let (head, fields) = halves(text);
    let mut words = head.split(' ').filter(|word| !word.is_empty());
    let status = words.next()?.parse().ok()?;
    let mut answer = Answer { status, fields: pairs(fields)?, ..Answer::default() };
    for word in words {
        if let Some(body) = word.strip_prefix("body=") {
            answer.body = Some(body.to_owned());
        } else if let Some(delay) = word.strip_prefix("delay=") {
            answer.delay = humantime::parse_duration(delay).ok()?;
        } else if FLAGS.contains(&word) {
            answer.flags.push(word.to_owned());
        } else {
            return None;
        }
    }
    Some(answer)
}

/// Reads `200 body=#1 | checks`; the status may be missing.
fn expectation(text: &str, exchange: &mut Exchange) -> Option<()> {
    let starts_with_head =
        text.starts_with("body") || text.starts_with(|first: char| first.is_ascii_digit()) || text == "empty";
    let (head, rest) = if starts_with_head { halves(text) } else { ("", text) };
    for word in head.split(' ').filter(|word| !word.is_empty()) {
        if let Some(number) = word.strip_prefix("body=#") {
            exchange.expected_body = Some(Body::Of(number.parse().ok()?));
        } else if let Some(text) = word.strip_prefix("body=") {
            exchange.expected_body = Some(Body::Text(text.to_owned()));
        } else if let Some(part) = word.strip_prefix("body~") {
            exchange.expected_body = Some(Body::Contains(part.to_owned()));
        } else if word == "empty" {
            exchange.expected_body = Some(Body::Text(String::new()));
        } else {
            exchange.status = Some(word.parse().ok()?);
        }
    }
    exchange.expected = checks(rest);
    Some(())
}

#[test]
fn case_is_read_with_all_its_parts() {
    let text = "@ r\n?? later\n== 9111/4 | a name\nGET ?q body=x | A: b, c | D:\n> E~f | !G\n< 304 chunked | H: i\n= 200 body=#2 | Age>=1\nwait 2s\n+ 9111/3 | pair | 404 | J: k\n";
    let cases = parse("f", text);
    assert_eq!((cases.len(), cases[0].not_implemented.as_deref(), cases[1].steps.len()), (2, Some("later"), 2));
    let Step::Exchange(exchange) = &cases[0].steps[0] else { panic!() };
    assert_eq!((exchange.suffix.as_str(), exchange.fields.len(), exchange.received.len()), ("?q", 2, 2));
    assert_eq!((exchange.status, &exchange.expected_body), (Some(200), &Some(Body::Of(2))));
    assert_eq!(exchange.origin.as_ref().unwrap().status, 304);
    assert!(cases[1].expects_stored_response());
}
