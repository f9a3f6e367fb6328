# Sourced by the scripts of this folder.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.bash"

# Versions that the images are tested on, as MAJOR-SUITE: a tag of the official image each.
# shellcheck disable=SC2034 # for those who source this
postgres_versions=(15-bookworm 17-trixie 18-trixie)

# Versions that the extension is tested on. No suite of Debian has 16: what stands
# in for its image has a server and headers, but neither contrib nor pg_cron.
# shellcheck disable=SC2034 # for those who source this
suite_versions=(15-bookworm 16-trixie 17-trixie 18-trixie)

have_image() {
    docker image inspect "$1" >/dev/null 2>&1
}

# What a stand-in says of how it was made; nothing for other images.
made_from() {
    docker image inspect --format '{{index .Config.Labels "user_logins_sqs.stand-in"}}' "$1" 2>/dev/null || true
}

# What stand-ins made now would say: a digest of all that makes them.
stand_ins_made_from=$({
    find tests/docker/stand-ins -type f -print0 | sort --zero-terminated | xargs --null sha256sum
    rustc --version --verbose 2>/dev/null || true
} | sha256sum | cut --characters -16)

# Images that others of the same name have taken the place of.
remove_replaced_images() {
    docker image prune --force --filter label=user_logins_sqs.stand-in >/dev/null || true
}

localstack_image() {
    docker compose --env-file /dev/null config --images | grep ^localstack/
}

# build_stand_in IMAGE FOLDER [OPTION...]
build_stand_in() {
    docker build --quiet --tag "$1" --label "user_logins_sqs.stand-in=$stand_ins_made_from" "${@:3}" "$2" >/dev/null
}

# Debian has docker-buildx and docker-compose 2 from trixie on. Where the
# command line has neither, tests/docker/plugins puts them here.
own_plugins=$root/target/docker/config
use_own_plugins() {
    if [[ -x $own_plugins/cli-plugins/docker-compose ]]; then
        export DOCKER_CONFIG=$own_plugins
    fi
}
use_own_plugins
export DOCKER_BUILDKIT=1
