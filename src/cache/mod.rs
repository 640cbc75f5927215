//! The HTTP cache: stored responses, and the rules of RFC 9111 for them.
//!
//! The rules are pure: they know neither stores nor connections, and get the time as an argument.
//!
//! - [`config`], [`rules`]: the settings of a route, as written and checked.
//! - [`directives`], [`targeted`], [`http_date`]: Cache-Control, CDN-Cache-Control and dates.
//! - [`storable`], [`freshness`], [`reuse`]: whether a response is stored, for how long it is fresh, and whether it may be
//!   used for a request. [`policy`]: the same in the terms of Pingora's `CacheMeta`.
//! - [`key`], [`target`], [`query`], [`mod@reference`], [`vary`]: what identifies a response and its variants.
//! - [`conditional`], [`entity_tag`], [`range`]: the part of a response that a client needs. [`freshening`]: updates by 304
//!   and HEAD responses. [`invalidation`]: what unsafe methods make invalid.
//! - [`cache_status`]: the field Cache-Status. [`counters`]: what the cache of a route did.
//! - [`purge`]: what operators removed; its journal keeps that for a store on disk. [`remembered`]: small bounded memories.
//! - [`store`]: the stores. [`shared`]: the state around a store, for all routes that use it.

pub mod cache_status;
pub mod conditional;
pub mod config;
mod cookies;
pub mod counters;
pub mod directives;
pub mod entity_tag;
pub mod freshening;
pub mod freshness;
pub mod http_date;
pub mod invalidation;
pub mod key;
pub mod policy;
pub mod purge;
mod purge_journal;
mod purge_keeper;
mod purge_marks;
pub mod purge_record;
pub mod query;
pub mod range;
pub mod reference;
pub mod remembered;
pub mod reuse;
pub mod rules;
mod scanner;
pub mod shared;
pub mod storable;
pub mod store;
pub mod target;
pub mod targeted;
pub mod vary;

pub use config::{Config, Spec, StoreKind, StoresConfig};
pub use counters::{Counters, Outcome};
pub use shared::{Cache, Caches, FetchPermit, Found, Purged, RouteCache, Turn, Writing};

#[cfg(test)]
mod fixtures_tests;
