#!/usr/bin/env bash
# All eight commands together, as a site would pipe them: the deployment of scripts/deployment, a SIP phone (baresip) and a
# browser's stand-in (wsgw probe) that call each other both ways, watched by presence, traced by HEP, captured on the wire.
# Then siptrace, sdp-rewrite and mos-report are asked, each for what another one saw too: the answers must agree.
#
#   tests/composition.sh --binary FILE [--db URL] [--net N] [--dir DIR]
#
#   --db URL  a database for the deployment [default: SQLite in DIR]
#   --net N   use the addresses 127.43.N.* [default: 1]
#   --dir DIR keep everything there [default: a temporary directory, removed when all was well]
#
# Needs baresip-core, wireshark's dumpcap, jq. Everything that is waited for has a time.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib/common.sh
. scripts/lib/phone.sh

DOMAIN=example.com TALK=6
db=sqlite net=1 binary=target/debug/sipbox dir=
while [ $# -gt 0 ]; do
  case $1 in
  --db | --net | --binary | --dir) [ $# -gt 1 ] || fail 64 "$1 wants a value"; declare "${1#--}=$2"; shift ;;
  *) fail 64 "unknown option $1" ;;
  esac
  shift
done
sipbox=$(realpath "$binary")
inside=127.43.$net.1 outside=127.43.$net.2 phone=127.43.$net.5
made=
[ -n "$dir" ] || { made=1; dir=$(mktemp -d "${TMPDIR:-/tmp}/sipbox-composition.XXXXXX"); }
mkdir -p "$dir"

