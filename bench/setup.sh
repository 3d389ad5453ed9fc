#!/bin/sh
# Install every peer at a pinned version, each into an environment of its own below bench/.peers/.
#
#     bench/setup.sh            all of them
#     bench/setup.sh huey rq    only these
#
# What is there at the pinned versions stays as it is. PYTHON names the interpreter (python3).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
peers="$here/.peers"
python="${PYTHON:-python3}"

# One line a peer: its name, then what pip installs. hiredis goes with everybody who uses redis-py.
python_peers="
rq        rq==3.0.0 redis==8.1.0 hiredis==3.5.0
celery    celery==5.7.0 redis==8.1.0 hiredis==3.5.0 packaging
dramatiq  dramatiq==2.2.1 redis==8.1.0 hiredis==3.5.0
huey      huey==3.5.4 redis==8.1.0 hiredis==3.5.0
arq       arq==0.28.0 hiredis==3.5.0
saq       saq==0.26.4 redis==7.4.1 hiredis==3.5.0 typing_extensions
taskiq    taskiq==0.13.0 taskiq-redis==1.2.4 redis==8.1.0 hiredis==3.5.0 uvloop
"

python_peer() { # NAME REQUIREMENT...
    name=$1
    shift
    stamp="$peers/$name/requirements"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$*" ]; then
        return
    fi
    echo "$name: $*"
    rm -rf "${peers:?}/$name"
    "$python" -m venv "$peers/$name"
    "$peers/$name/bin/pip" install -q --disable-pip-version-check "$@"
    echo "$*" > "$stamp"
}

other_peers() { # the names asked for, or none for all: node-resque by npm, Sidekiq by apt
    :
}

mkdir -p "$peers"
echo "$python_peers" | while read -r name requirements; do
    [ -n "$name" ] || continue
    case " ${*:-$name} " in
        # shellcheck disable=SC2086 # the requirements are words
        *" $name "*) python_peer "$name" $requirements ;;
    esac
done
other_peers "$@"
