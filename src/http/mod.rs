//! The rules of HTTP and of the formats around it, without I/O.
//!
//! - [`rejection`]: every cause for which the balancer itself responds with an error.
//! - [`request_limits`]: limits on the size of a request.
//! - [`target`]: request targets and the normal form of paths.
//! - [`h1`]: the HTTP/1 grammar; decides which request heads and bodies are valid.
//! - [`client_address`]: the client's address, from the connection or from trusted proxies; [`forwarded`]: the header
//!   `Forwarded`.
//! - [`access_rules`]: rules by address.
//! - [`proxy_protocol`]: HAProxy's PROXY protocol, versions 1 and 2.
//! - [`grpc_status`]: gRPC status codes.
//! - [`upgrade`]: protocol upgrades.
//! - [`fields`]: header fields; [`connection_fields`]: those that belong to one connection.
//! - [`trailers`]: which trailers are forwarded.
//! - [`proxy_status`]: the header `Proxy-Status`; [`structured_field`]: values of such headers.
//! - [`request_id`]: the identifier of a request in logs and headers.

pub mod rejection;
pub mod request_limits;
pub mod target;
pub mod h1;
pub mod access_rules;
pub mod client_address;
pub mod forwarded;
pub mod proxy_protocol;
pub mod grpc_status;
pub mod upgrade;
pub mod connection_fields;
pub mod fields;
pub mod trailers;
pub mod structured_field;
pub mod proxy_status;
pub mod request_id;
