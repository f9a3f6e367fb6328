# Sourced by the scripts of this folder.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.bash"

# Versions that the images are tested on, as MAJOR-SUITE: a tag of the official image each.
# shellcheck disable=SC2034 # for those who source this
postgres_versions=(15-bookworm 17-trixie 18-trixie)

have_image() {
    docker image inspect "$1" >/dev/null 2>&1
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
