# Shared by the scripts beside this folder: what they say, how they fail, what must be installed. Sourced, not run.

# say TEXT: one line to whoever waits.
say() { printf '%s\n' "$*" >&2; }

# fail CODE TEXT: ends the script with an exit code of sysexits.h.
fail() {
  local code=$1
  shift
  say "$(basename "$0"): $*"
  exit "$code"
}

# packages PROGRAM=PACKAGE...: installs by apt the packages whose program is not there; PACKAGE alone: where dpkg does
# not know it. apt shows its own progress.
packages() {
  local word program package missing=()
  for word in "$@"; do
    program=${word%%=*} package=${word#*=}
    if [[ $word != *=* ]]; then
      dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    else
      PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]} …"
  command -v apt-get >/dev/null || fail 69 "no apt-get here; please install: ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail 71 "not root; please install: ${missing[*]} (apt-get install ${missing[*]})"
  # The lists may be old or absent: they are fetched only where the first try fails.
  (
    export DEBIAN_FRONTEND=noninteractive
    # Debian starts a server that it installs; tests start their own. Where nobody set a policy, this one says no meanwhile.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap 'rm -f $policy' EXIT
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod 755 $policy
    fi
    apt-get install -y --no-install-recommends "${missing[@]}" >&2 ||
      { apt-get update >&2 && apt-get install -y --no-install-recommends "${missing[@]}" >&2; }
  ) || fail 69 "apt-get could not install ${missing[*]}"
}

# rust: finds cargo, also right after rustup's installation, before a new login.
rust() {
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null || fail 69 "no cargo; Rust comes from https://rustup.rs"
}
