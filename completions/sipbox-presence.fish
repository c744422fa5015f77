# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sipbox_presence_global_optspecs
    string join \n listen= advertise= local-net= dscp= domain= edge= secret-file= db= tls-cert= tls-key= tls-self-signed tls-min= tls-ca= tls-verify= events= hep= metrics= rate-limit= drain= log= v/verbose q/quiet dns= tls-insecure workers= auth= min-expires= max-expires= h/help
end

function __fish_sipbox_presence_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sipbox_presence_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sipbox_presence_using_subcommand
    set -l cmd (__fish_sipbox_presence_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l dns -d 'A DNS server, ADDRESS or ADDRESS:PORT [default: the system\'s]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l auth -d 'Whether passwords are asked for; never of --edge, where they were asked for already' -r -f -a "digest\t''
none\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l min-expires -d 'Refuse shorter subscriptions and publications with 423' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l max-expires -d 'Shorten longer ones' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -s v -l verbose -d 'Log each decision'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -l tls-insecure -d 'Where we connect by TLS, ask no server who it is; for a try'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -f -a "serve" -d 'Serve (the same as without a word)'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -f -a "list" -d 'Print live subscriptions and publications, one JSON object a line'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -f -a "publish" -d 'Say by hand that somebody is there, or is not; for its time, beside what his phones say'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -f -a "watch" -d 'Watch somebody, and print each state, one JSON object a line, until it is stopped'
complete -c sipbox-presence -n "__fish_sipbox_presence_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l edge -d 'A network of our own wsgw and proxies: believed about the client\'s address, and still asked for passwords' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l rate-limit -d 'Ban for 300 seconds who sends more requests than N in SECONDS, or "off"; 64 times as many where one was served; each worker counts for itself' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l dns -d 'A DNS server, ADDRESS or ADDRESS:PORT [default: the system\'s]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l auth -d 'Whether passwords are asked for; never of --edge, where they were asked for already' -r -f -a "digest\t''
none\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l min-expires -d 'Refuse shorter subscriptions and publications with 423' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l max-expires -d 'Shorten longer ones' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -l tls-insecure -d 'Where we connect by TLS, ask no server who it is; for a try'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand list" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand list" -s h -l help -d 'Print help'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand publish" -l note -d 'Words that his watchers read' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand publish" -l expires -d 'How long it holds; 0 takes back what was said before' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand publish" -l db -d 'sqlite:PATH, made if missing, or mysql://USER:PASSWORD@HOST:PORT/DATABASE, with ?ssl-ca=PATH for TLS or ?socket=PATH; better in the environment than on the command line, where everybody sees the password [default: sipbox.db in the state directory]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand publish" -s h -l help -d 'Print help'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand watch" -l user -d 'Who watches: USER@DOMAIN' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand watch" -l server -d 'The proxy or presence server, HOST[:PORT], by UDP [default: the host of the URI]' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand watch" -l event -d 'What to watch' -r -f -a "presence\t''
dialog\t''"
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand watch" -l expires -d 'How long a subscription is asked for; it is refreshed before' -r
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand watch" -l password-stdin -d 'Read the password from standard input, up to its first line end'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand watch" -s h -l help -d 'Print help'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand help; and not __fish_seen_subcommand_from serve list publish watch help" -f -a "serve" -d 'Serve (the same as without a word)'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand help; and not __fish_seen_subcommand_from serve list publish watch help" -f -a "list" -d 'Print live subscriptions and publications, one JSON object a line'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand help; and not __fish_seen_subcommand_from serve list publish watch help" -f -a "publish" -d 'Say by hand that somebody is there, or is not; for its time, beside what his phones say'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand help; and not __fish_seen_subcommand_from serve list publish watch help" -f -a "watch" -d 'Watch somebody, and print each state, one JSON object a line, until it is stopped'
complete -c sipbox-presence -n "__fish_sipbox_presence_using_subcommand help; and not __fish_seen_subcommand_from serve list publish watch help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
