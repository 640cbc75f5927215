//! The request id in the access log, in the request to the backend, and in the response.

use http::HeaderValue;

/// An id of 128 random bits, or the id from a trusted proxy.
///
/// It is stored as a header value, so that adding it to headers copies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

/// The longest id that is accepted from a trusted proxy.
const LENGTH_MAX: usize = 128;

impl RequestId {
    /// A new id. It need not be unpredictable, only unique.
    #[must_use]
    pub fn random() -> Self {
        let mut text = [0; 32];
        for (digits, byte) in text.chunks_exact_mut(2).zip(fastrand::u128(..).to_be_bytes()) {
            if let [high, low] = digits {
                *high = hex_digit(byte >> 4);
                *low = hex_digit(byte & 0x0f);
            }
        }
        // Hexadecimal digits are always a valid value.
        let mut value = HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"));
        // It is not secret, but on HTTP/2 this keeps a value that never repeats out of the compression table
        // (RFC 7541 §7.1.3).
        value.set_sensitive(true);
        Self(value)
    }

    /// The id from a trusted proxy, if it may be forwarded and logged.
    #[must_use]
    pub fn given(value: &HeaderValue) -> Option<Self> {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
        let fits = (1..=LENGTH_MAX).contains(&value.len()) && value.as_bytes().iter().all(legal);
        fits.then(|| Self(value.clone()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as the value of `X-Request-Id`.
    #[must_use]
    pub fn to_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' + value - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_have_32_digits_and_differ() {
        let (one, two) = (RequestId::random(), RequestId::random());
        assert_eq!(one.as_str().len(), 32);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{one:?}");
        assert_ne!(one, two);
    }

    #[test]
    fn id_from_a_proxy_is_accepted_only_as_a_plain_word() {
        let given = |text: &str| RequestId::given(&HeaderValue::from_str(text).unwrap());
        assert_eq!(given("4bf92f35-77b3").unwrap().as_str(), "4bf92f35-77b3");
        assert!(given("").is_none() && given("a b").is_none() && given("a\"b").is_none());
        assert!(given(&"x".repeat(129)).is_none());
    }
}
