//! Checks of passwords, off the threads of requests, and the successes that are remembered.
//!
//! A hash takes as long as an attacker shall need, so checks run on blocking threads, only a few at a time, and requests
//! with the same credentials share one. A success is remembered under a keyed hash of the credentials and of the stored
//! hash; so memory has no passwords, and another stored hash ends it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use super::htpasswd::{Hash, Users};

/// The successes that are remembered.
const SUCCESSES_MAX: usize = 16_384;
/// The checks that may wait.
const WAITING_MAX: usize = 256;

/// User and password, as a client has sent them.
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Vec<u8>,
}

/// A keyed hash of credentials and a stored hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proof([u8; 32]);

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The password is right.
    Right,
    /// The user is unknown, or the password is wrong.
    Wrong,
    /// Too many checks wait.
    Busy,
}

/// The checks of one filter.
pub struct Checks {
    key: hmac::Key,
    successes: Cache<Proof, Instant>,
    lifetime: Duration,
    running: Mutex<HashMap<Proof, watch::Receiver<Option<Outcome>>>>,
    threads: Semaphore,
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").field("successes", &self.successes.len()).finish_non_exhaustive()
    }
}

/// A check of credentials that was prepared.
pub struct Check {
    proof: Proof,
    hash: Hash,
    is_known: bool,
    credentials: Credentials,
}

impl Check {
    /// Whether the password is right. Takes the same time for an unknown user.
    fn run(&self) -> Outcome {
        let matches = self.hash.verify(&self.credentials.password);
        if matches && self.is_known { Outcome::Right } else { Outcome::Wrong }
    }
}

/// How a check starts.
pub enum Started {
    /// Its outcome is known.
    Known(Outcome),
    /// It runs; whether this request has started it.
    Running(watch::Receiver<Option<Outcome>>, bool),
}

impl Checks {
    /// Checks that remember a success for `lifetime`, with a random key.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn new(lifetime: Duration) -> Result<Self, String> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| "there are no random numbers".to_owned())?;
        // Half of the cores, so that requests without passwords are served meanwhile.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            successes: Cache::new(SUCCESSES_MAX),
            lifetime,
            running: Mutex::default(),
            threads: Semaphore::new((cores / 2).max(1)),
        })
    }

    /// Prepares the check of credentials.
    #[must_use]
    pub fn prepare(&self, credentials: Credentials, users: &Users) -> Check {
        let user = users.get(&credentials.user);
        let hash = match user {
            Some(user) => user.hash.clone(),
            None => users.substitute(self.choice(&credentials.user)).clone(),
        };
        let proof = self.proof(&credentials, &hash);
        Check { proof, hash, is_known: user.is_some(), credentials }
    }

    /// A number for a user that others cannot foresee.
    fn choice(&self, user: &str) -> usize {
        let digest = hmac::sign(&self.key, user.as_bytes());
        let mut first = [0; 4];
        first.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        u32::from_be_bytes(first) as usize
    }

    fn proof(&self, credentials: &Credentials, hash: &Hash) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        // With their lengths, so that no two inputs are the same bytes.
        for part in [credentials.user.as_bytes(), &credentials.password, hash.text().as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut proof = [0; 32];
        proof.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        Proof(proof)
    }

    /// Whether the credentials were right of late.
    #[must_use]
    pub fn is_remembered(&self, check: &Check, now: Instant) -> bool {
        let since = self.successes.get(&check.proof);
        check.is_known && since.is_some_and(|since| now.saturating_duration_since(since) < self.lifetime)
    }

    /// Starts a check, or joins one with the same credentials. It ends even if the request does not wait for it.
    pub fn start(self: &Arc<Self>, check: Check, succeeded: impl FnOnce() + Send + 'static) -> Started {
        let mut running = self.running.lock();
        if let Some(outcome) = running.get(&check.proof) {
            return Started::Running(outcome.clone(), false);
        }
        if running.len() >= WAITING_MAX {
            return Started::Known(Outcome::Busy);
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(check.proof, receiver.clone());
        let checks = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = checks.run(&check.proof.clone(), check).await;
            if outcome == Outcome::Right {
                succeeded();
            }
            sender.send(Some(outcome)).ok();
        });
        Started::Running(receiver, true)
    }

    #[expect(clippy::disallowed_methods, reason = "the check has ended now")]
    async fn run(&self, proof: &Proof, check: Check) -> Outcome {
        let _ended = Ended { checks: self, proof };
        // The semaphore is never closed.
        let _thread = self.threads.acquire().await.ok();
        let outcome = tokio::task::spawn_blocking(move || check.run()).await.unwrap_or(Outcome::Busy);
        if outcome == Outcome::Right && !self.lifetime.is_zero() {
            self.successes.insert(*proof, Instant::now());
        }
        outcome
    }
}