pids=()
stop() { # stop PID SIGNAL: its exit code
  kill "-$2" "$1" 2>/dev/null || true
  for _ in $(seq 200); do kill -0 "$1" 2>/dev/null || break; sleep 0.1; done
  kill -9 "$1" 2>/dev/null || true
  wait "$1"
}
cleanup() {
  local status=$? at
  trap - EXIT INT TERM
  for ((at = ${#pids[@]} - 1; at >= 0; at--)); do stop "${pids[at]}" TERM || true; done
  if [ $status != 0 ]; then say "kept for a look: $dir"; elif [ -n "$made" ]; then rm -rf "$dir"; fi
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# waits SECONDS WHAT COMMAND...: until the command succeeds.
waits() {
  local seconds=$1 what=$2
  shift 2
  for _ in $(seq $((seconds * 10))); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  for log in "$dir"/*.log "$dir"/deployment/*.log; do [ ! -s "$log" ] || { say "--- $log"; tail -n 20 "$log" >&2; }; done
  fail 1 "$what: not within $seconds s"
}
# is WHAT FOUND WANTED
is() { [ "$2" = "$3" ] || fail 1 "$1: found $2, wanted $3"; say "  $1: $2"; }
# holds WHAT JQ-CONDITION FILE...: of all lines of the files together, as one array.
holds() {
  local what=$1 condition=$2
  shift 2
  jq -es "$condition" "$@" >/dev/null || { jq -cs . "$@" | cut -c 1-2000 >&2; fail 1 "$what: not $condition"; }
  say "  $what"
}

say "registrar, proxy, wsgw, relay, presence and siptrace, as their units start them"
setpriv --pdeathsig TERM scripts/deployment --binary "$sipbox" --dir "$dir/deployment" --db "$db" --inside "$inside" --address "$outside" \
  --domain $DOMAIN >"$dir/deployment.out" 2>"$dir/deployment.log" </dev/null &
deployment=$!
pids+=("$deployment")
waits 60 "the deployment" grep -q "The deployment runs" "$dir/deployment.out"
url=$db
[ "$db" != sqlite ] || url=sqlite:$dir/deployment/lib/sipbox/sipbox.db
for user in alice bob carol; do
  echo "$user-password" | "$sipbox" registrar user add "$user@$DOMAIN" --password-stdin --db "$url" >/dev/null
done
is "users" "$("$sipbox" registrar user list --db "$url" | jq -s length)" 3

setpriv --pdeathsig TERM dumpcap -q -i lo -B 16 -f "udp and host $outside" -w "$dir/wire.pcapng" >"$dir/dumpcap.log" 2>&1 </dev/null &
dumpcap=$!
pids+=("$dumpcap")
waits 20 "dumpcap" test -s "$dir/wire.pcapng"

for user in alice bob; do
  echo carol-password | setpriv --pdeathsig TERM "$sipbox" presence watch "sip:$user@$DOMAIN" --user "carol@$DOMAIN" --password-stdin \
    --server "$outside:5060" >"$dir/$user.watch" 2>"$dir/$user.watch.log" &
  declare "watch_$user=$!"
  pids+=("$!")
  waits 10 "a first NOTIFY about $user" test -s "$dir/$user.watch"
done
# last USER STATE: the newest state is this one.
last() { [ "$(tail -n 1 "$dir/$1.watch" | jq -r .basic)" = "$2" ]; }

start_phone "$dir/baresip" "$phone" "alice@$DOMAIN" alice-password "$outside"
pids+=("$phone_pid")
waits 20 "the phone's registration" grep -q "200 OK" "$dir/baresip.log"
waits 10 "alice online" last alice open

# probe FILE ARGUMENT...
probe() {
  local file=$1
  shift
  echo bob-password | setpriv --pdeathsig TERM timeout 90 "$sipbox" wsgw probe "wss://$outside:8443/" --user "bob@$DOMAIN" --password-stdin \
    --tls-insecure --seconds $TALK "$@" >"$dir/$file.json" 2>"$dir/$file.log"
}

say "the phone calls the browser"
probe first --answer &
probe=$!
pids+=("$probe")
waits 20 "the browser's registration" grep -q "is registered" "$dir/first.log"
waits 10 "bob online" last bob open
phone_do "$phone" dial "sip:bob@$DOMAIN"
wait $probe || { cat "$dir/first.log" >&2; fail 1 "the first call"; }
waits 10 "bob offline" last bob closed

say "the browser calls the phone"
probe second --call "alice@$DOMAIN" &
probe=$!
pids+=("$probe")
wait $probe || { cat "$dir/second.log" >&2; fail 1 "the second call"; }
waits 10 "bob offline again" last bob closed
stop $phone_pid TERM || true
waits 10 "alice offline" last alice closed
for user in alice bob; do
  pid=watch_$user
  stop "${!pid}" TERM || fail 1 "presence watch of $user ended badly"
done
sleep 1
stop $dumpcap INT || fail 1 "dumpcap ended badly"
stop $deployment TERM || fail 1 "the deployment ended badly"

records=$dir/deployment/log trace=$dir/deployment/log/trace.pcapng

say "presence: both were seen to come and go"
seen() { jq -r 'select(.state == "active") | .basic' "$dir/$1.watch" | uniq | paste -sd' '; }
is "alice" "$(seen alice)" "closed open closed"
is "bob" "$(seen bob)" "closed open closed open closed"

say "siptrace: two calls, of whom with whom"
"$sipbox" siptrace -o calls --method INVITE "$trace" >"$dir/calls.jsonl"
is "calls" "$(jq -s length "$dir/calls.jsonl")" 2
is "from and to" "$(jq -r '"\(.from) \(.to)"' "$dir/calls.jsonl" | paste -sd' ')" \
  "sip:alice@$DOMAIN sip:bob@$DOMAIN sip:bob@$DOMAIN sip:alice@$DOMAIN"
holds "both were answered and ended" 'all(.[]; .status == 200 and .state == "ended")' "$dir/calls.jsonl"
ids=$(jq -r .call_id "$dir/calls.jsonl" | paste -sd' ')
for log in sipbox/proxy sipbox-relay/relay; do
  is "Call-IDs of ${log#*/} are the same" "$(jq -r 'select(.event == "call-end") | .call_id' "$records/$log.jsonl" | paste -sd' ')" "$ids"
done
# The proxy's copy and the wire's: every message to and from the phone, byte for byte, and none besides.
of_the_phone() {
  "$sipbox" siptrace -o json "$1" |
    jq -c --arg at "$phone:5060" 'select(.source == $at or .destination == $at) | [.source, .message]' | sort
}
of_the_phone "$trace" >"$dir/by-hep"
of_the_phone "$dir/wire.pcapng" >"$dir/by-wire"
[ "$(wc -l <"$dir/by-wire")" -ge 15 ] || fail 1 "hardly any SIP on the wire"
cmp "$dir/by-hep" "$dir/by-wire" || fail 1 "what the proxy reported is not what was on the wire"
say "  HEP tells what was on the wire: $(wc -l <"$dir/by-wire") messages of the phone"

say "sdp-rewrite: a pipe gives what the relay put into the calls"
# value FILE PREFIX: the rest of the first such line.
value() { sed -n "s/^$2\([^\r]*\)\r*$/\1/p" "$1" | head -n 1; }
# rewrites TO INPUT WANTED [OFFER]: with what the relay brought in WANTED, INPUT becomes WANTED.
rewrites() {
  local to=$1 input=$2 wanted=$3 words media
  media=$(value "$wanted" 'm=audio ')
  words=(--to "$to" --media-address "$(value "$wanted" 'c=IN IP4 ')" --port "${media%% *}"
    --transport-protocol "$(cut -d' ' -f2 <<<"$media")")
  [ $# = 3 ] || words+=(--answers "$4")
  if [ "$to" = webrtc ]; then
    words+=(--fingerprint "$(value "$wanted" a=fingerprint:)" --ufrag "$(value "$wanted" a=ice-ufrag:)"
      --pwd "$(value "$wanted" a=ice-pwd:)" --foundation "$(value "$wanted" a=candidate: | cut -d' ' -f1)")
  fi
  "$sipbox" sdp-rewrite "${words[@]}" <"$input" >"$dir/rewritten.sdp"
  cmp "$dir/rewritten.sdp" "$wanted" || { diff "$dir/rewritten.sdp" "$wanted" >&2; fail 1 "sdp-rewrite --to $to of $input"; }
  if cmp -s "$input" "$wanted"; then fail 1 "$input was not changed"; fi
}
number=0
for id in $ids; do
  number=$((number + 1))
  mkdir "$dir/sdp$number"
  # Each SDP once, in the order in which they went by: an offer, the relay's, an answer, the relay's.
  "$sipbox" siptrace -o sdp --call-id "$id" "$trace" | awk -v dir="$dir/sdp$number" '
    function done() {
      if (text != "" && !(text in seen)) { seen[text] = 1; file = dir "/" ++n; printf "%s", text >file; close(file) }
      text = ""
    }
    /^v=0/ { done() } { text = text $0 "\n" } END { done() }'
  is "SDPs of call $number" "$(ls "$dir/sdp$number" | paste -sd' ')" "1 2 3 4"
done
for at in 1 2 3 4; do
  # The phone speaks in 1 and hears 4 of the first call; hears 2 and speaks in 3 of the second.
  case $at in 1 | 4) plain=$dir/sdp1/$at webrtc=$dir/sdp2/$at ;; *) plain=$dir/sdp2/$at webrtc=$dir/sdp1/$at ;; esac
  [[ $(value "$plain" 'm=audio ') == *' RTP/AVP '* ]] || fail 1 "$plain is no phone's"
  if grep -qE '^a=(fingerprint|candidate|ice-|setup)' "$plain"; then fail 1 "$plain has a browser's lines"; fi
  [[ $(value "$webrtc" 'm=audio ') == *RTP/SAVPF* ]] || fail 1 "$webrtc is no browser's"
  for line in fingerprint:sha-256 setup: ice-ufrag: ice-pwd: rtcp-mux; do
    grep -q "^a=$line" "$webrtc" || fail 1 "$webrtc has no $line"
  done
done
rewrites webrtc "$dir/sdp1/1" "$dir/sdp1/2"
rewrites sip "$dir/sdp1/3" "$dir/sdp1/4" "$dir/sdp1/1"
rewrites sip "$dir/sdp2/1" "$dir/sdp2/2"
rewrites webrtc "$dir/sdp2/3" "$dir/sdp2/4" "$dir/sdp2/1"
say "  four conversions, byte for byte"
# A pipe of all of them at once.
for to in sip webrtc; do
  [ $to = sip ] && profile=RTP/AVP || profile=RTP/SAVPF
  "$sipbox" siptrace -o sdp "$trace" | "$sipbox" sdp-rewrite --to $to --media-address 192.0.2.30 --port 40000 >"$dir/all-$to.sdp"
  is "all SDPs of the trace, --to $to" "$(grep -c "^m=audio 4[0-9]* $profile " "$dir/all-$to.sdp")" \
    "$("$sipbox" siptrace -o sdp "$trace" | grep -c ^m=audio)"
done

say "mos-report: what the calls sounded like, by the relay's records and by the wire"
report() { "$sipbox" mos-report -o json "$@" | jq -c 'del(.progression)'; }
report "$records/sipbox-relay/relay.jsonl" >"$dir/relay.mos"
report "$dir/wire.pcapng" >"$dir/wire.mos"
least=$((TALK * 50 * 9 / 10))
is "Call-IDs with a score" "$(jq -r .call_id "$dir/relay.mos" | uniq | paste -sd' ')" "$ids"
jq -c 'select(.packets != null)' "$dir/relay.mos" >"$dir/measured.mos"
holds "two streams a call, of $least packets or more, MOS 4 to 4.5" 'length == 4 and
  (group_by(.call_id) | all(.[]; length == 2)) and
  all(.[]; .packets >= '$least' and .mos >= 4 and .mos <= 4.5 and (.model | startswith("g107")) and .codec == "PCMU")' \
  "$dir/measured.mos"
# Toward the relay and from it: eight flows on the wire; none carried fewer packets than the relay counted of its source.
jq -s 'map(select(.packets >= '$least'))' "$dir/wire.mos" >"$dir/flows"
holds "eight flows on the wire, of the same sources, MOS 4 to 4.5" 'length == 8 and
  (map(.ssrc) | unique) == '"$(jq -cs 'map(.ssrc) | unique' "$dir/measured.mos")"' and all(.[]; .mos >= 4 and .mos <= 4.5)' \
  <(jq -c '.[]' "$dir/flows")
jq -r '"\(.ssrc) \(.packets)"' "$dir/measured.mos" | while read -r ssrc packets; do
  holds "source $ssrc: $packets packets" 'any(.[]; .ssrc == '"$ssrc and .packets >= $packets and .packets <= $packets + 25"')' "$dir/wire.mos"
done
holds "the relay counted what the browser says that it sent" 'map(.media.sent.packets) as $sent |
  '"$(jq -cs 'map(.packets)' "$dir/measured.mos")"' as $counted |
  all($sent[]; . as $one | any($counted[]; . <= $one and . >= $one * 0.98))' "$dir/first.json" "$dir/second.json"
"$sipbox" mos-report --min-mos 4 "$records/sipbox-relay/relay.jsonl" "$dir/wire.pcapng" >"$dir/good" || fail 1 "--min-mos 4: some row is below"
# The same calls with every fifth packet taken out must not pass.
tshark -r "$dir/wire.pcapng" -Y 'frame.number % 5 != 0' -w "$dir/thinned.pcapng" 2>"$dir/tshark.log"
status=0
"$sipbox" mos-report --min-mos 3.6 "$dir/thinned.pcapng" >"$dir/thinned" 2>"$dir/thinned.log" || status=$?
is "exit code for the same calls with a fifth of the packets lost" $status 1
holds "and their scores are low" 'map(select(.packets > 100)) | length == 8 and all(.[]; .mos < 3.6)' "$dir/thinned"

say "composition: all well"
