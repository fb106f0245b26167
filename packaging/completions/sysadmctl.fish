# Completion of sysadmctl(1) in fish: what the program prints, asked once in a shell.
sysadmctl completion fish | source
