//! Terms of nginx, HAProxy, Envoy, Traefik and Caddy: what to write instead of them.
//!
//! To add a term, add it to the line with the right advice, in the block where users write it.

/// The terms of one block, or of one set of words.
struct Block {
    /// A key that only this kind of block has, or a value of the set.
    known: &'static str,
    /// Terms in lower case with `_`, separated by spaces; then the advice.
    terms: &'static [(&'static str, &'static str)],
}

/// What to write instead of `term` where `known` are the valid keys or values.
pub(super) fn advice(term: &str, known: &[&str]) -> Option<String> {
    let term = snake_case(term);
    if known.contains(&term.as_str()) {
        return Some(format!("write `{term}`"));
    }
    let blocks = BLOCKS.iter().filter(|block| block.known.is_empty() || known.contains(&block.known));
    let lines = blocks.flat_map(|block| block.terms);
    lines.filter(|(terms, _)| terms.split(' ').any(|one| one == term)).map(|(_, advice)| (*advice).to_owned()).next()
}

/// `leastConn`, `least-conn` and `LEAST_CONN` as `least_conn`.
fn snake_case(term: &str) -> String {
    let mut snake = String::with_capacity(term.len() + 4);
    let mut after_lower_case = false;
    for c in term.chars() {
        if c.is_ascii_uppercase() && after_lower_case {
            snake.push('_');
        }
        after_lower_case = c.is_ascii_lowercase() || c.is_ascii_digit();
        snake.push(if matches!(c, '-' | ' ') { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}

const REWRITE: &str = "write `filters: [{ rewrite: { strip_prefix: /api } }]`";
const HEADERS: &str = "write `filters: [{ headers: { request: { set: { X-Tenant: a } } } }]`";
const ACCESS: &str = "write `filters: [{ access: { rules: [{ allow: { networks: 10.0.0.0/8 } }] } }]`";
const BASIC_AUTH: &str = "write `filters: [{ basic_auth: { file: FILE } }]`";
const CORS: &str = "write `filters: [{ cors: { origins: [https://www.example.com] } }]`";
const FILTERS: &str = "write `filters`, for example `filters: [{ security_headers: default }]`";
const COMPRESS: &str = "write `filters: [{ compress: {} }]`";
const ERROR_PAGES: &str = "write `filters: [{ error_pages: { pages: [{ statuses: [503], html: FILE }] } }]`";
const HEALTH_CHECK: &str = "write `health_check: { type: http, path: /health }` in the pool";
const PASSIVE_HEALTH: &str = "write `passive_health: { consecutive_failures: 5, ejection_time: 10s }` in the pool";
const CONSISTENT_HASH: &str = "write `balance: { type: consistent_hash, by: client_ip }` in the pool";
const CERTIFICATE: &str = "write `tls: { certificates: [{ certificate: FILE, key: FILE }] }` in the listener";
const LISTENERS: &str = "write `listeners`, for example `listeners: 0.0.0.0:8080`";
const ROUTES: &str = "write `routes`, for example `routes: [{ path: /api, pool: NAME }]`";
const POOL_TLS: &str = "write `tls: { server_name: NAME }` in the pool, or https:// in front of the address";
const IN_FLIGHT: &str = "write `max_in_flight: { per_backend: 100 }` in the pool";
const RETRY: &str = "write `retry: { attempts: 2 }` in the route";
const METHODS_OF_HASH: &str = "write `balance: { type: consistent_hash, by: header, name: NAME }`";

/// The most specific blocks first; the last one applies everywhere.
const BLOCKS: &[Block] = &[
    // The top level.
    Block {
        known: "pools",
        terms: &[
            (
                "pool upstream upstreams cluster clusters backend backends services service load_balancer",
                "write `pools`, for example `pools: { NAME: { backends: [127.0.0.1:8081] } }`",
            ),
            ("frontend frontends entry_points bind listen ports listener port address", LISTENERS),
            ("location locations routers virtual_hosts rules rule route default_backend use_backend", ROUTES),
            ("http stream static_resources", "move its content to the top level: `listeners`, `pools` and `routes`"),
            ("defaults global events", "remove it: every key has a default; `server` has the keys of the process"),
            ("worker_processes nbthread threads concurrency", "write `server: { threads: 4 }`"),
            ("worker_connections maxconn max_connections", "write `connection_limits: { total: 10000 }`"),
            ("limit_conn limit_conn_zone", "write `connection_limits: { per_client: 100 }`"),
            ("pid pidfile", "write `server: { pid_file: FILE }`"),
            ("user group daemon error_log", "write it inside `server`"),
            (
                "set_real_ip_from real_ip_header xff_num_trusted_hops forwarded_headers",
                "write `trusted_proxies: [10.0.0.0/8]`",
            ),
            ("client_max_body_size", "write `request_limits: { body_size: 10MiB }`"),
            ("large_client_header_buffers client_header_buffer_size", "write `request_limits: { header_size: 32KiB }`"),
            ("log_format logging accesslog log", "write `access_log: { format: json }`"),
            ("include", "remove it: the configuration is one file"),
            ("gzip gzip_types gzip_min_length gzip_comp_level brotli zstd compress compression encode", COMPRESS),
            ("error_page error_pages errorfile errorfiles errors handle_errors", ERROR_PAGES),
            ("proxy_request_buffering buffering", "write `filters: [{ buffer: { size: 1MiB } }]`"),
            ("maintenance", "write `filters: [{ maintenance: { switch_file: FILE } }]`"),
            ("resolver resolvers nameserver", "remove it: names are resolved by the system"),
            ("timeout timeouts", "write `client_timeouts` here, and `timeouts` in a pool or a route"),
            ("health_check health", "write `health_check` in a pool, and `health` in a listener"),
            (
                "keepalive_timeout client_header_timeout client_body_timeout send_timeout",
                "write it in `client_timeouts`: `keepalive`, `header`, `body` or `write`",
            ),
        ],
    },
    Block {
        known: "redirect_to_https",
        terms: &[
            ("listen bind port addr host socket_address", "write `address`, for example `address: 0.0.0.0:8080`"),
            (
                "ssl ssl_certificate ssl_certificate_key certificate certificates cert crt key transport_socket",
                "write `tls: { certificates: [{ certificate: FILE, key: FILE }] }`",
            ),
            ("ssl_protocols min_version ssl_min_ver", "write `tls: { minimum_version: 1.3 }`"),
            ("server_name server_names hostname domains", "write `host` in a route: routes apply to all listeners"),
            ("accept_proxy", "write `proxy_protocol: { trusted: [10.0.0.0/8] }`"),
            ("redirect redirections return http_request", "write `redirect_to_https: 443`"),
            ("hsts add_header", "write `strict_transport_security: { max_age: 365d }`"),
            (
                "location locations routes filter_chains default_backend use_backend",
                "write `routes` at the top level: routes apply to all listeners",
            ),
            ("http2 protocols", "remove it: HTTP/2 is on; `alpn` in `tls` restricts it"),
        ],
    },
    Block {
        known: "minimum_version",
        terms: &[
            (
                "ssl_certificate certificate cert crt tls_certificates cert_file",
                "write `certificates: [{ certificate: FILE, key: FILE }]`",
            ),
            ("ssl_protocols min_version ssl_min_ver tls_minimum_protocol_version", "write `minimum_version: 1.3`"),
            (
                "ssl_client_certificate ssl_verify_client ca ca_file client_ca verify",
                "write `client_auth: { mode: required, ca: FILE }`",
            ),
            ("ssl_crl crl crl_file", "write `crl` inside `client_auth`"),
            ("ssl_ciphers ciphers cipher_suites ciphersuites", "remove it: l7lb offers only secure cipher suites"),
            ("ssl_session_ticket_key tls_ticket_keys", "write `ticket_keys: FILE`"),
            ("ssl_stapling ssl_stapling_file", "write `ocsp: FILE` beside the `certificate`"),
        ],
    },
    Block {
        known: "ocsp",
        terms: &[
            ("cert crt cert_file certfile ssl_certificate certificate_chain chain", "write `certificate: FILE`"),
            ("key_file keyfile ssl_certificate_key private_key", "write `key: FILE`"),
        ],
    },
    // Pools and what is in them.
    Block {
        known: "backends",
        terms: &[
            (
                "server servers upstream upstreams host hosts endpoints lb_endpoints url urls targets nodes members \
                 proxy_pass reverse_proxy to load_balancer load_assignment backend address addresses",
                "write `backends`, for example `backends: [127.0.0.1:8081, 127.0.0.1:8082]`",
            ),
            ("least_conn leastconn least_request", "write `balance: least_requests`"),
            ("round_robin roundrobin", "write `balance: round_robin`"),
            ("random", "write `balance: random`"),
            ("ip_hash source", "write `balance: { type: consistent_hash, by: client_ip }`"),
            ("hash uri hash_policy ring_hash maglev", "write `balance: { type: consistent_hash, by: path }`"),
            (
                "lb_policy lb_method load_balancing load_balancing_policy algorithm strategy policy",
                "write `balance: round_robin`",
            ),
            (
                "health_uri health_path health_port health_status check health health_checks healthcheck httpchk \
                 option_httpchk option",
                "write `health_check: { type: http, path: /health }`",
            ),
            ("health_interval inter", "write `health_check: { interval: 5s }`"),
            ("health_timeout timeout_check", "write `health_check: { timeout: 2s }`"),
            ("rise fall", "write `health_check: { rise: 2, fall: 3 }`"),
            (
                "max_fails fail_timeout fail_duration outlier_detection observe error_limit passive unhealthy_status \
                 on_error",
                "write `passive_health: { consecutive_failures: 5, ejection_time: 10s }`",
            ),
            ("circuit_breakers", "write `max_in_flight` for limits of requests, or `circuit_breaker`"),
            ("max_conns maxconn max_requests max_connections", "write `max_in_flight: { per_backend: 100 }`"),
            ("maxqueue max_pending_requests timeout_queue", "write `queue: { length: 100 }` beside `max_in_flight`"),
            ("connect_timeout proxy_connect_timeout timeout_connect dial_timeout", "write `timeouts: { connect: 2s }`"),
            (
                "proxy_read_timeout timeout_server read_timeout response_header_timeout timeout",
                "write `timeouts: { first_byte: 30s, idle: 60s }`",
            ),
            ("proxy_send_timeout write_timeout", "write `timeouts: { idle: 60s }`"),
            (
                "keepalive keepalive_requests http_reuse",
                "write `upstream_keepalive_pool_size` in `server`, or `keepalive_timeout` here",
            ),
            (
                "ssl transport transport_socket tls_context proxy_ssl",
                "write `tls: { server_name: NAME }`, or https:// in front of the address",
            ),
            ("proxy_ssl_name sni verifyhost tls_server_name", "write `tls: { server_name: NAME }`"),
            ("proxy_ssl_trusted_certificate ca_file ca root_cas", "write `ca: FILE` inside `tls`"),
            (
                "insecure_skip_verify tls_insecure_skip_verify proxy_ssl_verify verify",
                "write `verify: false` inside `tls`",
            ),
            ("send_proxy send_proxy_v2", "write `proxy_protocol: v2`"),
            ("sticky cookie stick stick_table affinity session_affinity", "write `sticky` in a route"),
            ("slowstart slow_start_config", "write `slow_start: 10s`"),
            ("http2 proxy_http_version http_version h2 mode type", "write `protocol`: http1, h2c, http2 or auto"),
        ],
    },
    Block {
        known: "weight",
        terms: &[
            ("server url host port target addr dial endpoint socket_address name", "write `address: 127.0.0.1:8081`"),
            ("max_fails fail_timeout observe", PASSIVE_HEALTH),
            ("max_conns maxconn", IN_FLIGHT),
            ("check inter rise fall health_check", HEALTH_CHECK),
            ("down disabled maintenance", "write `drain: true`"),
            ("priority", "write `backup: true`"),
            ("slow_start slowstart", "write `slow_start` in the pool"),
            ("ssl tls sni verify", POOL_TLS),
            ("load_balancing_weight", "write `weight`"),
            ("cookie", "write `sticky` in a route"),
        ],
    },
    Block {
        known: "unhealthy_interval",
        terms: &[
            ("uri health_uri url endpoint http_path", "write `path`"),
            ("inter health_interval check_interval", "write `interval`"),
            ("passes healthy_threshold success_threshold", "write `rise`"),
            ("fails unhealthy_threshold failure_threshold", "write `fall`"),
            ("expect expect_status expected_statuses match", "write `status: [200, \"300-399\"]`"),
            ("hostname", "write `host`"),
            ("port method scheme", "remove it: a check is a GET at the address of the backend"),
            ("header", "write `headers: { NAME: VALUE }`"),
        ],
    },
    Block {
        known: "ejection_time",
        terms: &[
            ("max_fails consecutive_5xx consecutive_gateway_failure error_limit", "write `consecutive_failures`"),
            ("fail_timeout base_ejection_time fail_duration", "write `ejection_time`"),
            ("max_ejection_percent", "write `max_ejected_percent`"),
            ("interval", "write `window`"),
        ],
    },
    Block {
        known: "first_byte",
        terms: &[
            ("connect_timeout proxy_connect_timeout timeout_connect dial dial_timeout", "write `connect`"),
            (
                "read server response response_header response_header_timeout proxy_read_timeout timeout_server",
                "write `first_byte`, and `idle` for pauses",
            ),
            ("send write proxy_send_timeout idle_timeout keepalive", "write `idle`"),
            ("per_try per_try_timeout", "write `attempt`"),
            ("request max_stream_duration", "write `total`"),
        ],
    },
    Block {
        known: "handshake",
        terms: &[
            ("client_header_timeout http_request read_header read_header_timeout", "write `header`"),
            ("client_body_timeout read read_timeout", "write `body`"),
            ("send_timeout write_timeout", "write `write`"),
            ("keepalive_timeout http_keep_alive idle idle_timeout", "write `keepalive`"),
            ("timeout_tunnel", "write `tunnel`"),
        ],
    },
    Block {
        known: "server_name",
        terms: &[
            ("sni proxy_ssl_name verifyhost name", "write `server_name`"),
            ("ca_file proxy_ssl_trusted_certificate root_cas", "write `ca: FILE`"),
            ("insecure_skip_verify proxy_ssl_verify", "write `verify: false`"),
            ("cert crt certificate proxy_ssl_certificate", "write `client_certificate: FILE`"),
            ("key proxy_ssl_certificate_key", "write `client_key: FILE`"),
        ],
    },
    // Routes and what is in them.
    Block {
        known: "allow_encoded",
        terms: &[
            (
                "rule match location prefix path_prefix path_beg uri url paths",
                "write `path: /api`, and if needed `host` and `methods`",
            ),
            ("hosts server_name domains authority hostname", "write `host: www.example.com`, one route for each"),
            ("method", "write `methods: [GET]`"),
            (
                "proxy_pass backend backends use_backend default_backend service services upstream cluster \
                 weighted_clusters reverse_proxy to split_clients server",
                "write `pool: NAME`, or several pools with their shares: `pool: { stable: 95, canary: 5 }`",
            ),
            (
                "strip_prefix strip_path_prefix prefix_rewrite regex_rewrite rewrite replace_path handle_path \
                 add_prefix",
                REWRITE,
            ),
            ("middlewares middleware plugins", FILTERS),
            ("add_header proxy_set_header header_up request_headers_to_add", HEADERS),
            (
                "header header_regexp hdr match_headers",
                "write `headers: { X-Tenant: { exact: a } }`, or `prefix`, `regex`, `present`",
            ),
            ("query_regexp query_params query_parameters", "write `query: { NAME: { exact: a } }`"),
            ("client_ip remote_ip source_ip src", "write `clients: [10.0.0.0/8]`"),
            ("cors cors_policy access_control_allow_origin_list http_cors", CORS),
            (
                "regex path_regexp path_reg safe_regex",
                "remove it: a `path` is a prefix by whole segments, without regular expressions",
            ),
            ("order", "remove it: the most specific route applies, in any order"),
            ("redirect return", "write `redirect_to_https: 443` in a listener"),
            ("limit_req", "write `rate_limit: { type: token_bucket, limit: 100, window: 1s, burst: 20 }`"),
            ("client_max_body_size max_body_size", "write `body_size: 10MiB`"),
            (
                "proxy_next_upstream retries tries retry_policy retry_on redispatch lb_try_duration",
                "write `retry: { attempts: 2, on: [connect, timeout] }`",
            ),
            (
                "timeout proxy_read_timeout proxy_connect_timeout timeout_server",
                "write `timeouts: { first_byte: 30s }`",
            ),
            ("cookie stick ip_hash hash_policy session_affinity affinity", "write `sticky: { cookie: {} }`"),
            ("balance lb_policy least_conn leastconn", "write `balance` in the pool"),
            ("websocket upgrade_configs", "remove it: WebSocket works without a key"),
            ("tls entry_points listeners listener", "remove it: routes apply to all listeners"),
            ("health_check health_uri", HEALTH_CHECK),
        ],
    },
    Block {
        known: "idempotency_key",
        terms: &[
            ("num_retries retries max max_retries", "write `attempts`: retries and the first attempt"),
            ("retry_on conditions", "write `on: [connect, timeout, 503]`"),
            ("per_try_timeout timeout", "write `attempt` in the `timeouts` of the route"),
            ("non_idempotent", "write `methods: any`"),
        ],
    },
    Block {
        known: "burst",
        terms: &[
            ("rate average requests max_tokens", "write `limit`, per `window`"),
            ("period interval per fill_interval", "write `window`"),
            ("nodelay delay zone key", "remove it: requests above the limit are rejected at once, by client"),
        ],
    },
    // Values.
    Block {
        known: "consistent_hash",
        terms: &[
            ("leastconn least_conn least_request least_time fewest", "write `least_requests`"),
            ("roundrobin rr wrr static_rr weighted_round_robin first", "write `round_robin`"),
            ("p2c power_of_two ewma least_latency", "write `peak_ewma`"),
            ("random_choose", "write `random`"),
            ("source ip_hash client_ip client_ip_hash", "write `{ type: consistent_hash, by: client_ip }`"),
            ("hash uri uri_hash path", "write `{ type: consistent_hash, by: path }`"),
            ("url_param query", "write `{ type: consistent_hash, by: query, name: NAME }`"),
            ("hdr header", "write `{ type: consistent_hash, by: header, name: NAME }`"),
            ("cookie", "write `{ type: consistent_hash, by: cookie, name: NAME }`, or `sticky` in the route"),
            ("ring_hash maglev consistent", "write `{ type: consistent_hash, by: client_ip }`"),
        ],
    },
    Block {
        known: "client_ip",
        terms: &[
            ("ip source source_ip remote_addr src", "write `client_ip`"),
            ("hdr", "write `header`"),
            ("uri url", "write `path`"),
        ],
    },
    Block {
        known: "h2c",
        terms: &[
            ("http http/1.1 1.1 http1.1", "write `http1`"),
            ("https ssl tls", "write `http1`, and `tls` in the pool"),
            ("grpc http/2 h2 2", "write `h2c`, or `http2` with `tls`"),
            ("grpcs", "write `http2`, with `tls`"),
        ],
    },
    Block {
        known: "refused_stream",
        terms: &[
            ("error connect_failure conn_failure", "write `connect`"),
            ("empty_response response_timeout", "write `reset` or `timeout`"),
            (
                "5xx gateway_error http_502 http_503 http_504 all_retryable_errors",
                "write the status codes: 502, 503, 504",
            ),
            ("cancelled deadline_exceeded internal resource_exhausted unavailable", "write it with `grpc_` in front"),
        ],
    },
    Block { known: "token_bucket", terms: &[("leaky_bucket gcra", "write `token_bucket`")] },
    Block {
        known: "cost",
        terms: &[
            ("key zone source_criterion limit_req_zone descriptors", "write `by: client`"),
            (
                "average rate requests events burst limit limit_req",
                "write `limits: [{ type: token_bucket, limit: 10 }]`",
            ),
            ("limit_req_dry_run dry_run shadow_mode", "write `mode: observe`"),
        ],
    },
    Block {
        known: "required_claims",
        terms: &[
            ("jwks_url jwks_uri remote_jwks auth_jwt_key_request", "write `jwks: https://www.example.com/api`"),
            ("auth_jwt_key_file key_file local_jwks signing_certificate", "write `keys: FILE`"),
            ("signing_secret sign_key", "write `secret: FILE`"),
            ("auth_jwt_leeway clock_skew clock_skew_seconds", "write `leeway: 30s`"),
            ("auth_jwt_require claims", "write `required_claims: { scope: [api] }`"),
            ("forward_headers claim_to_headers header_claims", "write `claim_headers: { X-Tenant: sub }`"),
            ("from_cookies from_headers auth_jwt token_name", "write `header: X-Tenant` or `cookie: NAME`"),
        ],
    },
    Block {
        known: "expose",
        terms: &[
            (
                "access_control_allow_origin_list access_control_allow_origin allow_origin allow_origins allowed_origins \
                 allow_origin_string_match",
                "write `origins: [https://www.example.com]`",
            ),
            ("access_control_allow_methods allow_methods allowed_methods", "write `methods: [GET, POST]`"),
            ("access_control_allow_headers allow_headers allowed_headers", "write `headers: [X-Tenant]`"),
            ("access_control_expose_headers expose_headers exposed_headers", "write `expose: [X-Tenant]`"),
            ("access_control_allow_credentials allow_credentials", "write `credentials: true`"),
            ("access_control_max_age", "write `max_age: 10m`"),
        ],
    },
    // Terms that mean one thing wherever they are written.
    Block {
        known: "",
        terms: &[
            ("leastconn least_conn", "write `balance: least_requests` in a pool"),
            ("roundrobin", "write `balance: round_robin` in a pool"),
            ("ip_hash", CONSISTENT_HASH),
            ("hash uri", METHODS_OF_HASH),
            ("proxy_pass upstream reverse_proxy", "write `pool: NAME` in a route, and `backends` in that pool"),
            ("strip_prefix strip_path_prefix rewrite", REWRITE),
            ("add_header proxy_set_header header_up", HEADERS),
            ("middlewares", FILTERS),
            ("allow deny ip_allow_list ip_white_list whitelist remote_ip geoip geoip2", ACCESS),
            ("auth_basic auth_basic_user_file basicauth basic_auth_users htpasswd userlist", BASIC_AUTH),
            (
                "mirror mirroring request_mirror_policies traffic_mirror",
                "write `filters: [{ mirror: { pool: NAME, share: 10% } }]`",
            ),
            ("auth_request ext_authz", "write `filters: [{ forward_auth: { pool: NAME, path: /verify } }]`"),
            ("health_uri", HEALTH_CHECK),
            ("max_fails fail_timeout outlier_detection", PASSIVE_HEALTH),
            ("max_conns maxconn", IN_FLIGHT),
            ("ssl_certificate ssl_certificate_key", CERTIFICATE),
            ("proxy_next_upstream retry_policy", RETRY),
            ("listen bind entry_points", LISTENERS),
            ("rule location", ROUTES),
            (
                "limit_req limit_req_zone",
                "write `rate_limit: { type: token_bucket, limit: 100, window: 1s, burst: 20 }`",
            ),
        ],
    },
];

#[cfg(test)]
#[path = "foreign_terms_tests.rs"]
mod tests;
