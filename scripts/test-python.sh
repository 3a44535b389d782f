#!/usr/bin/env bash
# Tests of the Python package: builds its wheel, installs it into an environment of its own, and tests it there.
# usage: scripts/test-python.sh [dev|release]
# The profile dev is what the other tests are built with; a wheel for users is of the profile release.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-dev}
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
out=$target/python-tests
python=$out/venv/bin/python
mkdir -p "$out"

[ -x "$python" ] || python3 -m venv "$out/venv"
# No version is asked for but that the tools are there: a second run needs no network.
tools=(maturin cffi numpy pytest ruff mypy)
for tool in "${tools[@]}"; do
    if ! "$python" -c "import $tool" 2>/dev/null; then
        "$python" -m pip install --quiet --disable-pip-version-check "${tools[@]}" >&2
        break
    fi
done
PATH=$out/venv/bin:$PATH

rm -rf "$out/wheels"
MATURIN_PEP517_ARGS="--profile $profile" CARGO_TARGET_DIR=$target "$python" -m pip wheel --quiet \
    --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$out/wheels" bindings/python >&2
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$out"/wheels/*.whl >&2

. scripts/checks.sh
in_package() { (cd bindings/python && "$@"); }
check "the wheel holds for every Python 3" compgen -G "$out/wheels/carat-*-py3-none-*.whl"
check "ruff finds nothing" in_package ruff check --quiet --cache-dir "$out/ruff"
check "ruff would format it so" in_package ruff format --quiet --check --cache-dir "$out/ruff"
check "mypy finds nothing" in_package mypy --cache-dir "$out/mypy"

# In a folder without the package's sources, so that the installed one is what is tested.
root=$PWD
(cd "$out" && pytest -q -rs -p no:cacheprovider -o faulthandler_timeout=300 -c "$root/bindings/python/pyproject.toml" \
    --rootdir "$root/bindings/python" "$root/bindings/python/tests") | tee "$out/log" || true
sum() { tail -1 "$out/log" | grep -oE "[0-9]+ $1" | grep -oE '[0-9]+' || echo 0; }
if ! tail -1 "$out/log" | grep -qE '[0-9]+ passed'; then
    failed=$((failed + 1))
    echo "FAILED pytest ended before its end"
fi
passed=$((passed + $(sum passed)))
failed=$((failed + $(sum failed) + $(sum error)))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
