# Completion of sysadmd(8) in fish: what the program prints, asked once in a shell.
sysadmd completion fish | source
