#!/usr/bin/env bash
# Runs a command in a folder with Debian 13, whose packages have what Debian 12 lacks (Swift), and makes the folder first.
# usage: scripts/in-debian13.sh FOLDER PACKAGES COMMAND...
# PACKAGES is a list with commas. The repository, its target folder and the folder of CARAT_TEST_MODEL are there under the
# same paths; variables whose names begin with CARAT_, and PKG_CONFIG_PATH, are handed on. It needs to be root, and mounts
# in a namespace of its own: nothing is left mounted, however it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:?usage: scripts/in-debian13.sh FOLDER PACKAGES COMMAND...}
packages=$2
shift 2
say() { echo "in-debian13: $*" >&2; }

if [ "$(id -u)" -ne 0 ]; then
    say "root is needed to make and enter $folder: run it with sudo"
    exit 1
fi
if [ "$(cat "$folder/.packages" 2>/dev/null)" != "$packages" ]; then
    # Made anew where it was left half made or for other packages.
    rm -rf "$folder"
    mkdir -p "$folder"
    say "installing Debian 13 with $packages in $folder (some minutes)"
    if ! debootstrap --variant=minbase --include="$packages" trixie "$folder" >"$folder.log" 2>&1; then
        tail -n 20 "$folder.log" >&2
        exit 1
    fi
    echo "$packages" >"$folder/.packages"
fi

target=${CARGO_TARGET_DIR:-$PWD/target}
here=("$PWD")
for path in "$target" "${CARAT_TEST_MODEL:+$(dirname "$(realpath "$CARAT_TEST_MODEL")")}"; do
    case $path in "" | "$PWD"/*) ;; *) here+=("$path") ;; esac
done
variables=()
while IFS= read -r v; do variables+=("$v=${!v}"); done < <(compgen -e | grep -E '^(CARAT_|PKG_CONFIG_PATH$)')

# Arguments of the inner shell: folder, working folder, number of paths, paths, then the command.
export folder
# shellcheck disable=SC2016
exec unshare --mount --propagation private bash -euc '
    n=$1; shift
    for path in "${@:1:n}"; do mkdir -p "$folder$path"; mount --bind "$path" "$folder$path"; done
    shift "$n"
    mount -t proc proc "$folder/proc"
    mount --rbind /dev "$folder/dev"
    exec chroot "$folder" /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"
' bash "${#here[@]}" "${here[@]}" "${variables[@]}" /bin/bash -c 'cd "$0" && exec "$@"' "$PWD" "$@"
