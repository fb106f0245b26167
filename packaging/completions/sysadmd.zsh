#compdef sysadmd
# Completion of sysadmd(8) in zsh: what the program prints, asked once in a shell.
eval "$(sysadmd completion zsh)"
_sysadmd_completion "$@"
