"""The command line: a command is load, call, print. Heavy imports are inside the commands."""
