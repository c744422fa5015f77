complete -c sipbox-siptrace -l hep-listen -d 'Receive HEPv3 on udp:HOST:PORT, until SIGTERM' -r
complete -c sipbox-siptrace -s w -l write -d 'Also keep what --hep-listen takes, as pcapng, for this command or Wireshark; added to what is there, SIGHUP opens it anew' -r -F
complete -c sipbox-siptrace -s o -l output -d 'What is written [default: list on a terminal, else json]' -r -f -a "list\t'A line a call, for people'
ladder\t'Who sent what to whom, call by call'
sip\t'The messages as they were, each with a right Content-Length'
sdp\t'The session descriptions, one after the other'
json\t'A JSON object a message'
calls\t'A JSON object a call'"
complete -c sipbox-siptrace -l call-id -d 'Calls with this Call-ID' -r
complete -c sipbox-siptrace -l from -d 'Calls with a message whose From has this in its URI' -r
complete -c sipbox-siptrace -l to -d 'Calls with a message whose To has this in its URI' -r
complete -c sipbox-siptrace -l method -d 'Calls with a request of this method, or an answer to one' -r
complete -c sipbox-siptrace -l status -d 'Calls with such an answer: 486, 4xx, 400-499' -r
complete -c sipbox-siptrace -l only -d 'Only the messages that fit, not their whole calls'
complete -c sipbox-siptrace -s h -l help -d 'Print help (see more with \'--help\')'
