#!/bin/sh
# Run once by the PostgreSQL image, when its data folder is new: AOS gets a role that is no superuser,
# a database of its own, and the extension only a superuser may create.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password AOS_DATABASE_PASSWORD
CREATE ROLE aos LOGIN PASSWORD :'password';
CREATE DATABASE aos OWNER aos;
\connect aos
CREATE EXTENSION vector;
SQL
