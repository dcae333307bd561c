#!/usr/bin/env bash
# A PostgreSQL server of one's own for tests and for trying things out: a folder of its own, loopback only, no user but
# the one whose password is given. Nothing of a server that the system runs is touched.
#
#   PGPASSWORD=... scripts/postgres.sh start FOLDER   print the port; the user is deepbedmap, with databases of that
#                                                     user to be made: createdb -h 127.0.0.1 -p PORT -U deepbedmap NAME
#   scripts/postgres.sh stop FOLDER                   stop it and remove FOLDER
#   scripts/postgres.sh where                         print the folder of the server's programs
set -euo pipefail

die() {
    echo "postgres: $1" >&2
    exit 1
}

programs() { # initdb and pg_ctl are not on PATH on Debian, where several versions live side by side
    local found
    for found in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin; do
        [[ -x $found/initdb ]] && echo "$found"
    done | sort -V | tail -n 1
    command -v initdb >/dev/null 2>&1 && dirname "$(readlink -f "$(command -v initdb)")"
    return 0
}

bin=$(programs | head -n 1)
[[ -n $bin ]] || die "no server is installed; as administrator: apt-get install postgresql (make test-postgres does so)"

unprivileged() { # the server refuses to run as root
    if [[ $(id -u) == 0 ]]; then
        runuser -u postgres -- env -u PGPASSWORD "$@"
    else
        env -u PGPASSWORD "$@"
    fi
}

start() {
    local folder=$1 port tries
    [[ -n ${PGPASSWORD:-} ]] || die "set PGPASSWORD to the password that the new server shall have"
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    [[ ! -e $folder/data ]] || die "$folder holds a server already"
    # In a file that only its reader may read, for the moment that initdb needs it: arguments are for all to see.
    (umask 077 && printf '%s\n' "$PGPASSWORD" >"$folder/password")
    [[ $(id -u) != 0 ]] || chown -R postgres "$folder"
    unprivileged "$bin/initdb" -D "$folder/data" -U deepbedmap -A scram-sha-256 --pwfile="$folder/password" \
        -E UTF8 --locale=C --no-sync >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2; die "initdb failed"; }
    rm -f "$folder/password"
    for tries in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 30000))
        if unprivileged "$bin/pg_ctl" -D "$folder/data" -w -t 60 -l "$folder/log" \
            -o "-p $port -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories=" start >/dev/null 2>&1; then
            echo "$port"
            return
        fi
    done
    cat "$folder/log" >&2
    die "the server did not start in $tries tries"
}

stop() {
    local folder=$1
    [[ -d $folder/data ]] || die "$folder holds no server"
    unprivileged "$bin/pg_ctl" -D "$(cd "$folder" && pwd)/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}

case ${1:-} in
    start) start "${2:?folder}" ;;
    stop) stop "${2:?folder}" ;;
    where) echo "$bin" ;;
    *) die "expected start FOLDER, stop FOLDER or where" ;;
esac
