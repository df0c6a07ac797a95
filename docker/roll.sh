#!/bin/sh
# Replaces the service's replicas by as many with today's image and settings, and no request is refused meanwhile: the old
# ones stop when the new ones are healthy. If those don't become healthy they are removed, and the old ones stay.
#   docker/roll.sh                                                          after a change of .env, models/ or the image
#   docker/roll.sh -f docker-compose.yml -f docker-compose.gpu.yml          arguments go to docker compose
# ROLL_SECONDS is the time that the new ones have, 180 unless set.
set -eu

replicas() { docker compose "$@" ps --all --quiet service; }

old=$(replicas "$@")
[ -n "$old" ] || { echo 'error: there are no replicas to replace; docker compose up --wait makes the first' >&2; exit 1; }
number=$(echo "$old" | wc -l)

# Each replica is asked as well: Compose 2.26 calls it a success if the time to wait was over.
failed=0
docker compose "$@" up --detach --wait --wait-timeout "${ROLL_SECONDS:-180}" --no-deps --no-recreate \
    --scale "service=$((2 * number))" service || failed=1
new=$(replicas "$@" | grep -vxF "$old" || true)
[ "$(echo "$new" | wc -w)" -eq "$number" ] || failed=1
for replica in $new; do
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$replica")" = healthy ] || failed=1
done

if [ $failed -eq 1 ]; then
    echo 'error: the new replicas did not become healthy, the old ones stay; the last lines of their logs:' >&2
    for replica in $new; do
        docker logs --tail 3 "$replica" >&2
        docker rm --force "$replica" >/dev/null
    done
    exit 1
fi
# Unquoted: one word per container.
docker stop $old >/dev/null
docker rm $old >/dev/null
