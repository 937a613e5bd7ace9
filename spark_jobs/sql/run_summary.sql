-- A run in one row: what was asked for, what came out, how far from its reference, and where its time went.
SELECT
  r.run_id,
  r.started_at,
  r.molecule_name,
  r.formula,
  r.basis,
  r.mapper,
  r.ansatz,
  r.reps,
  r.optimizer,
  r.engine,
  r.device,
  r.shots,
  r.seed,
  r.status,
  r.physical,
  r.converged,
  r.energy,
  r.reference_name,
  r.reference_energy,
  r.error_mha,
  r.chemical_accuracy,
  r.n_qubits,
  r.n_terms,
  r.n_parameters,
  r.iterations,
  r.evaluations,
  r.total_seconds,
  t.optimization_seconds,
  t.optimization_seconds / NULLIF(r.total_seconds, 0) AS optimization_share,
  r.sweep_id,
  r.spec_id,
  r.error
FROM vqe.vqe_results AS r
LEFT JOIN (
  SELECT run_id, SUM(CASE WHEN stage = 'optimization' THEN seconds ELSE 0 END) AS optimization_seconds
  FROM vqe.timing_metrics
  GROUP BY run_id
) AS t ON t.run_id = r.run_id
