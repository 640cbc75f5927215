//! Claims of verified tokens (RFC 7519 §4), and rules about them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde_json::{Map, Value};

use super::verify::Refusal;

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// The claim with this name, or at this path such as `realm_access.roles`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let mut steps = name.split('.');
            let first = self.0.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.as_object()?.get(step))
        })
    }

    /// A claim as text: a list has commas between its items.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let of = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match self.get(name)? {
            Value::Null => None,
            Value::Array(items) => Some(items.iter().map(of).collect::<Vec<_>>().join(",")),
            value => Some(of(value)),
        }
    }

    /// A claim as a header value; `None` if it has characters that a header cannot have.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<HeaderValue> {
        HeaderValue::try_from(self.text(name)?).ok()
    }

    /// Whether a claim has a value: it is the text or the number, the list has it, or it is a word of a scope
    /// (RFC 8693 §4.2).
    fn has(&self, name: &str, wanted: &str) -> bool {
        let is = |value: &Value| match value {
            Value::String(text) => text == wanted,
            Value::Number(number) => number.to_string() == wanted,
            Value::Bool(flag) => wanted == if *flag { "true" } else { "false" },
            _ => false,
        };
        match self.get(name) {
            Some(Value::Array(items)) => items.iter().any(is),
            Some(Value::String(words)) if matches!(name, "scope" | "scp") => {
                words.split(' ').any(|word| word == wanted)
            }
            Some(value) => is(value),
            None => false,
        }
    }

    fn time(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Refusal::Malformed),
        }
    }
}

/// What a token must claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimRules {
    /// The accepted issuers; any if empty.
    pub issuers: Vec<String>,
    /// The accepted audiences; any if empty.
    pub audiences: Vec<String>,
    /// How far the clocks of the issuer and of l7lb may differ.
    pub leeway: Duration,
    /// Whether a token needs no time of expiry.
    pub without_expiry: bool,
    /// Claims with their accepted values; an empty list stands for any value.
    pub required: Vec<(String, Vec<String>)>,
}

impl ClaimRules {
    /// Checks whether a token is valid at `now`, and for l7lb.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, claims: &Claims, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = self.leeway.as_secs_f64();
        match claims.time("exp")? {
            None if !self.without_expiry => return Err(Refusal::NoExpiry),
            Some(expiry) if now >= expiry + leeway => return Err(Refusal::Expired),
            _ => {}
        }
        if claims.time("nbf")?.is_some_and(|start| now + leeway < start) {
            return Err(Refusal::NotYetValid);
        }
        let accepts = |accepted: &[String], name: &str| {
            let listed = |value: &Value| value.as_str().is_some_and(|text| accepted.iter().any(|one| one == text));
            accepted.is_empty()
                || match claims.0.get(name) {
                    Some(Value::Array(values)) if name == "aud" => values.iter().any(listed),
                    Some(value) => listed(value),
                    None => false,
                }
        };
        if !accepts(&self.issuers, "iss") {
            return Err(Refusal::Issuer);
        }
        if accepts(&self.audiences, "aud") { Ok(()) } else { Err(Refusal::Audience) }
    }

    /// Whether a valid token has the required claims.
    #[must_use]
    pub fn permit(&self, claims: &Claims) -> bool {
        self.required.iter().all(|(name, values)| {
            let is_there = || claims.get(name).is_some_and(|value| !value.is_null());
            if values.is_empty() { is_there() } else { values.iter().any(|value| claims.has(name, value)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        Claims(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn times_issuer_and_audience_decide_whether_a_token_is_valid() {
        let rules = ClaimRules {
            issuers: vec!["https://a".to_owned()],
            audiences: vec!["api".to_owned(), "app".to_owned()],
            leeway: Duration::from_secs(30),
            ..ClaimRules::default()
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        for (json, wanted) in [
            (r#"{"iss":"https://a","aud":"api","exp":1001}"#, Ok(())),
            (r#"{"iss":"https://a","aud":["x","app"],"exp":970.5,"nbf":1030}"#, Ok(())),
            (r#"{"iss":"https://a","aud":"api","exp":970}"#, Err(Refusal::Expired)),
            (r#"{"iss":"https://a","aud":"api"}"#, Err(Refusal::NoExpiry)),
            (r#"{"iss":"https://a","aud":"api","exp":"2000"}"#, Err(Refusal::Malformed)),
            (r#"{"iss":"https://a","aud":"api","exp":-1}"#, Err(Refusal::Expired)),
            (r#"{"iss":"https://a","aud":"api","exp":2000,"nbf":1031}"#, Err(Refusal::NotYetValid)),
            (r#"{"iss":"https://b","aud":"api","exp":2000}"#, Err(Refusal::Issuer)),
            (r#"{"iss":["https://a"],"aud":"api","exp":2000}"#, Err(Refusal::Issuer)),
            (r#"{"aud":"api","exp":2000}"#, Err(Refusal::Issuer)),
            (r#"{"iss":"https://a","aud":["x"],"exp":2000}"#, Err(Refusal::Audience)),
            (r#"{"iss":"https://a","exp":2000}"#, Err(Refusal::Audience)),
        ] {
            assert_eq!(rules.check(&claims(json), now), wanted, "{json}");
        }
        let lenient = ClaimRules { without_expiry: true, ..ClaimRules::default() };
        assert_eq!(lenient.check(&claims("{}"), now), Ok(()));
    }

    #[test]
    fn required_claims_are_words_items_or_values() {
        let rules = |name: &str, values: &[&str]| ClaimRules {
            required: vec![(name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())],
            ..ClaimRules::default()
        };
        let claims = claims(
            r#"{"scope":"read write","role":"a b","groups":["x","y"],"level":3,"admin":true,"realm":{"roles":["z"]},
                "a.b":1,"none":null}"#,
        );
        for (name, values, wanted) in [
            ("scope", &["write"][..], true),
            ("scope", &["rea"], false),
            ("role", &["a"], false),
            ("role", &["c", "a b"], true),
            ("groups", &["y"], true),
            ("groups", &["z"], false),
            ("level", &["3"], true),
            ("admin", &["true"], true),
            ("realm.roles", &["z"], true),
            ("realm.roles.z", &[], false),
            ("a.b", &["1"], true),
            ("none", &[], false),
            ("groups", &[], true),
            ("missing", &[], false),
        ] {
            assert_eq!(rules(name, values).permit(&claims), wanted, "{name} {values:?}");
        }
    }

    #[test]
    fn claim_with_a_line_break_is_no_header_value() {
        let claims = claims(r#"{"a":"x\r\nX-Admin: 1","b":"x","c":["x",2],"d":{"e":1},"f":null,"g":"\u0000"}"#);
        let value = |name| claims.header(name).map(|value| value.to_str().unwrap().to_owned());
        let values = ["a", "b", "c", "d", "f", "g", "h"].map(value);
        assert_eq!(values, [None, Some("x".into()), Some("x,2".into()), Some(r#"{"e":1}"#.into()), None, None, None]);
    }
}
