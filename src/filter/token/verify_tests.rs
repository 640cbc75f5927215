//! Tests of tokens: examples of the RFCs, every algorithm, and attacks.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{encoding::AsDer as _, hmac};

use super::super::algorithm::Algorithm;
use super::super::key::Origin;
use super::*;

/// The payload of RFC 7515 appendix A.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const SECRET: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn set(json: &str) -> KeySet {
    KeySet::from_json(json.as_bytes(), &[], Origin::File).unwrap()
}

/// A token with this header and claims, signed by `sign`.
fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = encoded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn tagged(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn pem(der: &[u8]) -> String {
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn examples_of_the_rfcs_are_verified() {
    let secret = format!(r#"{{"kty":"oct","k":"{SECRET}"}}"#);
    let rsa = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
    let rsa_signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let ec = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let ec_signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for (jwk, header, signature) in [
        (secret.as_str(), "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        (rsa, "eyJhbGciOiJSUzI1NiJ9", rsa_signature),
        (ec, "eyJhbGciOiJFUzI1NiJ9", ec_signature),
    ] {
        let claims = verify(&format!("{header}.{PAYLOAD}.{signature}"), &set(jwk)).unwrap();
        assert_eq!(claims.text("iss").unwrap(), "joe", "{jwk}");
        let changed = verify(&format!("{header}.{}.{signature}", PAYLOAD.replacen("eyJpc3", "eyJpc2", 1)), &set(jwk));
        assert_eq!(changed, Err(Refusal::Signature), "{jwk}");
    }
    // RFC 8037 appendix A.4, whose payload is not JSON.
    let ed = set(r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#);
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(ed.0[0].verifies(message, &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()));
}

#[test]
fn every_algorithm_verifies_with_its_key_in_pem_only() {
    let rng = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_der = rsa.public_key().as_der().unwrap().as_ref().to_vec();
    let sign_rsa = |encoding: &'static dyn RsaEncoding| {
        let (rsa, rng) = (&rsa, &rng);
        move |message: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(encoding, rng, message, &mut signature).unwrap();
            signature
        }
    };
    let check = |name: &str, der: &[u8], algorithm: Algorithm, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        let keys = KeySet::read(pem(der).as_bytes(), &[algorithm]).unwrap();
        let signed = |name: &str| token(&format!(r#"{{"alg":"{name}"}}"#), "{}", sign);
        assert!(verify(&signed(name), &keys).is_ok(), "{name}");
        let other = if name == "RS256" { "PS256" } else { "RS256" };
        assert_eq!(verify(&signed(other), &keys), Err(Refusal::Algorithm), "{name}");
    };
    for (name, algorithm, encoding) in [
        ("RS256", Algorithm::RS256, &RSA_PKCS1_SHA256 as &'static dyn RsaEncoding),
        ("RS384", Algorithm::RS384, &RSA_PKCS1_SHA384),
        ("RS512", Algorithm::RS512, &RSA_PKCS1_SHA512),
        ("PS256", Algorithm::PS256, &RSA_PSS_SHA256),
        ("PS384", Algorithm::PS384, &RSA_PSS_SHA384),
        ("PS512", Algorithm::PS512, &RSA_PSS_SHA512),
    ] {
        check(name, &rsa_der, algorithm, &sign_rsa(encoding));
    }
    for (name, algorithm, signing) in [
        ("ES256", Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING as &'static EcdsaSigningAlgorithm),
        ("ES384", Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", Algorithm::ES512, &ECDSA_P521_SHA512_FIXED_SIGNING),
    ] {
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        let der = pair.public_key().as_der().unwrap().as_ref().to_vec();
        check(name, &der, algorithm, &|message| pair.sign(&rng, message).unwrap().as_ref().to_vec());
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let der = pair.public_key().as_der().unwrap().as_ref().to_vec();
    check("EdDSA", &der, Algorithm::EdDsa, &|message| pair.sign(message).as_ref().to_vec());
}

#[test]
fn unsigned_token_and_public_key_as_a_secret_are_refused() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = encoded(pair.public_key());
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}"#);
    let (keys, der) = (set(&jwk), pair.public_key().as_der().unwrap().as_ref().to_vec());
    let file = KeySet::read(pem(&der).as_bytes(), &[]).unwrap();
    for name in ["none", "None", "NONE", "", "HS256", "RS256", "eddsa"] {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        for sign in
            [&(|_: &[u8]| Vec::new()) as &dyn Fn(&[u8]) -> Vec<u8>, &tagged(&der), &tagged(pem(&der).as_bytes())]
        {
            for keys in [&keys, &file] {
                assert_eq!(verify(&token(&header, "{}", sign), keys), Err(Refusal::Algorithm), "{name}");
            }
        }
    }
    let as_secret = format!(r#"{{"keys":[{{"kty":"oct","alg":"HS256","k":"{SECRET}"}}]}}"#);
    assert!(KeySet::from_json(as_secret.as_bytes(), &[], Origin::Url).is_err(), "a secret at a URL is public");
    let crossed = format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"HS256","x":"{x}"}}"#);
    assert!(KeySet::from_json(crossed.as_bytes(), &[], Origin::File).is_err(), "the algorithm does not fit the key");
}

#[test]
fn malformed_or_foreign_token_is_refused_with_its_reason() {
    let secret = [7; 32];
    let keys = set(&format!(r#"{{"keys":[{{"kty":"oct","kid":"a","k":"{}"}}]}}"#, encoded(secret)));
    let signed = |header: &str, claims: &str| token(header, claims, tagged(&secret));
    let good = signed(r#"{"alg":"HS256","kid":"a","typ":"JWT"}"#, r#"{"sub":"me"}"#);
    assert!(verify(&good, &keys).is_ok());
    let long = format!("{good}{}", "A".repeat(1 << 20));
    for (token, wanted) in [
        (long.as_str(), Refusal::TooLong),
        ("", Refusal::Malformed),
        ("a.b", Refusal::Malformed),
        ("..", Refusal::Malformed),
        (&format!("{good}.x"), Refusal::Malformed),
        (&format!("{good}="), Refusal::Malformed),
        (&format!("{good} "), Refusal::Malformed),
        (&signed("[]", "{}"), Refusal::Malformed),
        (&signed(r#"{"alg":"HS256","alg":"none"}"#, "{}"), Refusal::Malformed),
        (&signed(r#"{"alg":"HS256"}"#, "[]"), Refusal::Malformed),
        (&signed(r#"{"alg":"HS256"}"#, &"[".repeat(5_000)), Refusal::Malformed),
        (&signed(r#"{"alg":"HS256","crit":["exp"]}"#, "{}"), Refusal::Critical),
        (&signed(r#"{"alg":"HS256","b64":false}"#, "{}"), Refusal::Critical),
        (&signed(r#"{"alg":"HS256","kid":"b"}"#, "{}"), Refusal::UnknownKey),
        (&signed(r#"{"alg":"HS512","kid":"a"}"#, "{}"), Refusal::Algorithm),
        (&token(r#"{"alg":"HS256"}"#, "{}", tagged(&[8; 32])), Refusal::Signature),
        (&token(r#"{"alg":"HS256"}"#, "{}", |_| Vec::new()), Refusal::Signature),
    ] {
        assert_eq!(verify(token, &keys), Err(wanted), "{}", token.get(..80).unwrap_or(token));
    }
}

#[test]
fn keys_that_cannot_verify_are_left_out_or_a_fault() {
    let weak = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTY","e":"AQAB"}"#;
    let short = r#"{"kty":"oct","k":"AAAA"}"#;
    let encryption = format!(r#"{{"kty":"oct","use":"enc","k":"{SECRET}"}}"#);
    let wrapping = format!(r#"{{"kty":"oct","key_ops":["wrapKey"],"k":"{SECRET}"}}"#);
    let point = r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#;
    let unknown = r#"{"kty":"X","x":"AAAA"}"#;
    let all = [weak, short, &encryption, &wrapping, point, unknown];
    for jwk in all {
        let error = KeySet::from_json(jwk.as_bytes(), &[], Origin::File).unwrap_err();
        assert!(error.contains("no key of the JWK set"), "{jwk}: {error}");
    }
    let mixed = format!(r#"{{"keys":[{},{{"kty":"oct","k":"{SECRET}"}}]}}"#, all.join(","));
    assert_eq!(set(&mixed).0.len(), 1);
    let many = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; 101].join(","));
    for (text, problem) in [
        (many.as_str(), "101 keys"),
        ("{}", "`keys` is missing"),
        ("{", "not JSON"),
        ("", "no public key in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a public key is invalid"),
    ] {
        let error = KeySet::read(text.as_bytes(), &[]).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
    assert!(KeySet::from_secret(&[1; 31], Algorithm::HS256).unwrap_err().contains("31 bytes"));
}
