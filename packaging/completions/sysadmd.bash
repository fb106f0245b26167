# Completion of sysadmd(8) in bash 4.4 or newer: what the program prints, asked once in a shell.
eval "$(sysadmd completion bash)"
