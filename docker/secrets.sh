#!/bin/sh
# Makes what compose.yaml takes as secrets: docker/secrets/NAME, one file each. A file that is there already is kept.
#
# The folder is closed to others; the files in it are not, because the containers read them as users of their own
# (Docker mounts the file as it is, owner and mode included).
set -eu
cd "$(dirname "$0")"
umask 022
mkdir -p secrets
chmod 0700 secrets

letters() { # N random bytes as letters, digits, - and _
    head -c "$1" /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'
}

keep_or_write() {
    [ -e "secrets/$1" ] && { echo "docker/secrets/$1 is kept"; return; }
    printf '%s\n' "$2" >"secrets/$1"
    echo "docker/secrets/$1 is new"
}

keep_or_write postgres_password "$(letters 24)"
keep_or_write redis_password "$(letters 24)"
keep_or_write flower_password "$(letters 24)"
keep_or_write api_first_key "bakeoff_$(od -An -v -tx1 -N16 /dev/urandom | tr -d ' \n')_$(letters 32)"
