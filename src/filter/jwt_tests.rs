//! Tests of the filter `jwt`.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;
use crate::base::cause::Cause;
use crate::filter::Changes;
use crate::filter::changes::FieldChange;
use crate::filter::response;
use crate::filter::variables::tests::{answered, facts, request};

const SECRET: [u8; 32] = [b'k'; 32];

fn token(claims: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}

/// A filter with a secret and these further keys.
fn filter(more: &str) -> Result<Arc<dyn Filter>, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, contents: &[u8]| {
        std::fs::write(folder.path().join(name), contents).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let text = more.replace("SECRET", &path("secret", &[&SECRET[..], b"\n"].concat()));
    let config: Config = serde_json::from_str(&text.replace("SHORT", &path("short", b"hunter2"))).unwrap();
    let mut faults = Faults::default();
    let filter = config.check(&Place::root(), &Surroundings::default(), &mut faults);
    let faults = faults.into_vec();
    let faults: Vec<String> =
        faults.iter().map(|fault| format!("{}: {}", fault.place.as_str(), fault.problem)).collect();
    if faults.is_empty() { Ok(filter.unwrap()) } else { Err(faults) }
}

/// What the filter does to a request: the rejection, or the changes.
fn outcome(filter: &dyn Filter, fields: &[(&'static str, &str)]) -> Result<Vec<FieldChange>, Rejection> {
    let (header, facts, mut changes) = (request("/", fields), facts("a.test", "https"), Changes::default());
    match filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes }) {
        Step::Continue => {
            assert!(changes.claims.is_some());
            Ok(changes.fields)
        }
        Step::Reject(rejection) => Err(rejection.rejection),
        _ => panic!("neither a pass nor a rejection"),
    }
}

const FAR: &str = r#""exp":99999999999"#;

