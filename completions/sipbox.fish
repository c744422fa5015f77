# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sipbox_global_optspecs
    string join \n list h/help V/version
end

function __fish_sipbox_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sipbox_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sipbox_using_subcommand
    set -l cmd (__fish_sipbox_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sipbox -n "__fish_sipbox_needs_command" -l list -d 'List the commands, one a line'
complete -c sipbox -n "__fish_sipbox_needs_command" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_needs_command" -s V -l version -d 'Print version'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "registrar" -d 'Answer REGISTER, and keep who is reached where'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "proxy" -d 'Route calls between phones, browsers and trunks'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "wsgw" -d 'The edge for browsers: SIP over WebSocket on one side, plain SIP on the other'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "presence" -d 'Tell watchers who is there: SUBSCRIBE, PUBLISH, NOTIFY'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "relay" -d 'Forward media between phones and browsers, told how by the ng protocol'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "sdp-rewrite" -d 'Rewrite SDPs between SIP and WebRTC as the relay does'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "siptrace" -d 'Show the SIP in captures, or in what servers report by HEP'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "mos-report" -d 'Tell what calls sounded like, from captures, replies, events and logs'
complete -c sipbox -n "__fish_sipbox_needs_command" -f -a "generate" -d 'Write man pages or shell completions'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l workers -d 'Threads that work on SIP, each on calls and users of its own; one carries thousands of calls a second' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l realm -d 'Realm of the challenge [default: the domain of the address-of-record]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l auth -d 'Whether passwords are asked for' -r -f -a "digest\t''
none\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l min-expires -d 'Refuse shorter registrations with 423' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l max-expires -d 'Shorten longer registrations' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l default-expires -d 'For who asks for no time' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l max-contacts -d 'Of one address-of-record; the oldest makes room' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -f -a "serve" -d 'Serve (the same as without a word)'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -f -a "user" -d 'Users, and what their passwords are checked against'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -f -a "contacts" -d 'Print the live bindings, one JSON object a line'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and not __fish_seen_subcommand_from serve user contacts expire" -f -a "expire" -d 'Remove bindings'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l workers -d 'Threads that work on SIP, each on calls and users of its own; one carries thousands of calls a second' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l realm -d 'Realm of the challenge [default: the domain of the address-of-record]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l auth -d 'Whether passwords are asked for' -r -f -a "digest\t''
none\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l min-expires -d 'Refuse shorter registrations with 423' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l max-expires -d 'Shorten longer registrations' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l default-expires -d 'For who asks for no time' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l max-contacts -d 'Of one address-of-record; the oldest makes room' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from user" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from user" -f -a "add" -d 'Add a user'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from user" -f -a "passwd" -d 'Change a user\'s password'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from user" -f -a "del" -d 'Remove a user and his bindings'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from user" -f -a "list" -d 'Print the users, one JSON object a line'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from contacts" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from contacts" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from expire" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand registrar; and __fish_seen_subcommand_from expire" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l workers -d 'Threads that work on SIP, each on calls and users of its own; one carries thousands of calls a second' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l dns -d 'A DNS server, ADDRESS or ADDRESS:PORT [default: the system\'s]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l registrar -d 'Where REGISTER goes' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l presence -d 'Where SUBSCRIBE and PUBLISH go [default: nowhere, they get 404]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l relay -d 'An ng media relay, udp:HOST:PORT; several share the calls, and each call stays on its own' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l relay-policy -d 'When media go through a relay: auto is all but SIP to SIP without NAT' -r -f -a "auto\t''
always\t''
never\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l auth -d 'How whoever claims a From of ours proves it' -r -f -a "digest\t''
none\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l trust -d 'A network that needs no password, and may call anywhere (trunks)' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l route -d 'Where requests for other domains go: PATTERN is a host, *.SUFFIX or *' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l fork -d 'How the phones of one user ring' -r -f -a "parallel\t''
serial\t''
none\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l ring-timeout -d 'How long a phone may ring' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -l tls-insecure -d 'Where we connect by TLS, ask no server who it is; for a try'
complete -c sipbox -n "__fish_sipbox_using_subcommand proxy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l upstream -d 'The proxy that everything from browsers goes to: [tcp:|udp:]HOST[:PORT], or a sip: URI; TCP unless it says otherwise' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l sip-listen -d 'Where the upstream reaches us: tcp: or udp:, as the upstream has it [default: any port of the address that faces it]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l origin -d 'Allowed Origin of pages, with * for any characters [default: the page\'s own host]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l ping -d 'Pause between WebSocket pings; a browser that is silent for two is gone' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l max-connections -d 'Connections that may be open at a time' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l max-message -d 'Bytes of one message from a browser' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l web-root -d 'Serve the files of this directory on the same port' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -f -a "serve" -d 'Serve browsers; the same as without a word'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and not __fish_seen_subcommand_from serve probe" -f -a "probe" -d 'Be a browser: register over WebSocket, call or answer, and tell what was heard'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l upstream -d 'The proxy that everything from browsers goes to: [tcp:|udp:]HOST[:PORT], or a sip: URI; TCP unless it says otherwise' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l sip-listen -d 'Where the upstream reaches us: tcp: or udp:, as the upstream has it [default: any port of the address that faces it]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l origin -d 'Allowed Origin of pages, with * for any characters [default: the page\'s own host]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l ping -d 'Pause between WebSocket pings; a browser that is silent for two is gone' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l max-connections -d 'Connections that may be open at a time' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l max-message -d 'Bytes of one message from a browser' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l web-root -d 'Serve the files of this directory on the same port' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l user -d 'Who to register as: USER@DOMAIN' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l call -d 'Call USER@DOMAIN, or a SIP URI' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l seconds -d 'How long to talk' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l wait -d 'How long to wait for a call, or for the answer to ours' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l tone -d 'The tone that is sent' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l tls-ca -d 'The authority that signed the gateway\'s certificate, in PEM [default: those of the system]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l password-stdin -d 'Read the password from standard input, up to its first line end'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l answer -d 'Wait for a call and answer it'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -l tls-insecure -d 'Take any certificate'
complete -c sipbox -n "__fish_sipbox_using_subcommand wsgw; and __fish_seen_subcommand_from probe" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l dns -d 'A DNS server, ADDRESS or ADDRESS:PORT [default: the system\'s]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l auth -d 'Whether passwords are asked for; never of --edge, where they were asked for already' -r -f -a "digest\t''
none\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l min-expires -d 'Refuse shorter subscriptions and publications with 423' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l max-expires -d 'Shorten longer ones' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -l tls-insecure -d 'Where we connect by TLS, ask no server who it is; for a try'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -f -a "serve" -d 'Serve (the same as without a word)'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -f -a "list" -d 'Print live subscriptions and publications, one JSON object a line'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -f -a "publish" -d 'Say by hand that somebody is there, or is not; for its time, beside what his phones say'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and not __fish_seen_subcommand_from serve list publish watch" -f -a "watch" -d 'Watch somebody, and print each state, one JSON object a line, until it is stopped'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l dns -d 'A DNS server, ADDRESS or ADDRESS:PORT [default: the system\'s]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l auth -d 'Whether passwords are asked for; never of --edge, where they were asked for already' -r -f -a "digest\t''
none\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l min-expires -d 'Refuse shorter subscriptions and publications with 423' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l max-expires -d 'Shorten longer ones' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -l tls-insecure -d 'Where we connect by TLS, ask no server who it is; for a try'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from list" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from publish" -l note -d 'Words that his watchers read' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from publish" -l expires -d 'How long it holds; 0 takes back what was said before' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from publish" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from publish" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from watch" -l user -d 'Who watches: USER@DOMAIN' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from watch" -l server -d 'The proxy or presence server, HOST[:PORT], by UDP [default: the host of the URI]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from watch" -l event -d 'What to watch' -r -f -a "presence\t''
dialog\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from watch" -l expires -d 'How long a subscription is asked for; it is refreshed before' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from watch" -l password-stdin -d 'Read the password from standard input, up to its first line end'
complete -c sipbox -n "__fish_sipbox_using_subcommand presence; and __fish_seen_subcommand_from watch" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l control -d 'Where ng requests come in, as bencode or JSON' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l control-allow -d 'A network that may ask; without it, whoever reaches --control' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l interface -d 'An address of this machine for media; before \'/\' its name for the ng key direction, after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l port-range -d 'UDP ports for media, both included' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l timeout -d 'After so long without a packet a call has ended' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l silent-timeout -d 'The same for a call on hold' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l final-timeout -d 'After so long a call is ended in any case' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l max-sessions -d 'Calls at a time; a further offer is answered with \'load limit\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l delete-delay -d 'Between the reply to delete and the call\'s end, where the request does not say: late packets pass' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l tos -d 'What media packets are marked with, where the request does not say: IPv4\'s type of service, IPv6\'s traffic class (184 is expedited forwarding)' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l endpoint-learning -d 'Whether a plain leg\'s address is learned from its packets; \'off\' sends to the address in the SDP only' -r -f -a "off\t''
immediate\t'The first packets decide'
delayed\t'The same here'
heuristic\t'The same here'"
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l workers -d 'Media threads [default: the number of cores]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l pidfile -d 'Write the process\'s number to a file' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l without-meaning -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -l sip-source -d 'Look for each sender\'s media where its SIP came from, as if each request had the flag SIP-source-address'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and not __fish_seen_subcommand_from serve" -f -a "serve" -d 'The same, said in full'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l control -d 'Where ng requests come in, as bencode or JSON' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l control-allow -d 'A network that may ask; without it, whoever reaches --control' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l interface -d 'An address of this machine for media; before \'/\' its name for the ng key direction, after \'!\' what peers are told' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l port-range -d 'UDP ports for media, both included' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l timeout -d 'After so long without a packet a call has ended' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l silent-timeout -d 'The same for a call on hold' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l final-timeout -d 'After so long a call is ended in any case' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l max-sessions -d 'Calls at a time; a further offer is answered with \'load limit\'' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l delete-delay -d 'Between the reply to delete and the call\'s end, where the request does not say: late packets pass' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l tos -d 'What media packets are marked with, where the request does not say: IPv4\'s type of service, IPv6\'s traffic class (184 is expedited forwarding)' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l endpoint-learning -d 'Whether a plain leg\'s address is learned from its packets; \'off\' sends to the address in the SDP only' -r -f -a "off\t''
immediate\t'The first packets decide'
delayed\t'The same here'
heuristic\t'The same here'"
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l workers -d 'Media threads [default: the number of cores]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l pidfile -d 'Write the process\'s number to a file' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l without-meaning -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -l sip-source -d 'Look for each sender\'s media where its SIP came from, as if each request had the flag SIP-source-address'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox -n "__fish_sipbox_using_subcommand relay; and __fish_seen_subcommand_from serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l to -d 'Whom the result is for: sets the flags that the relay is given for him' -r -f -a "webrtc\t''
sip\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l ICE -d 'force, remove or default (force-relay and optional are as force)' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l DTLS -d 'off, passive, active or default' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l SDES -d 'off, nonew, pad, lifetime, static, only-SUITE, no-SUITE, order:SUITE;SUITE' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l transport-protocol -d 'RTP/AVP, RTP/AVPF, RTP/SAVP, RTP/SAVPF, UDP/TLS/RTP/SAVP or UDP/TLS/RTP/SAVPF' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l rtcp-mux -d 'offer, require, demux, accept, reject' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l flags -d 'Flags of ng, in place of those of --to: generate-mid, trust-address, strip-browser, codec-strip-opus …' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l replace -d 'origin, session-connection, username, session-name, SDP-version, origin-full, zero-address' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l answers -d 'The input is an answer to the SDP in this file' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l media-address -d 'The address of the relay that is put in; once for each address family' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l port -d 'The first RTP port of the relay; RTCP is on the next one, and so on for further m-lines' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l fingerprint -d 'The certificate\'s: \'sha-256 AB:CD:…\' [default: random]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l ufrag -d 'The ICE user fragment that is put in [default: random]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l pwd -d 'The ICE password that is put in [default: random]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l foundation -d 'The foundation of the ICE candidates that are put in [default: random]' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l seed -d 'Makes all that is random the same in each run' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l allow -d 'With --check: pass over this kind of finding, by the name in its brackets' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l pair -d 'Say what an offer and its answer negotiated, and what breaks the rules' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l diff -d 'Say what differs in meaning between two, whatever the order of their lines and what is drawn anew' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -s o -l output -d 'sdp or json: the SDP alone in that form, and without a flag that says how to rewrite it, as it is; text or json: how findings are written' -r -f -a "text\t'For people'
json\t''
sdp\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l check -d 'Say what is wrong, a line a finding, and rewrite nothing; --to and --answers tell what to judge it as'
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l anonymise -d 'Put other names, addresses, keys and tags in, the same for the same, and rewrite nothing'
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -l strict -d 'Stop at the first that is bad; else it is told, and the rest goes on'
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -s v -l verbose -d 'Say on standard error which lines were taken out for the receiver\'s sake'
complete -c sipbox -n "__fish_sipbox_using_subcommand sdp-rewrite" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l hep-listen -d 'Receive HEPv3 on udp:HOST:PORT, until SIGTERM' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -s w -l write -d 'Also keep what --hep-listen takes, as pcapng, for this command or Wireshark; added to what is there, SIGHUP opens it anew' -r -F
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -s o -l output -d 'What is written [default: list on a terminal, else json]' -r -f -a "list\t'A line a call, for people'
ladder\t'Who sent what to whom, call by call'
sip\t'The messages as they were, each with a right Content-Length'
sdp\t'The session descriptions, one after the other'
json\t'A JSON object a message'
calls\t'A JSON object a call'"
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l call-id -d 'Calls with this Call-ID' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l from -d 'Calls with a message whose From has this in its URI' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l to -d 'Calls with a message whose To has this in its URI' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l method -d 'Calls with a request of this method, or an answer to one' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l status -d 'Calls with such an answer: 486, 4xx, 400-499' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -l only -d 'Only the messages that fit, not their whole calls'
complete -c sipbox -n "__fish_sipbox_using_subcommand siptrace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand mos-report" -l model -d 'How to score' -r -f -a "legacy-2019\t'rtpengine\'s formula of April 2017 to March 2021'
g107\t'The E-model of ITU-T G.107; g107-lq where no delay is known'"
complete -c sipbox -n "__fish_sipbox_using_subcommand mos-report" -s o -l output -d 'What is written [default: table on a terminal, else json]' -r -f -a "table\t''
json\t''
csv\t''"
complete -c sipbox -n "__fish_sipbox_using_subcommand mos-report" -l min-mos -d 'Exit with 1 if the average of any stream is below it' -r
complete -c sipbox -n "__fish_sipbox_using_subcommand mos-report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox -n "__fish_sipbox_using_subcommand generate; and not __fish_seen_subcommand_from man completions" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand generate; and not __fish_seen_subcommand_from man completions" -f -a "man" -d 'One man page a command: DIR/sipbox-COMMAND.1'
complete -c sipbox -n "__fish_sipbox_using_subcommand generate; and not __fish_seen_subcommand_from man completions" -f -a "completions" -d 'For bash, zsh and fish, under sipbox and each sipbox-COMMAND'
complete -c sipbox -n "__fish_sipbox_using_subcommand generate; and __fish_seen_subcommand_from man" -s h -l help -d 'Print help'
complete -c sipbox -n "__fish_sipbox_using_subcommand generate; and __fish_seen_subcommand_from completions" -s h -l help -d 'Print help'
