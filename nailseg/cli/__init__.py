"""The command line: `main` has the verbs, `lightning` those that train and test, `runner` the exit codes."""
