#!/usr/bin/env bash
# Sets up a bare machine: GMT from the system's packages, Python 3.11 in .venv, the packages of requirements.txt, the
# project itself. A second run takes a moment unless requirements.txt, pyproject.toml or this script changed.
#
#   scripts/setup.sh         set up
#   scripts/setup.sh --uv    only make sure of uv, and print its path
#   scripts/setup.sh --postgres   only make sure of a PostgreSQL server's programs
#   scripts/setup.sh --browser    only make sure of Chromium, for the test that looks at MLflow's pages
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
tools=.tools # uv of our own, the log and the lock file
log=$tools/setup.log
cache=${UV_CACHE_DIR:-the cache folder of uv}
stamp=.venv/.setup-stamp
needed_megabytes=3000 # .venv; shared with the cache of uv where both are on one disk
oldest_gmt=6.4

say() { echo "setup: $*" >&2; }

die() { # cause, then one remedy a line
    say "$1"
    shift
    for remedy in "$@"; do echo "       $remedy" >&2; done
    exit 1
}

# Runs a command with its output in the log; the end of the log is shown where it fails.
logged() {
    echo "+ $*" >>"$log"
    "$@" >"$log.step" 2>&1 </dev/null && { cat "$log.step" >>"$log"; return 0; }
    local status=$?
    cat "$log.step" >>"$log"
    return $status
}

explain() { # what failed; turns the last step's output into cause and remedy
    tail -n 12 "$log.step" | sed 's/^/       | /' >&2
    if grep -qiE 'no space left|os error 28|disk quota' "$log.step"; then
        die "$1: the disk is full." "Free $needed_megabytes MB in $root and in $cache, then run make setup again."
    elif grep -qiE 'invalid peer certificate|certificate.verify' "$log.step"; then
        die "$1: the package index's certificate is not trusted." \
            "Behind a proxy with a certificate of its own, name it: SSL_CERT_FILE=ca.pem PIP_CERT=ca.pem make setup"
    elif grep -qiE 'no wheel|no compatible|matching platform|no matching distribution|illegal instruction' "$log.step" &&
        [[ "$(uname -sm)" != "Linux x86_64" ]]; then
        die "$1: the locked packages are made for Linux on x86-64; this is $(uname -sm)." \
            "Run in an x86-64 Linux container or virtual machine, or remake the lock for this system with make lock."
    elif grep -qiE 'from versions: none|dns|resolve host|connect|timed? ?out|unreachable|network|error sending request|failed to (fetch|download)' "$log.step"; then
        die "$1: the package index can't be reached." \
            "Check the network; behind a proxy set HTTPS_PROXY, with a mirror set UV_DEFAULT_INDEX (uv) and PIP_INDEX_URL (pip)."
    elif grep -qiE 'permission denied|os error 13|read-only' "$log.step"; then
        die "$1: a folder can't be written." "Make $root and $cache writable, or set UV_CACHE_DIR to one that is."
    fi
    die "$1." "The whole output is in $log"
}

have() { command -v "$1" >/dev/null 2>&1; }

works() { "$@" >/dev/null 2>&1 </dev/null; }

fingerprint() { # POSIX cksum is on every system; the place counts because scripts in .venv hold absolute paths
    { echo "$root"; cat requirements.txt pyproject.toml scripts/setup.sh; } | cksum
}

gmt_is_recent() { # GMT 6.4 or later
    local version
    version=$(gmt --version 2>/dev/null | sed 's/[^0-9.].*//') || return 1
    [[ -n $version && "$(printf '%s\n' $oldest_gmt "$version" | sort -V | head -n 1)" == "$oldest_gmt" ]]
}

python_can_install() { works python3 -c 'import venv, ensurepip' || works python3 -m pip --version; }

find_uv() { # sets uv, without installing anything
    uv=
    if works uv --version; then
        uv=$(command -v uv)
    elif works "$tools/uv/bin/uv" --version; then
        uv=$root/$tools/uv/bin/uv
    fi
    [[ -n $uv ]]
}

system_packages() { # the Debian packages that are missing, for what is asked: gmt, postgresql, chromium or nothing
    local packages=()
    if [[ ${1:-} == gmt ]]; then
        have gmt || packages+=(gmt libgmt-dev)
        have gs || packages+=(ghostscript)
    fi
    if [[ ${1:-} == postgresql ]]; then
        scripts/postgres.sh where >/dev/null 2>&1 || packages+=(postgresql)
        echo "${packages[*]}"
        return
    fi
    if [[ ${1:-} == chromium ]]; then
        # Where the test looks for it: a Chromium of another kind may not bear Playwright's options.
        [[ -x /usr/bin/chromium ]] || packages+=(chromium)
        echo "${packages[*]}"
        return
    fi
    find_uv || python_can_install || packages+=(python3-venv ca-certificates)
    echo "${packages[*]}"
}

