# What a page's script is made of: the terminals of somebody who follows the page. Says on descriptor 3 what happens, a line each:
# "begin LINE", "end LINE", "fail LINE AT WHAT", and in the end "done". What LINE's block said is in /walk/LINE.out.
#
# Commands share one terminal. Those that stay, servers, have another: there is one at a time, and it is ended by Ctrl-C.
exec </dev/null
set -eE -o pipefail
trap 'walk_trap "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND"' ERR
walk_line=0 walk_server=

walk_fail() { # WHAT [AT]
  trap - ERR
  printf 'fail %s %s %s\n' "$walk_line" "${2:-$walk_line}" "${1//$'\n'/ }" >&3
  exit 1
}

walk_trap() { # FILE AT COMMAND: of a block, which may have been asked to end
  if [ -e "/walk/$walk_line.ended" ]; then return; fi
  if [[ $1 == */terminals.sh ]]; then walk_fail "its last command"; else walk_fail "$3" "$2"; fi
}

walk() { # LINE
  walk_line=$1
  echo "begin $walk_line" >&3
  exec >"/walk/$walk_line.out" 2>&1
  . "/walk/$walk_line.sh"
  echo "end $walk_line" >&3
}

serve() { # LINE TEXT: walks a block that stays, until it has said TEXT
  end_server
  walk_line=$1
  echo "begin $walk_line" >&3
  set -m # a process group of its own, which Ctrl-C reaches
  (. "/walk/$walk_line.sh") >"/walk/$walk_line.out" 2>&1 &
  set +m
  walk_server=$! walk_served=$walk_line
  until has_said "$2"; do
    kill -0 "$walk_server" 2>/dev/null || has_said "$2" || walk_fail "ended before it said \"$2\""
    sleep 0.1
  done
  echo "end $walk_line" >&3
}

has_said() { # TEXT
  grep -qF -- "$1" "/walk/$walk_line.out"
}

beside_server() { # LINE: of the block that is to be walked while a server runs
  if [ -n "$walk_server" ]; then return; fi
  echo 'reprise serve' >"/walk/$1-server.sh"
  serve "$1-server" 'is ready'
}

end_server() {
  if [ -z "$walk_server" ]; then return; fi
  walk_line=$walk_served
  touch "/walk/$walk_line.ended"
  kill -INT -- "-$walk_server" 2>/dev/null || walk_fail "ended by itself"
  for _ in {1..300}; do
    if ! kill -0 -- "-$walk_server" 2>/dev/null; then walk_server= && return; fi
    sleep 0.1
  done
  walk_fail "does not end within 30 s of Ctrl-C"
}

# Programs run twice, since what the first run has stored the second finds; and with what there is after the commands of the pages:
# the environment that docs/python.md makes, and the package that docs/library.md installs.

run_python() { # FOLDER
  local time
  for time in first second; do WALK_TIME=$time PYTHONPATH=/srv/python ~/my-engine/bin/python "$1/block.py"; done
}

run_typescript() { # FOLDER
  local time
  if [ ! -e node_modules/.bin/tsc ]; then npm install --save-dev $WALK_COMPILER; fi
  rm -rf walked && cp -r "$1" walked
  npx --no-install tsc -p walked
  for time in first second; do WALK_TIME=$time node walked/block.mjs; done
}
