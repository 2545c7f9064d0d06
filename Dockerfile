# docker build --tag tdb .
# docker run --rm --publish 127.0.0.1:8000:8000 --volume tdb:/var/lib/tdb tdb
#
# The server asks for a token. Open the link that it prints, which holds one (docs/packages.md).
#
# Another model: … tdb serve --host 0.0.0.0 --model gpt2-small

FROM rust:1.95-bookworm AS build
# The toolchain that is in the image, whatever rust-toolchain.toml says.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN rustup target add wasm32-unknown-unknown
WORKDIR /source
COPY . .
RUN cargo xtask ui && cargo build --release --locked --package tdb-server --bin tdb

FROM debian:bookworm-slim
# Certificates for models and records that are fetched.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --home-dir /var/lib/tdb --create-home tdb
COPY --from=build /source/target/release/tdb /usr/local/bin/tdb
COPY LICENSE NOTICE /usr/share/doc/tdb/
ENV TDB_CACHE=/var/lib/tdb/cache TDB_EXPLANATIONS=/var/lib/tdb/explanations
USER tdb
VOLUME /var/lib/tdb
EXPOSE 8000
# Healthy is what answers /health, which needs no token.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q '^HTTP/1.1 200 '"]
CMD ["tdb", "serve", "--host", "0.0.0.0"]
