-- Features of a completed run, from its molecule, its settings and its first five iterations, to foretell how it ends. What is to be foretold stands in columns that begin with target_; no other column knows anything of later than iteration 4.
SELECT
  r.run_id,
  r.recorded_at,
  r.formula,
  r.basis,
  r.ansatz,
  r.reps,
  r.optimizer,
  r.initial_point,
  r.n_qubits,
  r.n_terms,
  r.n_parameters,
  r.n_active_electrons,
  r.energy_offset,
  r.hf_energy,
  f.first_iterations,
  f.energy_0,
  f.energy_4,
  f.energy_0 - f.lowest_energy AS energy_gained,
  f.first_gradient_norm,
  f.last_gradient_norm,
  f.evaluations,
  f.energy_0 - r.hf_energy AS below_hartree_fock,
  r.converged AS target_converged,
  r.iterations AS target_iterations,
  r.error_mha AS target_error_mha
FROM vqe.vqe_results AS r
INNER JOIN (
  SELECT
    run_id,
    COUNT(*) AS first_iterations,
    MAX(CASE WHEN iteration = 0 THEN energy END) AS energy_0,
    MAX(CASE WHEN iteration = 4 THEN energy END) AS energy_4,
    MIN(energy) AS lowest_energy,
    MAX(CASE WHEN iteration = 0 THEN gradient_norm END) AS first_gradient_norm,
    MIN(gradient_norm) AS last_gradient_norm,
    MAX(evaluations) AS evaluations
  FROM vqe.vqe_iterations
  WHERE iteration < 5
  GROUP BY run_id
) AS f ON f.run_id = r.run_id
WHERE r.status = 'completed'
