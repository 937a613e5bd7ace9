-- Specifications that were run more than once, and how far their energies are apart, in millihartree.
SELECT
  spec_id,
  MIN(molecule_name) AS molecule_name,
  COUNT(*) AS runs,
  MIN(energy) AS lowest_energy,
  (MAX(energy) - MIN(energy)) * 1000 AS spread_mha
FROM vqe.vqe_results
WHERE status = 'completed'
GROUP BY spec_id
HAVING COUNT(*) > 1
