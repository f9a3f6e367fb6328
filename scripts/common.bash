# Sourced by the other scripts.
# shellcheck shell=bash

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# The major version of Postgres that this release of Debian has.
default_major() {
    local ID VERSION_ID
    # shellcheck source=/dev/null
    source /etc/os-release
    case ${ID:-}-${VERSION_ID:-} in
    debian-13) echo 17 ;;
    *) echo 15 ;;
    esac
}

export PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$(default_major)/bin/pg_config}
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1

# A line for each argument.
say() {
    printf '%s\n' "$@"
}

fail() {
    printf '%s: %s\n' "${0#"$root/"}" "$*" >&2
    exit 1
}

# What the tests in a log say, those of cargo and those of tests/docker, in one line.
sum_up() {
    awk '/^test result:/ { passed += $4; failed += $6 }
         /^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
         END { printf "\n%d passed, %d failed\n", passed, failed }' "$1"
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

# A Postgres server refuses to run as root, and then runs as the user postgres.
as_server() {
    if ((EUID == 0)); then
        runuser -u postgres -- "$@"
    else
        "$@"
    fi
}

# 15 for /usr/lib/postgresql/15/bin/pg_config
pg_major() {
    "$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'
}

without_colors() {
    sed --unbuffered 's/\x1b\[[0-9;]*m//g'
}

# cargo-pgrx prints colors into pipes and files too, and has no option against it.
cargo_pgrx() {
    if [[ -t 1 && -t 2 ]]; then
        cargo pgrx "$@"
    else
        { { cargo pgrx "$@" | without_colors >&3; } 2>&1 | without_colors >&2; } 3>&1
    fi
}

# The features of the extension's crate for the server of PG_CONFIG, in builds
# for tests, which share what they compile: crates/workspace-hack says how.
pg_features() {
    echo --no-default-features --features "pg$(pg_major),unified"
}

# pgrx takes the headers from the server that its own configuration names for
# a major version, unless this variable names another.
use_pg_config() {
    local configured
    configured=$(sed -nE "s/^pg$(pg_major) *= *[\"'](.*)[\"']\$/\1/p" \
        "${PGRX_HOME:-$HOME/.pgrx}/config.toml" 2>/dev/null || true)
    if [[ $configured != "$PG_CONFIG" ]]; then
        export PGRX_PG_CONFIG_PATH=$PG_CONFIG
    fi
}
