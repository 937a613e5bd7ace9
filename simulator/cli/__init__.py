"""The `vqe` command. Nothing heavy is imported before a command is known: `vqe --help` answers in under 0.3 s."""
