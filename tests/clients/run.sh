#!/bin/sh
# Writes with InfluxDB's own Python clients and reads back through SQL.
#   tests/clients/run.sh path/to/highwater [folder for the Python environment]
set -eu
here=$(dirname "$0")
binary=${1:?usage: run.sh path/to/highwater [folder]}
environment=${2:-target/clients}
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
fi
"$environment/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
HIGHWATER="$binary" exec "$environment/bin/python" -m unittest discover --start-directory "$here" --pattern "*_client.py" --verbose
