//! Session affinity: requests of a client go to the same backend while it is up.
//!
//! There are two methods. An affinity cookie ([`cookie`]) names the backend. It is encrypted, so that it
//! reveals nothing about backends and clients cannot choose one. Or a value of the client (a cookie or a
//! header of the application, or its address) is hashed, and the backend with the highest [`score`] for it
//! is used: rendezvous hashing, where removing a backend moves only its own clients. The cookie survives
//! changes of the pool; the hash works from the first request on, and for clients without cookies.
//!
//! Affinity costs evenness: a client with many requests sends all of them to one backend. Use it for backends
//! that keep sessions in memory.

mod config;
pub mod cookie;
mod method;

pub use config::{Affinity, Config, Scope};
pub use method::{AffinityMethod, CookieSpec, HashSource, Secure, cookie_value, score};
