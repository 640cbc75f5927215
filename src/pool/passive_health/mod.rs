//! Passive health: outlier detection on real traffic.
//!
//! A health check sends one request from time to time; clients send real requests all the time. A backend that
//! accepts connections and responds to each request with 500, or ten times slower than the others, passes its
//! checks and still breaks every fifth page. Four rules find it:
//!
//! - **Consecutive failures.** Five gateway failures (no connection, aborted before or during the response,
//!   timeout, 502, 503, 504) eject a backend. Other 5xx may be caused by the request, so five of them eject
//!   only if the peers of the backend do clearly better on the same traffic: a client that repeats a failing
//!   request must not eject backends.
//! - **Success rate**, as in Envoy: with enough backends and requests, a rate below the mean by 1.9 standard
//!   deviations and by at least ten percentage points. Without the latter, 99 % among 100 % would be an
//!   outlier.
//! - **Latency**, without configuration: the median time to a response is more than three times the median of
//!   the pool, in three consecutive windows. If all backends are slow, the median is slow too, and none is
//!   ejected. The only absolute value is a floor of 5 ms, below which a factor of three is noise.
//! - **Unresponsive**: for three consecutive windows requests wait without any response, while the peers
//!   respond.
//!
//! An outlier is ejected for 10 s, doubled with each further ejection up to 5 min; each 10 s without an
//! ejection removes one doubling. After an ejection because of failures, each passed health check may offer a
//! trial: one request that can be retried without the client noticing. Its success ends the ejection, and its
//! failure extends it ([`trials`]). At most half of a pool is ejected at a time, and never the last available
//! backend: a bad backend is better than none. For the same reason selection uses ejected backends if no others
//! are left.
//!
//! [`detector`] is a state machine: reports and the time go in, changes come out. Requests update a [`Tally`];
//! [`monitor`] ends the windows in the background.

pub mod config;
pub mod detector;
pub mod histogram;
pub mod monitor;
pub mod state;
pub mod tally;
pub mod trials;

pub use config::{Config, Setting, Spec};
pub use tally::{Outcome, Share, Tally};
