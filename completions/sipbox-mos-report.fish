complete -c sipbox-mos-report -l model -d 'How to score' -r -f -a "legacy-2019\t'rtpengine\'s formula of April 2017 to March 2021'
g107\t'The E-model of ITU-T G.107; g107-lq where no delay is known'"
complete -c sipbox-mos-report -s o -l output -d 'What is written [default: table on a terminal, else json]' -r -f -a "table\t''
json\t''
csv\t''"
complete -c sipbox-mos-report -l min-mos -d 'Exit with 1 if the average of any stream is below it' -r
complete -c sipbox-mos-report -s h -l help -d 'Print help (see more with \'--help\')'
