#compdef sysadmctl
# Completion of sysadmctl(1) in zsh: what the program prints, asked once in a shell.
eval "$(sysadmctl completion zsh)"
_sysadmctl_completion "$@"