install_system_packages() {
    local packages
    packages=$(system_packages "$@")
    [[ -z $packages ]] && return
    local by_hand=() as_root=()
    if [[ $packages == *gmt* || $packages == *ghostscript* ]]; then
        by_hand+=("macOS: brew install gmt ghostscript")
        by_hand+=("Without administrator's rights: conda install -c conda-forge 'gmt>=$oldest_gmt' ghostscript, in an active environment.")
    fi
    if [[ $packages == *postgresql* ]]; then
        by_hand+=("macOS: brew install postgresql")
    fi
    if [[ $packages == *python3-venv* ]]; then
        by_hand+=("Or install uv by hand (https://docs.astral.sh/uv) and put it on PATH.")
    fi
    have apt-get || die "missing here: $packages (names of Debian's packages), and there is no apt-get to install them." "${by_hand[@]}"
    by_hand=("As administrator: apt-get install $packages" "${by_hand[@]}")
    if [[ $(id -u) != 0 ]]; then
        have sudo || die "missing here: $packages; installing them needs root or sudo." "${by_hand[@]}"
        # Without a terminal nobody can type a password: fail rather than hang.
        sudo -n true 2>/dev/null || { [[ -t 0 && -z ${CI:-} ]] && sudo -v; } ||
            die "missing here: $packages; sudo refuses this account." "${by_hand[@]}"
        as_root=(sudo)
    fi
    say "installing $packages from the system's packages"
    local apt=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300)
    # A stale list of one source must not stop packages of another: the installation decides.
    logged "${apt[@]}" update || true
    # shellcheck disable=SC2086
    logged "${apt[@]}" install --no-install-recommends $packages ||
        { tail -n 12 "$log.step" | sed 's/^/       | /' >&2; die "apt-get could not install $packages." "${by_hand[@]}"; }
}

install_uv() { # sets uv; from PyPI into a folder of its own if it is not on PATH
    find_uv && return
    say "installing uv from PyPI"
    rm -rf "$tools/uv"
    if works python3 -c 'import venv, ensurepip' && logged python3 -m venv "$tools/uv"; then
        logged "$tools/uv/bin/python" -m pip install -q --disable-pip-version-check uv || explain "uv could not be installed"
    elif works python3 -m pip --version; then
        logged python3 -m pip install -q --disable-pip-version-check --target "$tools/uv" uv || explain "uv could not be installed"
    else
        die "python3 here has neither venv nor pip." "As administrator: apt-get install python3-venv" \
            "Or install uv by hand (https://docs.astral.sh/uv) and put it on PATH."
    fi
    find_uv || die "uv was installed into $tools/uv but does not run." "Install uv by hand (https://docs.astral.sh/uv) and put it on PATH."
}

check_gmt() {
    gmt_is_recent || die "GMT $(gmt --version 2>/dev/null || echo '(none)') is on PATH, $oldest_gmt or later is needed." \
        "conda install -c conda-forge 'gmt>=$oldest_gmt' ghostscript, in an active environment; or a newer release of the system."
}

check_disk() {
    local free
    free=$(df -Pm . | awk 'NR == 2 {print $4}')
    ((free >= needed_megabytes)) || die "$free MB are free in $root, the packages need about $needed_megabytes MB." "Free some space, then run make setup again."
}

is_ours() { # .venv is a Python 3.11 that was made at this place
    works .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' &&
        { [[ ! -f $stamp.place ]] || [[ $(<"$stamp.place") == "$root" ]]; }
}

make_environment() {
    if ! is_ours; then
        [[ -d .venv ]] || check_disk
        rm -rf .venv
        say "making a Python 3.11 environment in .venv"
        logged "$uv" venv -q --python 3.11 --python-preference system .venv || explain "there is no Python 3.11 here and uv could not fetch one"
        echo "$root" >"$stamp.place"
    fi
    rm -f "$stamp"
    say "installing the packages of requirements.txt (2.5 GB the first time)"
    logged "$uv" pip sync -q --python .venv/bin/python requirements.txt || explain "the locked packages could not be installed"
    logged "$uv" pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e . || explain "the project could not be installed"
    logged env TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python -c 'import tensorflow, pygmt' || explain "TensorFlow or PyGMT does not load"
}

# The system's certificates, where it has some, know the proxy of the house; uv's own do not.
[[ -n ${SSL_CERT_FILE:-} || ! -s /etc/ssl/certs/ca-certificates.crt ]] || export UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true

main() {
    mkdir -p "$tools" 2>/dev/null && [[ -w $tools ]] || die "$root can't be written." "Work on a copy in a folder of your own."
    if have flock; then # macOS has none; there two set-ups at once are the user's to avoid
        exec 9>"$tools/lock"
        flock -n 9 || { say "another set-up is running here, waiting for it"; flock 9; }
    fi
    if [[ ${1:-} == --uv ]]; then
        : >"$log"
        install_system_packages
        install_uv
        echo "$uv"
        return
    fi
    if [[ ${1:-} == --postgres ]]; then
        : >"$log"
        install_system_packages postgresql
        return
    fi
    if [[ ${1:-} == --browser ]]; then
        : >"$log"
        install_system_packages chromium
        return
    fi
    if [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" && -x .venv/bin/deepbedmap ]] && works .venv/bin/python -V && gmt_is_recent && have gs; then
        return
    fi
    : >"$log"
    install_system_packages gmt
    check_gmt
    install_uv
    make_environment
    fingerprint >"$stamp"
    say "done"
}

main "$@"
