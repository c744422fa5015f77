# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sipbox_relay_global_optspecs
    string join \n control= control-allow= interface= port-range= timeout= silent-timeout= final-timeout= max-sessions= delete-delay= tos= sip-source endpoint-learning= workers= pidfile= without-meaning= events= drain= log= v/verbose q/quiet h/help
end

function __fish_sipbox_relay_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sipbox_relay_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sipbox_relay_using_subcommand
    set -l cmd (__fish_sipbox_relay_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l control -d 'Where ng requests come in, as bencode or JSON' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l control-allow -d 'A network that may ask; without it, whoever reaches --control' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l interface -d 'An address of this machine for media; before \'/\' its name for the ng key direction, after \'!\' what peers are told' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l port-range -d 'UDP ports for media, both included' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l timeout -d 'After so long without a packet a call has ended' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l silent-timeout -d 'The same for a call on hold' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l final-timeout -d 'After so long a call is ended in any case' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l max-sessions -d 'Calls at a time; a further offer is answered with \'load limit\'' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l delete-delay -d 'Between the reply to delete and the call\'s end, where the request does not say: late packets pass' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l tos -d 'What media packets are marked with, where the request does not say: IPv4\'s type of service, IPv6\'s traffic class (184 is expedited forwarding)' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l endpoint-learning -d 'Whether a plain leg\'s address is learned from its packets; \'off\' sends to the address in the SDP only' -r -f -a "off\t''
immediate\t'The first packets decide'
delayed\t'The same here'
heuristic\t'The same here'"
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l workers -d 'Media threads [default: the number of cores]' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l pidfile -d 'Write the process\'s number to a file' -r -F
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l without-meaning -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -l sip-source -d 'Look for each sender\'s media where its SIP came from, as if each request had the flag SIP-source-address'
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -s v -l verbose -d 'Log each decision'
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -f -a "serve" -d 'The same, said in full'
complete -c sipbox-relay -n "__fish_sipbox_relay_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l control -d 'Where ng requests come in, as bencode or JSON' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l control-allow -d 'A network that may ask; without it, whoever reaches --control' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l interface -d 'An address of this machine for media; before \'/\' its name for the ng key direction, after \'!\' what peers are told' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l port-range -d 'UDP ports for media, both included' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l timeout -d 'After so long without a packet a call has ended' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l silent-timeout -d 'The same for a call on hold' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l final-timeout -d 'After so long a call is ended in any case' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l max-sessions -d 'Calls at a time; a further offer is answered with \'load limit\'' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l delete-delay -d 'Between the reply to delete and the call\'s end, where the request does not say: late packets pass' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l tos -d 'What media packets are marked with, where the request does not say: IPv4\'s type of service, IPv6\'s traffic class (184 is expedited forwarding)' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l endpoint-learning -d 'Whether a plain leg\'s address is learned from its packets; \'off\' sends to the address in the SDP only' -r -f -a "off\t''
immediate\t'The first packets decide'
delayed\t'The same here'
heuristic\t'The same here'"
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l workers -d 'Media threads [default: the number of cores]' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l pidfile -d 'Write the process\'s number to a file' -r -F
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l without-meaning -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l events -d 'Write what happens as JSON lines to a file, or with \'-\' to standard output; SIGHUP reopens the file' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l drain -d 'How long what is under way may last after SIGTERM' -r
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l log -d 'How the log on standard error looks' -r -f -a "text\t''
json\t''
journal\t''"
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -l sip-source -d 'Look for each sender\'s media where its SIP came from, as if each request had the flag SIP-source-address'
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -s v -l verbose -d 'Log each decision'
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -s q -l quiet -d 'Log what somebody should look at; twice: only what ends the command'
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand help; and not __fish_seen_subcommand_from serve help" -f -a "serve" -d 'The same, said in full'
complete -c sipbox-relay -n "__fish_sipbox_relay_using_subcommand help; and not __fish_seen_subcommand_from serve help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
