#!/usr/bin/env bash
# As LocalStack's documentation has it: hooks of the stage BOOT run before
# LocalStack itself, which runs those of the later stages.
set -eo pipefail

mkdir -p /var/lib/localstack/logs
# shellcheck source=/dev/null
source /opt/code/localstack/.venv/bin/activate
if [[ -d /etc/localstack/init/boot.d ]]; then
    python3 -m localstack.runtime.init BOOT
fi
exec python3 -m localstack.runtime.main
