#!/bin/sh
# The product in one command: run, tables, a query, a report. $1 is vqe, $2 the data directory.
set -eu
vqe=$1 data=$2

"$vqe" run h2 lih beh2 h2o --data-dir "$data"

query="select r.molecule_name, r.energy, a.reference, round(a.error_mha, 4) as error_mha, r.iterations, count(p.label) as parameters
from vqe_results r
join accuracy_metrics a on a.run_id = r.run_id and a.reference in ('HF', 'CCSD', 'FCI')
join vqe_parameters p on p.run_id = r.run_id
group by all order by r.molecule_name, error_mha"
printf '\n$ vqe sql "%s"\n' "$query"
"$vqe" sql "$query" --data-dir "$data"

printf '\n'
"$vqe" report --data-dir "$data"
