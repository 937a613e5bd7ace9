-- Completed runs by molecule, ansatz and optimizer: how many reach chemical accuracy, their errors and their cost.
SELECT
  molecule_name,
  basis,
  ansatz,
  reps,
  optimizer,
  engine,
  COUNT(*) AS runs,
  SUM(CASE WHEN chemical_accuracy THEN 1 ELSE 0 END) AS accurate_runs,
  MIN(ABS(error_mha)) AS best_error_mha,
  AVG(ABS(error_mha)) AS mean_error_mha,
  AVG(evaluations) AS mean_evaluations,
  AVG(total_seconds) AS mean_seconds
FROM vqe.vqe_results
WHERE status = 'completed'
GROUP BY molecule_name, basis, ansatz, reps, optimizer, engine
