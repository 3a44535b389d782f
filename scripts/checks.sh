# For the scripts that run tests, which source it: counts them in $passed and $failed.
# shellcheck shell=bash
passed=0 failed=0

# Runs a command and counts it as a test of the name given first.
check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok     $name"
    else
        failed=$((failed + 1))
        echo "FAILED $name"
    fi
}

# Adds the counts that a program of tests printed at its end: LOG, then what says that there was no end.
add_counts() {
    local line
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -1 || true)
    if [ -z "$line" ]; then
        failed=$((failed + 1))
        echo "FAILED $2 ended before its end"
        return
    fi
    # shellcheck disable=SC2086
    set -- $line
    passed=$((passed + $1)) failed=$((failed + $3))
}
