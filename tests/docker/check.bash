# Sourced by the checks: what they say, count and clean up.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/common.bash"

passed=0
failed=0

# Whether a command succeeds.
#
#   check "what is true then" COMMAND...
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        say "ok      $what"
    else
        failed=$((failed + 1))
        say "FAILED  $what" "        $*" "$output" | sed '2,$s/^/        /'
    fi
}

# A check without which the others would say nothing, or the wrong thing.
check_first() {
    check "$@"
    if ((failed > 0)); then
        summary
        exit 1
    fi
}

# Whether a command prints just this.
#
#   check_prints "what is true then" EXPECTED COMMAND...
check_prints() {
    check "$1" prints "${@:2}"
}

prints() {
    local expected=$1 printed
    shift
    printed=$("$@") || return
    [[ $printed == "$expected" ]] || { say "expected: $expected" "printed:  $printed"; return 1; }
}

fails() {
    ! "$@"
}

# Tries a command every half second until it succeeds.
#
#   within SECONDS COMMAND...
within() {
    local deadline=$((SECONDS + $1)) output
    shift
    until output=$("$@" 2>&1); do
        ((SECONDS < deadline)) || { say "$output"; return 1; }
        sleep 0.5
    done
}

# Everything that a check makes bears its name, and goes with it.
# shellcheck disable=SC2034 # for those who source this
name=user_logins_sqs-test-$$
clean_up_commands=()
clean_up() {
    local command
    for command in "${clean_up_commands[@]}"; do
        eval "$command" >/dev/null 2>&1 || true
    done
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The last line of every check.
summary() {
    say "$passed passed, $failed failed"
    ((failed == 0))
}
