#!/bin/sh
# Replaces the service's replicas by as many with today's image and settings, and no request is refused meanwhile: the old
# ones stop when the new ones are healthy. If those don't become healthy they are removed, and the old ones stay.
#   docker/roll.sh                                                          after a change of .env, models/ or the image
#   docker/roll.sh -f docker-compose.yml -f docker-compose.gpu.yml          arguments go to docker compose
# ROLL_SECONDS is the time that the new ones have, 180 unless set. Interrupted, it removes the new ones, too.
set -eu

replicas() { docker compose "$@" ps --all --quiet service; }

old=$(replicas "$@")
[ -n "$old" ] || { echo 'error: there are no replicas to replace; docker compose up --wait makes the first' >&2; exit 1; }
number=$(echo "$old" | wc -l)

remove_new() {
    new=$(replicas "$@" | grep -vxF "$old" || true)
    # Unquoted, here and below: one word per container.
    [ -z "$new" ] || docker rm --force $new >/dev/null
}
trap 'trap - INT TERM HUP; remove_new "$@"; exit 130' INT TERM HUP

# Not --wait: it fails if an old replica is unwell, which may be why somebody rolls.
docker compose "$@" up --detach --no-deps --no-recreate --scale "service=$((2 * number))" service || true
new=$(replicas "$@" | grep -vxF "$old" || true)

# succeeds once all are healthy, fails as soon as one was started twice or the time is over
wait_for_health() {
    [ "$(echo "$new" | wc -w)" -eq "$number" ] || return 1
    until=$(($(date +%s) + ${ROLL_SECONDS:-180}))
    while [ "$(date +%s)" -lt "$until" ]; do
        states=$(docker inspect --format '{{.RestartCount}} {{.State.Health.Status}}' $new)
        echo "$states" | grep -qv '^0 ' && return 1
        echo "$states" | grep -qv ' healthy$' || return 0
        sleep 1
    done
    return 1
}

if ! wait_for_health "$@"; then
    echo 'error: the new replicas did not become healthy, the old ones stay; the last lines of their logs:' >&2
    for replica in $new; do
        docker logs --tail 3 "$replica" >&2
    done
    remove_new "$@"
    exit 1
fi
trap '' INT TERM HUP # from here on it is finished
docker stop $old >/dev/null
docker rm $old >/dev/null
