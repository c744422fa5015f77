complete -c sipbox-proxy -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox-proxy -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox-proxy -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox-proxy -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox-proxy -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox-proxy -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox-proxy -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox-proxy -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox-proxy -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox-proxy -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox-proxy -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox-proxy -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox-proxy -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox-proxy -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-proxy -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox-proxy -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox-proxy -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox-proxy -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-proxy -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-proxy -l workers -d 'Threads that work on SIP, each on calls and users of its own; one carries thousands of calls a second' -r
complete -c sipbox-proxy -l dns -d 'A DNS server, ADDRESS or ADDRESS:PORT [default: the system\'s]' -r
complete -c sipbox-proxy -l registrar -d 'Where REGISTER goes' -r
complete -c sipbox-proxy -l presence -d 'Where SUBSCRIBE and PUBLISH go [default: nowhere, they get 404]' -r
complete -c sipbox-proxy -l relay -d 'An ng media relay, udp:HOST:PORT; several share the calls, and each call stays on its own' -r
complete -c sipbox-proxy -l relay-policy -d 'When media go through a relay: auto is all but SIP to SIP without NAT' -r -f -a "auto\t''
always\t''
never\t''"
complete -c sipbox-proxy -l auth -d 'How whoever claims a From of ours proves it' -r -f -a "digest\t''
none\t''"
complete -c sipbox-proxy -l trust -d 'A network that needs no password, and may call anywhere (trunks)' -r
complete -c sipbox-proxy -l route -d 'Where requests for other domains go: PATTERN is a host, *.SUFFIX or *' -r
complete -c sipbox-proxy -l fork -d 'How the phones of one user ring' -r -f -a "parallel\t''
serial\t''
none\t''"
complete -c sipbox-proxy -l ring-timeout -d 'How long a phone may ring' -r
complete -c sipbox-proxy -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox-proxy -s v -l verbose -d 'Log each decision'
complete -c sipbox-proxy -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-proxy -l tls-insecure -d 'Where we connect by TLS, ask no server who it is; for a try'
complete -c sipbox-proxy -s h -l help -d 'Print help (see more with \'--help\')'
