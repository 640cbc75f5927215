//! Requests on routes with a cache.
//!
//! Every client reads from the store, also the one whose request caused the fetch: so a slow client does not delay others, and a
//! client that disconnects ends no fetch that others use. [`serve`] decides about a request, [`fetch`] gets a response
//! from a backend in a task of its own, [`sink`] stores it or passes it on, and [`delivery`] sends a stored response.
//! [`passing`] sends a response that is not stored. [`fetch_client`] is the client side of a fetch, [`report`] what its client learns of it.

mod delivery;
mod fetch;
mod fetch_client;
mod report;
mod passing;
mod serve;
mod sink;

pub(super) use fetch_client::{FetchClient, Part};
