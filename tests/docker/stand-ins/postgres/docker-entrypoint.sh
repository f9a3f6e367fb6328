#!/usr/bin/env bash
# What the official image's documentation says that its entrypoint does, as far
# as an image on top of it or a compose file can depend on it.
set -Eeuo pipefail

# A variable may come as VARIABLE or, for secrets, in a file as VARIABLE_FILE.
from_environment() {
    local name=$1 default=${2:-} file=${1}_FILE
    local value=${!name:-$default}
    if [[ -n ${!name:-} && -n ${!file:-} ]]; then
        echo "error: both $name and $file are set" >&2
        exit 1
    fi
    if [[ -n ${!file:-} ]]; then
        value=$(<"${!file}")
    fi
    export "$name=$value"
    unset "$file"
}

make_directories() {
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA" || true
    chmod 3775 /var/run/postgresql || true
    if ((EUID == 0)); then
        chown -R postgres "$PGDATA" /var/run/postgresql
    fi
}

# 18 and later keep each major version in a directory of its own and refuse to
# start beside the data of another one.
refuse_data_of_other_versions() {
    [[ $PGDATA == "/var/lib/postgresql/$PG_MAJOR/docker" ]] || return 0
    local directory
    for directory in /var/lib/postgresql /var/lib/postgresql/data /var/lib/postgresql/*/docker; do
        if [[ -s $directory/PG_VERSION ]]; then
            echo "Error: there is PostgreSQL data in $directory" >&2
            exit 1
        fi
    done
    if ((PG_MAJOR >= 18)) && mountpoint --quiet /var/lib/postgresql/data; then
        echo "Error: /var/lib/postgresql/data is an unused mount" >&2
        exit 1
    fi
}

refuse_without_password() {
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        echo "Error: POSTGRES_PASSWORD is not specified" >&2
        exit 1
    fi
}

# initdb asks for the name of its user, whom the container need not know.
give_the_user_a_name() {
    if ! getent passwd "$EUID" >/dev/null; then
        NSS_WRAPPER_PASSWD=$(mktemp)
        NSS_WRAPPER_GROUP=$(mktemp)
        export NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP LD_PRELOAD=libnss_wrapper.so
        echo "postgres:x:$EUID:$(id --group):PostgreSQL:$PGDATA:/bin/false" >"$NSS_WRAPPER_PASSWD"
        echo "postgres:x:$(id --group):" >"$NSS_WRAPPER_GROUP"
    fi
}

take_the_name_back() {
    if [[ ${LD_PRELOAD:-} == libnss_wrapper.so ]]; then
        rm -f "$NSS_WRAPPER_PASSWD" "$NSS_WRAPPER_GROUP"
        unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
    fi
}

make_cluster() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    give_the_user_a_name
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") '"$POSTGRES_INITDB_ARGS"
    take_the_name_back
    if [[ -z $method ]]; then
        method=$(postgres -C password_encryption "$@")
    fi
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

in_database() {
    PGHOST='' PGHOSTADDR='' psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc \
        --dbname "$POSTGRES_DB" "$@"
}

make_database() {
    local exists
    exists=$(in_database --dbname postgres --set db="$POSTGRES_DB" --tuples-only \
        <<<"SELECT 1 FROM pg_database WHERE datname = :'db'")
    if [[ -z $exists ]]; then
        in_database --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
    fi
}

run_init_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        echo "$0: $script"
        case $script in
        *.sh)
            if [[ -x $script ]]; then
                "$script"
            else
                # shellcheck source=/dev/null
                . "$script"
            fi
            ;;
        *.sql) in_database --file "$script" ;;
        *.sql.gz) gunzip --stdout "$script" | in_database ;;
        *.sql.xz) xzcat "$script" | in_database ;;
        *.sql.zst) zstd --decompress --stdout "$script" | in_database ;;
        *) echo "$0: ignoring $script" ;;
        esac
    done
}

# A server on the socket only: clients that connect over TCP meet the cluster
# after its first-run scripts.
first_run() {
    refuse_without_password
    refuse_data_of_other_versions
    make_cluster "$@"
    export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
    pg_ctl --pgdata "$PGDATA" --wait start \
        --options "$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")"
    make_database
    run_init_scripts
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
    unset PGPASSWORD
    echo "PostgreSQL init process complete; ready for start up."
}

only_informs() {
    local argument
    for argument in "$@"; do
        case $argument in
        '-?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

if [[ ${1:-} == -* ]]; then
    set -- postgres "$@"
fi

if [[ ${1:-} == postgres ]] && ! only_informs "$@"; then
    from_environment POSTGRES_PASSWORD
    from_environment POSTGRES_USER postgres
    from_environment POSTGRES_DB "$POSTGRES_USER"
    from_environment POSTGRES_INITDB_ARGS
    POSTGRES_HOST_AUTH_METHOD=${POSTGRES_HOST_AUTH_METHOD:-}

    make_directories
    if ((EUID == 0)); then
        exec gosu postgres "${BASH_SOURCE[0]}" "$@"
    fi
    if [[ -s $PGDATA/PG_VERSION ]]; then
        echo "PostgreSQL Database directory appears to contain a database; Skipping initialization"
    else
        first_run "${@:2}"
    fi
fi

exec "$@"
