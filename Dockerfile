# Two stages: the build stage has Rust and a C compiler; the final image has neither.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY vendor vendor
COPY src src
COPY backends backends
COPY benches benches
COPY examples examples
COPY tests tests
COPY packaging packaging
# Profile-guided: three builds instead of one, for less CPU time per request (docs/performance.md).
RUN rustup component add llvm-tools && packaging/pgo.sh && cargo build --release --locked --bin backend

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin l7lb
COPY --from=build /src/target/pgo/l7lb /src/target/release/backend /usr/local/bin/
# Certificates and keys are mounted at run time; the image contains none.
COPY conf/docker.yaml /etc/l7lb/l7lb.yaml
WORKDIR /etc/l7lb
USER l7lb
EXPOSE 8080 8443
# SIGTERM starts a graceful shutdown.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/l7lb"]
CMD ["run", "--conf", "/etc/l7lb/l7lb.yaml"]
