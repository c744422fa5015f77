# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sipbox_generate_global_optspecs
    string join \n h/help
end

function __fish_sipbox_generate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sipbox_generate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sipbox_generate_using_subcommand
    set -l cmd (__fish_sipbox_generate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sipbox-generate -n "__fish_sipbox_generate_needs_command" -s h -l help -d 'Print help'
complete -c sipbox-generate -n "__fish_sipbox_generate_needs_command" -f -a "man" -d 'One man page a command: DIR/sipbox-COMMAND.1'
complete -c sipbox-generate -n "__fish_sipbox_generate_needs_command" -f -a "completions" -d 'For bash, zsh and fish, under sipbox and each sipbox-COMMAND'
complete -c sipbox-generate -n "__fish_sipbox_generate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sipbox-generate -n "__fish_sipbox_generate_using_subcommand man" -s h -l help -d 'Print help'
complete -c sipbox-generate -n "__fish_sipbox_generate_using_subcommand completions" -s h -l help -d 'Print help'
complete -c sipbox-generate -n "__fish_sipbox_generate_using_subcommand help; and not __fish_seen_subcommand_from man completions help" -f -a "man" -d 'One man page a command: DIR/sipbox-COMMAND.1'
complete -c sipbox-generate -n "__fish_sipbox_generate_using_subcommand help; and not __fish_seen_subcommand_from man completions help" -f -a "completions" -d 'For bash, zsh and fish, under sipbox and each sipbox-COMMAND'
complete -c sipbox-generate -n "__fish_sipbox_generate_using_subcommand help; and not __fish_seen_subcommand_from man completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