/// Removes a check from the running ones.
struct Ended<'a> {
    checks: &'a Checks,
    proof: &'a Proof,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.checks.running.lock().remove(self.proof);
    }
}

/// Waits for the outcome of a check.
pub async fn outcome(mut running: watch::Receiver<Option<Outcome>>) -> Outcome {
    // It fails only if the process ends.
    running.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome).unwrap_or(Outcome::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User `a` with the password `secret`.
    const FILE: &str = "a:$5$salt1$hiwRZDsUs5wiSMbuDFr5GbCtRQbMvPBo5dnQgQnzb26\n";
    const LIFETIME: Duration = Duration::from_secs(60);

    fn users() -> Users {
        Users::parse(FILE.into()).unwrap()
    }

    fn check(checks: &Checks, user: &str, password: &str) -> Check {
        let credentials = Credentials { user: user.to_owned(), password: password.into() };
        checks.prepare(credentials, &users())
    }

    async fn run(checks: &Arc<Checks>, user: &str, password: &str) -> Outcome {
        match checks.start(check(checks, user, password), || {}) {
            Started::Known(outcome) => outcome,
            Started::Running(running, _) => outcome(running).await,
        }
    }

    #[tokio::test]
    async fn right_password_is_remembered_for_its_lifetime_and_a_wrong_one_is_not() {
        let checks = Arc::new(Checks::new(LIFETIME).unwrap());
        let now = Instant::now();
        for (user, password, wanted) in [
            ("a", "secret", Outcome::Right),
            ("a", "wrong", Outcome::Wrong),
            ("b", "secret", Outcome::Wrong),
            ("", "", Outcome::Wrong),
        ] {
            assert_eq!(run(&checks, user, password).await, wanted, "{user}:{password}");
            let remembered = checks.is_remembered(&check(&checks, user, password), now);
            assert_eq!(remembered, wanted == Outcome::Right, "{user}:{password}");
        }
        assert!(!checks.is_remembered(&check(&checks, "a", "secret"), now + 2 * LIFETIME));
        assert!(checks.running.lock().is_empty());
    }

    #[tokio::test]
    async fn another_stored_hash_ends_what_is_remembered() {
        let checks = Arc::new(Checks::new(LIFETIME).unwrap());
        run(&checks, "a", "secret").await;
        let other =
            "a:$6$salt2$ThDVFOJeJjm6w2q5U2NaZXinKgWXMp0Cm0.AIBKKqfpujKx56cdBIiog.SqP1uYCpfQo.yGPBLpXFs9ZT0Y5R.\n";
        let users = Users::parse(other.into()).unwrap();
        let credentials = Credentials { user: "a".to_owned(), password: b"secret".to_vec() };
        let check = checks.prepare(credentials, &users);
        assert!(!checks.is_remembered(&check, Instant::now()));
    }

    #[tokio::test]
    async fn equal_credentials_share_one_check_and_further_ones_beyond_the_bound_are_not_started() {
        let checks = Arc::new(Checks::new(LIFETIME).unwrap());
        let mut started = Vec::new();
        for number in 0..WAITING_MAX {
            for is_first in [true, false] {
                match checks.start(check(&checks, "a", &number.to_string()), || {}) {
                    Started::Running(running, own) => {
                        assert_eq!(own, is_first);
                        started.push(running);
                    }
                    Started::Known(outcome) => panic!("{number}: {outcome:?}"),
                }
            }
        }
        let more = checks.start(check(&checks, "a", "more"), || {});
        assert!(matches!(more, Started::Known(Outcome::Busy)));
        for running in started {
            assert_eq!(outcome(running).await, Outcome::Wrong);
        }
        assert!(matches!(checks.start(check(&checks, "a", "more"), || {}), Started::Running(_, true)));
    }

    #[test]
    fn unknown_user_is_checked_against_the_hash_of_a_known_one() {
        let checks = Checks::new(LIFETIME).unwrap();
        let (known, unknown) = (check(&checks, "a", "x"), check(&checks, "b", "x"));
        assert_eq!(known.hash, unknown.hash, "the same cost");
        assert!(known.is_known && !unknown.is_known);
    }
}
