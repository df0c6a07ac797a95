#!/bin/sh
# What nginx's image does before it starts: fills the container's variables into /etc/nginx/templates/*.template.
set -eu
if [ -z "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ]; then echo 'docker-entrypoint.sh: filling in templates'; fi
names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p' | tr '\n' ' ')
for template in /etc/nginx/templates/*.template; do
    envsubst "$names" < "$template" > "${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}/$(basename "$template" .template)"
done
exec "$@"
