# The SIP phone of scripts/demo and tests/composition.sh: Debian's baresip with PCMU, that answers every call and has a tone of
# 440 Hz as its microphone. Sourced, not run.

# start_phone DIR ADDRESS AOR PASSWORD PROXY: registers through the proxy; its output is DIR.log, its process id $phone_pid.
start_phone() {
  local dir=$1 address=$2 aor=$3 password=$4 proxy=$5
  mkdir -p "$dir"
  perl -e 'my $n = 8000 * 60; binmode STDOUT;
    print "RIFF", pack("V", 36 + 2 * $n), "WAVEfmt ", pack("VvvVVvv", 16, 1, 1, 8000, 16000, 2, 16), "data", pack("V", 2 * $n);
    print pack("s<*", map { int(8192 * sin(6.283185307179586 * 440 * $_ / 8000)) } 0 .. $n - 1);' >"$dir/tone.wav"
  cat >"$dir/config" <<TEXT
poll_method epoll
sip_listen $address:5060
net_interface $address
audio_source aufile,$dir/tone.wav
audio_player aubridge,nil
audio_alert aubridge,nil
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
audio_txmode thread
rtp_stats yes
statmode_default off
module_path /usr/lib/baresip/modules
module g711.so
module aufile.so
module aubridge.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen $address:4444
TEXT
  echo "<sip:$aor>;auth_pass=$password;outbound=\"sip:$proxy\";regint=60;audio_codecs=PCMU/8000/1;answermode=auto" >"$dir/accounts"
  : >"$dir/contacts"
  setpriv --pdeathsig TERM stdbuf -oL baresip -f "$dir" >"$dir.log" 2>&1 </dev/null &
  phone_pid=$!
}

# phone_do ADDRESS COMMAND PARAMETERS: by its ctrl_tcp module, JSON in a netstring.
phone_do() {
  local message="{\"command\":\"$2\",\"params\":\"$3\"}"
  exec 3<>"/dev/tcp/$1/4444"
  printf '%d:%s,' ${#message} "$message" >&3
  sleep 0.3
  exec 3>&-
}
