# Starts the servers as their systemd units do: sourced by scripts/deployment, which see. What is read is what is shipped:
# ExecStart=, EnvironmentFile=, Environment=, StateDirectory=, LogsDirectory= and LimitNOFILE= of scripts/systemd/*.service,
# and the sample environment files. Only the two addresses, the database and the directories are others.
#
# Before: $dir (a directory), $sipbox (the binary), $address (for phones, browsers and media), $inside (between the servers),
# and $overrides, an array of NAME=VALUE that win over the files. After: $pids and $names, and in $dir: NAME.ready, NAME.log.

# What the sample files say, and is replaced.
SAMPLE_ADDRESS=192.0.2.10
SAMPLE_INSIDE=127.0.0.1

pids=() names=()

# unit_values NAME KEY: every value of this key in a unit, a line each.
unit_values() { sed -n "s/^$2=//p" "scripts/systemd/sipbox-$1.service"; }

# environment_of FILE: its assignments, as systemd reads them, with the addresses and directories of this run.
environment_of() {
  local line name value
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in '' | '#'* | ';'*) continue ;; esac
    name=${line%%=*} value=${line#*=}
    case $value in
    \"*\") value=${value#\"} value=${value%\"} ;;
    \'*\') value=${value#\'} value=${value%\'} ;;
    esac
    value=${value//$SAMPLE_ADDRESS/$address}
    value=${value//$SAMPLE_INSIDE/$inside}
    value=${value//\/var\/lib\//$dir/lib/}
    value=${value//\/var\/log\//$dir/log/}
    printf '%s=%s\n' "$name" "$value"
  done <"$1"
}

# start_process NAME COMMAND...: in the background, with its ready line in $dir/NAME.ready and its log in $dir/NAME.log.
start_process() {
  local name=$1 pid
  shift
  # However this script ends, what it started ends with it.
  setpriv --pdeathsig TERM -- "$@" >"$dir/$name.out" 2>"$dir/$name.log" </dev/null &
  pid=$!
  pids+=("$pid") names+=("$name")
  for _ in $(seq 200); do
    if [ -s "$dir/$name.out" ]; then
      head -n 1 "$dir/$name.out" >"$dir/$name.ready"
      return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  cat "$dir/$name.log" >&2
  fail 69 "$name did not start"
}

# start_unit NAME: the server of scripts/systemd/sipbox-NAME.service.
start_unit() {
  local name=$1 line words file environment=() state logs program limit
  while read -r file; do
    while IFS= read -r line; do environment+=("$line"); done < <(environment_of "scripts/etc/${file##*/}")
  done < <(unit_values "$name" EnvironmentFile)
  state=$dir/lib/$(unit_values "$name" StateDirectory) logs=$dir/log/$(unit_values "$name" LogsDirectory)
  mkdir -p "$state" "$logs"
  chmod 700 "$state"
  environment+=("STATE_DIRECTORY=$state" "LOGS_DIRECTORY=$logs" "PATH=$PATH" ${overrides[@]+"${overrides[@]}"})
  read -ra words < <(unit_values "$name" ExecStart)
  # By a link with the name that the unit calls, wherever it is.
  program=$dir/bin/${words[0]##*/}
  mkdir -p "$dir/bin"
  ln -sfn "$sipbox" "$program"
  limit=$(unit_values "$name" LimitNOFILE)
  # A service begins with an empty environment, in the root directory.
  start_process "$name" env -i -C / "${environment[@]}" bash -c 'ulimit -Sn "$0" 2>/dev/null; exec "$@"' \
    "$limit" "$program" "${words[@]:1}"
}

# listens NAME [SCHEME]: its addresses with the real ports, or that of one scheme.
listens() {
  if [ $# -gt 1 ]; then
    sed -n "s/.*\"$2:\([^\"]*\)\".*/\1/p" "$dir/$1.ready"
  else
    sed -n 's/.*"listen":\[\([^]]*\)\].*/\1/p' "$dir/$1.ready" | tr -d '"' | sed 's/,/ /g'
  fi
}

# stop_all: the latest first, each with SIGTERM, and SIGKILL after the drain. Only what was started here, by its process id.
stop_all() {
  local at pid
  for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
    pid=${pids[at]}
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
  pids=()
}
