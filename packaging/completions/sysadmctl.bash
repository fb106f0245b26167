# Completion of sysadmctl(1) in bash 4.4 or newer: what the program prints, asked once in a shell.
eval "$(sysadmctl completion bash)"
