#!/bin/sh
# What the official image promises: a cluster in $PGDATA, made with $POSTGRES_PASSWORD the first time, when the scripts of
# /docker-entrypoint-initdb.d run against a server that only answers on its socket. It listens on the network after that.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  # shellcheck disable=SC2086 - the arguments are several
  initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --no-sync --locale=C.UTF-8 $POSTGRES_INITDB_ARGS >/dev/null
  rm /tmp/password
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  pg_ctl --options="-c listen_addresses=''" --wait start
  for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
  pg_ctl --wait --mode=fast stop
fi
exec "$@" -c listen_addresses='*'
