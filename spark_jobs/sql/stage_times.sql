-- Seconds by molecule and stage: how many runs, in all, on average and at most.
SELECT
  r.molecule_name,
  r.basis,
  r.engine,
  t.stage,
  COUNT(*) AS runs,
  SUM(t.seconds) AS seconds,
  AVG(t.seconds) AS mean_seconds,
  MAX(t.seconds) AS max_seconds,
  SUM(t.calls) AS calls
FROM vqe.timing_metrics AS t
INNER JOIN vqe.vqe_results AS r ON r.run_id = t.run_id
GROUP BY r.molecule_name, r.basis, r.engine, t.stage