#[test]
fn token_is_found_at_its_configured_places_only() {
    let token = token(&format!("{{{FAR}}}"));
    let bearer = format!("bearer {token}");
    let cookie = format!("a=b; session={token}");
    let default = filter(r#"{"secret":"SECRET"}"#).unwrap();
    let both = filter(r#"{"secret":"SECRET","header":"X-Token","cookie":"session"}"#).unwrap();
    for (filter, fields, accepted) in [
        (&default, &[("authorization", bearer.as_str())][..], true),
        (&default, &[("authorization", &token)], false),
        (&default, &[("authorization", "Basic YTpi")], false),
        (&default, &[("authorization", &bearer), ("authorization", &bearer)], false),
        (&default, &[("x-token", &token)], false),
        (&default, &[("cookie", &cookie)], false),
        (&default, &[], false),
        (&both, &[("x-token", &token)], true),
        (&both, &[("x-token", &bearer)], true),
        (&both, &[("cookie", &cookie)], true),
        (&both, &[("x-token", "x"), ("cookie", &cookie)], false),
        (&both, &[("authorization", &bearer)], false),
    ] {
        let outcome = outcome(filter.as_ref(), fields);
        assert_eq!(outcome, if accepted { Ok(Vec::new()) } else { Err(Rejection::Unauthorized) }, "{fields:?}");
    }
}

#[test]
fn backend_gets_claims_and_never_the_values_of_the_client() {
    let filter = filter(r#"{"secret":"SECRET","claim_headers":{"X-User":"sub","X-Role":"role"}}"#).unwrap();
    let bearer = format!("Bearer {}", token(&format!(r#"{{"sub":"me",{FAR}}}"#)));
    let fields = [("authorization", bearer.as_str()), ("x-user", "admin"), ("x-role", "admin")];
    let (user, role) = (HeaderName::from_static("x-user"), HeaderName::from_static("x-role"));
    let wanted = [FieldChange::Remove(role), FieldChange::Set(user, HeaderValue::from_static("me"))];
    assert_eq!(outcome(filter.as_ref(), &fields).unwrap(), wanted);
}

#[test]
fn valid_token_without_a_required_claim_is_denied() {
    let filter = filter(r#"{"secret":"SECRET","required_claims":{"scope":["write"]}}"#).unwrap();
    for (scope, wanted) in [("read write", Ok(Vec::new())), ("read", Err(Rejection::AccessDenied))] {
        let bearer = format!("Bearer {}", token(&format!(r#"{{"scope":"{scope}",{FAR}}}"#)));
        assert_eq!(outcome(filter.as_ref(), &[("authorization", &bearer)]), wanted);
    }
    let expired = format!("Bearer {}", token(r#"{"scope":"write","exp":1}"#));
    assert_eq!(outcome(filter.as_ref(), &[("authorization", &expired)]), Err(Rejection::Unauthorized));
}

#[test]
fn challenge_names_an_error_only_if_there_was_a_token() {
    let filter = filter(r#"{"secret":"SECRET","realm":"shop"}"#).unwrap();
    let challenge = |status: StatusCode, fields: &[(&'static str, &str)], source: response::Source| {
        let (header, facts) = (request("/", fields), facts("a.test", "https"));
        let (_, headers) = answered(filter.as_ref(), (&header, &facts), (status, HeaderMap::new()), source);
        headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned())
    };
    let bad = [("authorization", "Bearer x")];
    let (rejected, backend) = (response::Source::Rejection(Cause::Unauthorized), response::Source::Backend);
    let invalid = Some("Bearer realm=\"shop\", error=\"invalid_token\"".to_owned());
    assert_eq!(challenge(StatusCode::UNAUTHORIZED, &bad, rejected), invalid);
    assert_eq!(challenge(StatusCode::UNAUTHORIZED, &[], rejected), Some("Bearer realm=\"shop\"".to_owned()));
    assert_eq!(challenge(StatusCode::UNAUTHORIZED, &[], backend), None, "the backend has its own challenge");
    assert_eq!(challenge(StatusCode::FORBIDDEN, &bad, rejected), None);
}

#[test]
fn keys_that_are_missing_weak_or_mixed_are_faults() {
    for (config, wanted) in [
        (r#"{}"#, ": there is no key"),
        (r#"{"secret":"SECRET","keys":"SECRET"}"#, ": keys come from one place"),
        (r#"{"secret":"SHORT"}"#, "secret: "),
        (r#"{"keys":"SHORT"}"#, "keys: "),
        (r#"{"secret":"SECRET","algorithms":["RS256"]}"#, "algorithms: algorithms with a secret (HS) and"),
        (r#"{"secret":"SECRET","algorithms":["HS256","HS512"]}"#, "algorithms: a secret has one algorithm"),
        (r#"{"secret":"SECRET","refresh":"1m"}"#, "refresh: `refresh` has no effect without `jwks`"),
        (r#"{"secret":"SECRET","leeway":"1h"}"#, "leeway: tokens would be valid for long"),
        (r#"{"secret":"SECRET","realm":"a\"b"}"#, "realm: the realm cannot be in a header value"),
        (r#"{"secret":"SECRET","header":"a b"}"#, "header: `a b` is not a header name"),
        (r#"{"secret":"SECRET","claim_headers":{"X-Forwarded-For":"sub"}}"#, "claim_headers.X-Forwarded-For: l7lb"),
        (r#"{"jwks":"http://a/keys"}"#, ": tokens of any issuer"),
        (r#"{"jwks":"a/keys","issuers":["a"]}"#, "jwks: `a/keys` is not a URL"),
        (r#"{"jwks":"http://u:p@a/keys","issuers":["a"]}"#, "jwks: the URL of keys has no user"),
        (r#"{"jwks":"http://a/keys","issuers":["a"],"ca":"SECRET"}"#, "jwks: `ca` has no effect without https"),
        (r#"{"jwks":"http://a/keys","issuers":["a"],"refresh":"1s"}"#, "refresh: the server would get too many"),
        (r#"{"jwks":"http://a/keys","issuers":["a"],"algorithms":["HS256"]}"#, "algorithms: algorithms with a secret"),
    ] {
        let faults = filter(config).unwrap_err();
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{config}: {faults:?}");
        assert!(!faults.concat().contains("hunter2"), "{faults:?}");
    }
}
