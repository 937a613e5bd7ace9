"""The variational quantum eigensolver: its specification, initial points, optimizers and the loop over an engine."""
