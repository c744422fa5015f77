complete -c sipbox-sdp-rewrite -l to -d 'Whom the result is for: sets the flags that the relay is given for him' -r -f -a "webrtc\t''
sip\t''"
complete -c sipbox-sdp-rewrite -l ICE -d 'force, remove or default (force-relay and optional are as force)' -r
complete -c sipbox-sdp-rewrite -l DTLS -d 'off, passive, active or default' -r
complete -c sipbox-sdp-rewrite -l SDES -d 'off, nonew, pad, lifetime, static, only-SUITE, no-SUITE, order:SUITE;SUITE' -r
complete -c sipbox-sdp-rewrite -l transport-protocol -d 'RTP/AVP, RTP/AVPF, RTP/SAVP, RTP/SAVPF, UDP/TLS/RTP/SAVP or UDP/TLS/RTP/SAVPF' -r
complete -c sipbox-sdp-rewrite -l rtcp-mux -d 'offer, require, demux, accept, reject' -r
complete -c sipbox-sdp-rewrite -l flags -d 'Flags of ng, in place of those of --to: generate-mid, trust-address, strip-browser, codec-strip-opus …' -r
complete -c sipbox-sdp-rewrite -l replace -d 'origin, session-connection, username, session-name, SDP-version, origin-full, zero-address' -r
complete -c sipbox-sdp-rewrite -l answers -d 'The input is an answer to the SDP in this file' -r -F
complete -c sipbox-sdp-rewrite -l media-address -d 'The address of the relay that is put in; once for each address family' -r
complete -c sipbox-sdp-rewrite -l port -d 'The first RTP port of the relay; RTCP is on the next one, and so on for further m-lines' -r
complete -c sipbox-sdp-rewrite -l fingerprint -d 'The certificate\'s: \'sha-256 AB:CD:…\' [default: random]' -r
complete -c sipbox-sdp-rewrite -l ufrag -d 'The ICE user fragment that is put in [default: random]' -r
complete -c sipbox-sdp-rewrite -l pwd -d 'The ICE password that is put in [default: random]' -r
complete -c sipbox-sdp-rewrite -l foundation -d 'The foundation of the ICE candidates that are put in [default: random]' -r
complete -c sipbox-sdp-rewrite -l seed -d 'Makes all that is random the same in each run' -r
complete -c sipbox-sdp-rewrite -l allow -d 'With --check: pass over this kind of finding, by the name in its brackets' -r
complete -c sipbox-sdp-rewrite -l pair -d 'Say what an offer and its answer negotiated, and what breaks the rules' -r -F
complete -c sipbox-sdp-rewrite -l diff -d 'Say what differs in meaning between two, whatever the order of their lines and what is drawn anew' -r -F
complete -c sipbox-sdp-rewrite -s o -l output -d 'sdp or json: the SDP alone in that form, and without a flag that says how to rewrite it, as it is; text or json: how findings are written' -r -f -a "text\t'For people'
json\t''
sdp\t''"
complete -c sipbox-sdp-rewrite -l check -d 'Say what is wrong, a line a finding, and rewrite nothing; --to and --answers tell what to judge it as'
complete -c sipbox-sdp-rewrite -l anonymise -d 'Put other names, addresses, keys and tags in, the same for the same, and rewrite nothing'
complete -c sipbox-sdp-rewrite -l strict -d 'Stop at the first that is bad; else it is told, and the rest goes on'
complete -c sipbox-sdp-rewrite -s v -l verbose -d 'Say on standard error which lines were taken out for the receiver\'s sake'
complete -c sipbox-sdp-rewrite -s h -l help -d 'Print help (see more with \'--help\')'
