-- Features of a completed run, from its molecule, its settings and its first five iterations, to foretell how it ends. What is to be foretold stands in columns that begin with target_; no other column knows anything of later than iteration 4.
SELECT
  r.run_id,                                        -- The run.
  r.started_at,                                    -- When it began; to split by time.
  r.formula,                                       -- Formula of the molecule.
  r.basis,                                         -- Basis set.
  r.ansatz,                                        -- Ansatz.
  r.reps,                                          -- Its repetitions.
  r.optimizer,                                     -- Optimizer.
  r.initial_point,                                 -- Where it began.
  r.n_qubits,                                      -- Qubits of the problem.
  r.n_terms,                                       -- Pauli terms of the Hamiltonian.
  r.n_parameters,                                  -- Parameters of the ansatz.
  r.n_active_electrons,                            -- Electrons in the active space.
  r.energy_offset,                                 -- Nuclear repulsion and frozen core, hartree.
  r.hf_energy,                                     -- Hartree-Fock energy, hartree.
  f.first_iterations,                              -- How many of the iterations 0 to 4 there are.
  f.energy_0,                                      -- Energy at iteration 0, hartree.
  f.energy_4,                                      -- Energy at iteration 4, hartree; null where the run was shorter.
  f.energy_0 - f.lowest_energy AS energy_gained,   -- Energy at iteration 0 less the lowest up to iteration 4, hartree.
  f.first_gradient_norm,                           -- Gradient norm at iteration 0; null without gradients.
  f.lowest_gradient_norm,                          -- Lowest gradient norm up to iteration 4; null without gradients.
  f.evaluations,                                   -- Energy evaluations up to iteration 4.
  f.energy_0 - r.hf_energy AS below_hartree_fock,  -- Energy at iteration 0 less the Hartree-Fock energy, hartree.
  r.converged AS target_converged,                 -- To be foretold: whether the optimizer converged.
  r.iterations AS target_iterations,               -- To be foretold: iterations in all.
  r.error_mha AS target_error_mha                  -- To be foretold: final error to the reference, millihartree.
FROM vqe.vqe_results AS r
INNER JOIN (
  SELECT
    run_id,
    COUNT(*) AS first_iterations,
    MAX(CASE WHEN iteration = 0 THEN energy END) AS energy_0,
    MAX(CASE WHEN iteration = 4 THEN energy END) AS energy_4,
    MIN(energy) AS lowest_energy,
    MAX(CASE WHEN iteration = 0 THEN gradient_norm END) AS first_gradient_norm,
    MIN(gradient_norm) AS lowest_gradient_norm,
    MAX(evaluations) AS evaluations
  FROM vqe.vqe_iterations
  WHERE iteration < 5
  GROUP BY run_id
) AS f ON f.run_id = r.run_id
WHERE r.status = 'completed'
