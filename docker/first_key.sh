#!/bin/sh
# Put keys where the server and Prometheus look: service `first-key` of compose.yaml, once a start.
#
# With secrets ovoad_keys and ovoad_api_key these are copied. Without, the first start makes a key for
# Prometheus; it opens /metrics and at most one session at a time.
set -eu
umask 027

secrets=${SECRETS:-/run/secrets}
if [ -f "$secrets/ovoad_keys" ]; then
    cp "$secrets/ovoad_keys" "$OVOAD_KEYS_FILE.new"
    mv "$OVOAD_KEYS_FILE.new" "$OVOAD_KEYS_FILE"
    cp "$secrets/ovoad_api_key" "$METRICS_KEY_FILE.new"
    mv "$METRICS_KEY_FILE.new" "$METRICS_KEY_FILE"
elif [ ! -s "$METRICS_KEY_FILE" ]; then
    ovoad keys revoke prometheus >/dev/null 2>&1 || true # one whose text is lost
    ovoad keys add prometheus --sessions 1 >"$METRICS_KEY_FILE.new"
    mv "$METRICS_KEY_FILE.new" "$METRICS_KEY_FILE"
    echo "a key of your own: docker compose run --rm keys add NAME"
fi
