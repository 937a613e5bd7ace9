# make demo   H2, LiH, BeH2 and H2O to chemical accuracy, nine tables, a query, a report
# make test   every test that needs no service
# make lint   ruff and mypy
# make test-services   real Kafka, registry, Connect and S3 as local processes; needs Java 17, Maven and Go
# make test-lake   Spark, Postgres, S3 and Airflow as local processes; needs the same
.DEFAULT_GOAL := help
.PHONY: help demo test test-services test-lake soak lint format bench clean

VENV := .venv
VQE := $(VENV)/bin/vqe
PY := $(VENV)/bin/python
DATA_DIR ?= vqe-data

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# uv when present, else venv and pip. The stamp names what was installed, so a changed pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml scripts/setup-venv.sh
	@sh scripts/setup-venv.sh $(VENV) "."
	@touch $@

$(VENV)/.installed-dev: pyproject.toml scripts/setup-venv.sh
	@sh scripts/setup-venv.sh $(VENV) ".[dev,kafka]"
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## Run four molecules, build the tables, query them, write a report
	@sh scripts/demo.sh $(VQE) $(DATA_DIR)

test: $(VENV)/.installed-dev ## Run every test that needs no service
	@$(PY) -m pytest tests/unit -q -n 2 --dist loadfile

STREAMING_TESTS := $(addprefix tests/integration/,test_connect_sink.py test_streaming.py test_workers.py test_kafka_to_tables.py)

test-services: $(VENV)/.installed-dev ## Run the streaming tests against real services, which it fetches and starts
	@$(PY) -m tests.services fetch
	@mvn -B -q -f connect/avro-s3-sink test
	@$(PY) -m pytest $(STREAMING_TESTS) -q --durations=15

LAKE_TESTS := $(addprefix tests/integration/,test_spark_tables.py test_spark_queries.py test_airflow_dags.py)

test-lake: $(VENV)/.installed-dev ## Run the tests with Spark, Postgres, S3 and Airflow, which it fetches and starts
	@$(PY) -m tests.services fetch minio kafka registry
	@$(PY) -m tests.services.lake fetch
	@$(PY) -m pytest $(LAKE_TESTS) -q --durations=15

soak: $(VENV)/.installed-dev ## Ten rounds of every fault, and a Spark driver killed after each of its commits
	@$(PY) -m tests.services fetch
	@$(PY) -m tests.services.lake fetch
	@for round in 1 2 3 4 5 6 7 8 9 10; do $(PY) -m pytest $(STREAMING_TESTS) -q -x || exit 1; done
	@VQE_ALL_KILLS=1 $(PY) -m pytest tests/integration/test_spark_tables.py -q -x -k killed

lint: $(VENV)/.installed-dev ## Check style and types
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

format: $(VENV)/.installed-dev ## Format the code
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

bench: $(VENV)/.installed-dev ## Measure what README quotes
	@OMP_NUM_THREADS=1 $(PY) benchmarks/solve.py
	@$(PY) benchmarks/build_tables.py

clean: ## Remove the virtual environment and caches; data stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
