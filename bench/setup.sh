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

# One line a peer: its name, then what pip installs. hiredis goes with everybody who uses redis-py,
# but the fastest of them competes without it, too, as pip installs it.
python_peers="
rq        rq==3.0.0 redis==8.1.0 hiredis==3.5.0
celery    celery==5.7.0 redis==8.1.0 hiredis==3.5.0 packaging
dramatiq  dramatiq==2.2.1 redis==8.1.0 hiredis==3.5.0
huey      huey==3.5.4 redis==8.1.0 hiredis==3.5.0
huey-plain huey==3.5.4 redis==8.1.0
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

node_peer="node-resque@9.7.1"

node_resque() {
    if ! command -v npm > /dev/null; then
        echo "node-resque: left out, for there is no npm" >&2
        return
    fi
    folder="$peers/node"
    if [ -f "$folder/requirements" ] && [ "$(cat "$folder/requirements")" = "$node_peer" ]; then
        return
    fi
    echo "$node_peer"
    rm -rf "$folder"
    mkdir -p "$folder"
    echo '{"private": true}' > "$folder/package.json"
    (cd "$folder" && npm install --no-package-lock --no-audit --no-fund --loglevel=error "$node_peer")
    echo "$node_peer" > "$folder/requirements"
}

sidekiq() {
    if [ -x /usr/bin/sidekiq ]; then
        return
    fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "sidekiq: left out; as root: apt-get install ruby-sidekiq" >&2
        return
    fi
    echo "sidekiq: ruby-sidekiq"
    apt-get install -y -q ruby-sidekiq > /dev/null || echo "sidekiq: left out, for apt-get failed" >&2
}

other_peers() { # the names asked for, or none for all
    case " ${*:-node-resque} " in *" node-resque "*) node_resque ;; esac
    case " ${*:-sidekiq} " in *" sidekiq "*) sidekiq ;; esac
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
