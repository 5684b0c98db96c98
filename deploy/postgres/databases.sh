#!/bin/sh
# Two databases with an owner each; neither can read the other. Postgres runs it once, in an empty volume.
set -eu
for name in airflow mlflow; do
  case $name in airflow) password=$AIRFLOW_DB_PASSWORD ;; mlflow) password=$MLFLOW_DB_PASSWORD ;; esac
  psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$name" --set password="$password" <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name" encoding 'UTF8' template template0;
revoke all on database :"name" from public;
SQL
done
