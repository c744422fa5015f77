# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sipbox_wsgw_global_optspecs
    string join \n listen= advertise= local-net= dscp= upstream= sip-listen= origin= ping= max-connections= max-message= web-root= domain= secret-file= tls-cert= tls-key= tls-self-signed tls-min= tls-ca= tls-verify= events= hep= metrics= workers= drain= log= v/verbose q/quiet h/help
end

function __fish_sipbox_wsgw_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sipbox_wsgw_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sipbox_wsgw_using_subcommand
    set -l cmd (__fish_sipbox_wsgw_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l upstream -d 'The proxy that everything from browsers goes to: [tcp:|udp:]HOST[:PORT], or a sip: URI; TCP unless it says otherwise' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l sip-listen -d 'Where the upstream reaches us: tcp: or udp:, as the upstream has it [default: any port of the address that faces it]' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l origin -d 'Allowed Origin of pages, with * for any characters [default: the page\'s own host]' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l ping -d 'Pause between WebSocket pings; a browser that is silent for two is gone' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l max-connections -d 'Connections that may be open at a time' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l max-message -d 'Bytes of one message from a browser' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l web-root -d 'Serve the files of this directory on the same port' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -s v -l verbose -d 'Log each decision'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -f -a "serve" -d 'Serve browsers; the same as without a word'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -f -a "probe" -d 'Be a browser: register over WebSocket, call or answer, and tell what was heard'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l listen -d 'TRANSPORT:HOST:PORT to serve on; IPv6 in brackets, port 0 for any free one; after \'!\' what peers are told' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l advertise -d 'What peers are told in place of the address, for every --listen without a \'!\'' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l local-net -d 'A network whose hosts are told the address itself, in place of what --advertise or \'!\' says' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l dscp -d 'The class of what is sent, for routers on the way: 0 to 63, as 24 for CS3 or 40 for CS5' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l upstream -d 'The proxy that everything from browsers goes to: [tcp:|udp:]HOST[:PORT], or a sip: URI; TCP unless it says otherwise' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l sip-listen -d 'Where the upstream reaches us: tcp: or udp:, as the upstream has it [default: any port of the address that faces it]' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l origin -d 'Allowed Origin of pages, with * for any characters [default: the page\'s own host]' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l ping -d 'Pause between WebSocket pings; a browser that is silent for two is gone' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l max-connections -d 'Connections that may be open at a time' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l max-message -d 'Bytes of one message from a browser' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l web-root -d 'Serve the files of this directory on the same port' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l domain -d 'A domain that it is responsible for' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l secret-file -d 'Keys that sign tokens and nonces: one a line, the first signs, all verify; made if missing [default: secrets in the state directory]' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l tls-cert -d 'Certificate chain in PEM; repeated for several names, each with its --tls-key in the same order' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l tls-key -d 'Private key in PEM' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l tls-min -d 'The oldest version of TLS that is spoken' -r -f -a "1.2\t''
1.3\t''"
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l tls-ca -d 'Authorities in PEM: of clients\' certificates, and, where we connect by TLS, of servers\' beside the system\'s' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l tls-verify -d 'Whether clients show a certificate' -r -f -a "none\t'They are not asked'
optional\t'Who shows one has it verified'
required\t'Who shows none gets no connection'"
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l hep -d 'Send a copy of every SIP message, received and sent, as HEPv3 to udp:HOST:PORT' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l metrics -d 'Serve what is counted at http://HOST:PORT/metrics for Prometheus, and /healthz and /readyz' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l workers -d 'Threads that share the connections, with their TLS and WebSocket; the first one works on all SIP' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -l tls-self-signed -d 'Make a certificate in the state directory, for a first try'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l user -d 'Who to register as: USER@DOMAIN' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l call -d 'Call USER@DOMAIN, or a SIP URI' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l seconds -d 'How long to talk' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l wait -d 'How long to wait for a call, or for the answer to ours' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l tone -d 'The tone that is sent' -r
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l tls-ca -d 'The authority that signed the gateway\'s certificate, in PEM [default: those of the system]' -r -F
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l password-stdin -d 'Read the password from standard input, up to its first line end'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l answer -d 'Wait for a call and answer it'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -l tls-insecure -d 'Take any certificate'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand probe" -s h -l help -d 'Print help'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand help; and not __fish_seen_subcommand_from serve probe help" -f -a "serve" -d 'Serve browsers; the same as without a word'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand help; and not __fish_seen_subcommand_from serve probe help" -f -a "probe" -d 'Be a browser: register over WebSocket, call or answer, and tell what was heard'
complete -c sipbox-wsgw -n "__fish_sipbox_wsgw_using_subcommand help; and not __fish_seen_subcommand_from serve probe help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
