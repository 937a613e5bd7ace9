-- An iteration with its run's settings, the best energy so far, and the change from the iteration before.
SELECT
  i.run_id,
  r.molecule_name,
  r.formula,
  r.basis,
  r.ansatz,
  r.optimizer,
  r.engine,
  i.iteration,
  i.evaluations,
  i.elapsed_seconds,
  i.energy,
  i.error_mha,
  MIN(i.energy) OVER (PARTITION BY i.run_id ORDER BY i.iteration) AS best_energy,
  i.energy - LAG(i.energy) OVER (PARTITION BY i.run_id ORDER BY i.iteration) AS energy_change,
  i.gradient_norm
FROM vqe.vqe_iterations AS i
LEFT JOIN vqe.vqe_results AS r ON r.run_id = i.run_id
