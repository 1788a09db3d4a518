"""The commands, a file each: `HELP` and `add(parser)` say what it takes, `run(arguments)` does it and returns the exit
code, or nothing for 0."""
