"""VQE as a task: how a specification of `simulator.vqe` is run and told of in events."""
