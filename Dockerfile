# Postgres with user_logins_sqs and pg_cron. Everything else is as in the
# official image that it is built on:
#
#   docker build --build-arg POSTGRES_MAJOR=17 --build-arg DEBIAN_SUITE=bookworm --tag user_logins_sqs:17 .
#
# Needs BuildKit, which is the default of current Docker versions.
ARG POSTGRES_MAJOR=18
ARG DEBIAN_SUITE=trixie
ARG RUST_VERSION=1.95.0

# The same for every base: on the oldest suite, what is built here runs on all.
FROM rust:${RUST_VERSION}-slim-bookworm AS rust

# The version of the pgrx crates in Cargo.toml. Unoptimised, it takes a third
# of the time to build, and does as well; its default features want OpenSSL.
ARG CARGO_PGRX_VERSION=0.18.1
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install cargo-pgrx --version "$CARGO_PGRX_VERSION" --locked --debug --no-default-features


# The Postgres image has a package source with the headers of its own major
# version, which the Rust image has not.
FROM postgres:${POSTGRES_MAJOR}-${DEBIAN_SUITE} AS toolchain

RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates libclang-dev "postgresql-server-dev-$PG_MAJOR" \
 && rm -rf /var/lib/apt/lists/*

COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup \
    CARGO_HOME=/usr/local/cargo \
    PATH=/usr/local/cargo/bin:$PATH \
    PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
RUN cargo pgrx init "--pg$PG_MAJOR" "$PG_CONFIG" --no-run


FROM toolchain AS builder

# The dependencies are compiled once and then stay in the cache, whatever
# changes in the sources. One folder for each base: what one compiled may not
# run on another. The sources' own times mean nothing to a cache that other
# builds share, so they count as changed now. The workspace's other members are
# tests and tools, which are not here.
WORKDIR /user_logins_sqs
COPY . .
# The maintainer that the package names; see scripts/package/common.bash.
ARG DEBFULLNAME
ARG DEBEMAIL
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/cache/user_logins_sqs \
    . /etc/os-release \
 && mkdir -p "/cache/user_logins_sqs/$PG_MAJOR-$VERSION_CODENAME" \
 && ln -s "/cache/user_logins_sqs/$PG_MAJOR-$VERSION_CODENAME" target \
 && find . -type f -exec touch {} + \
 && sed -i 's|^members = .*|members = ["crates/*"]|' Cargo.toml \
 && scripts/package/all /packages


# For those who want the Debian packages alone, that of unseal among them:
#
#   docker build --target package --output . .
FROM scratch AS package
COPY --from=builder /packages /


FROM postgres:${POSTGRES_MAJOR}-${DEBIAN_SUITE}

RUN --mount=type=bind,from=package,target=/packages \
    apt-get update \
 && apt-get install --yes --no-install-recommends \
        /packages/postgresql-*.deb "postgresql-$PG_MAJOR-cron" \
 && rm -rf /var/lib/apt/lists/*

# initdb begins every new cluster's postgresql.conf with this file.
RUN printf '%s\n' \
        '' \
        '# Subscriptions to queues, and pg_cron, run in background workers.' \
        "shared_preload_libraries = 'pg_cron,user_logins_sqs'" \
        >>"/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample"
