# make demo   H2, LiH, BeH2 and H2O to chemical accuracy, nine tables, a query, a report
# make test   every test that needs no service
# make lint   ruff and mypy
# make test-services   real Kafka, registry, Connect and S3 as local processes; needs Java 17, Maven and Go
# make test-e2e   the journey through the containers; needs Docker with compose
# make test-lake   Spark, Postgres, S3 and Airflow as local processes; needs the same
.DEFAULT_GOAL := help
.PHONY: help up up-core up-headless up-gpu up-logs up-tls down batch credentials backup restore test-e2e demo test test-services test-sink test-lake test-monitoring soak lint format bench clean

# Some shells of containers set it; without compiled files each process of a test spends a second or more on compiling ours.
unexport PYTHONDONTWRITEBYTECODE

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

COMPOSE ?= docker compose

up: ## Start the whole platform in containers
	@$(COMPOSE) up -d --wait --build

up-core: ## Start only what streams: Kafka, registry, Connect, object storage, the work queue, a worker
	@$(COMPOSE) up -d --wait --build simulator connect
	@$(COMPOSE) run --rm -T connector-setup

up-headless: ## The whole platform but Grafana, whose image is not pulled
	@$(COMPOSE) -f docker-compose.yml -f docker-compose.headless.yml up -d --wait --build

up-tls: ## The whole platform, Kafka with SASL_SSL
	@$(COMPOSE) -f docker-compose.yml -f docker-compose.tls.yml up -d --wait --build

up-logs: ## The whole platform, every container's lines in Loki
	@$(COMPOSE) -f docker-compose.yml -f docker-compose.logs.yml up -d --wait --build

up-gpu: ## The whole platform with a GPU worker beside the CPU workers
	@nvidia-smi -L >/dev/null 2>&1 || { echo "make up-gpu: nvidia-smi finds no NVIDIA GPU on this host; use make up" >&2; exit 2; }
	@docker info --format '{{json .Runtimes}}' | grep -q nvidia || { echo "make up-gpu: Docker has no NVIDIA runtime; install the NVIDIA Container Toolkit" >&2; exit 2; }
	@$(COMPOSE) -f docker-compose.yml -f docker-compose.gpu.yml up -d --wait --build

down: ## Stop the platform; data stay
	@$(COMPOSE) down --remove-orphans

batch: ## Bring what the bucket has into the tables, and wait for it; CONF='{"reconcile": true}' compares all objects
	@$(COMPOSE) exec -T airflow-scheduler run-batch '$(CONF)'

credentials: ## Show how to log in
	@$(COMPOSE) run --rm --no-deps -T init credentials

backup: ## Stop writers, save data and secrets to BACKUP (./backup), start again
	@COMPOSE="$(COMPOSE)" sh docker/backup save $(or $(BACKUP),backup)

restore: ## Bring BACKUP (./backup) into a stack without data
	@COMPOSE="$(COMPOSE)" sh docker/backup restore $(or $(BACKUP),backup)

test-e2e: $(VENV)/.installed-dev ## The journey through the containers; needs Docker with compose
	@$(COMPOSE) build --quiet
	@$(PY) -m pytest tests/e2e -q --durations=10 -x

demo: $(VENV)/.installed ## Run four molecules, build the tables, query them, write a report
	@sh scripts/demo.sh $(VQE) $(DATA_DIR)

test: $(VENV)/.installed-dev ## Run every test that needs no service
	@$(PY) -m pytest tests/unit -q -n 2 --dist loadfile -m "not broad" --durations=10

# BESIDE='-n 2 --dist loadfile' runs two files at a time, each with services of its own: quicker on an idle machine with four cores.
BESIDE ?=

STREAMING_TESTS := $(addprefix tests/integration/,test_connect_sink.py test_streaming.py test_workers.py test_kafka_to_tables.py)

test-services: $(VENV)/.installed-dev ## Run the streaming tests against real services, which it fetches and starts
	@$(PY) -m tests.services fetch
	@$(PY) -m pytest $(STREAMING_TESTS) -q $(BESIDE) --durations=10

test-sink: ## Run the Java tests of the Connect plugin
	@mvn -B -q -f connect/avro-s3-sink test

LAKE_TESTS := $(addprefix tests/integration/,test_spark_tables.py test_airflow_dags.py test_spark_queries.py test_queue_faults.py test_queue.py)

test-lake: $(VENV)/.installed-dev ## Run the tests with Spark, Postgres, S3 and Airflow, which it fetches and starts
	@$(PY) -m tests.services fetch minio kafka registry
	@$(PY) -m tests.services.lake fetch
	@$(PY) -m pytest $(LAKE_TESTS) -q $(BESIDE) --durations=10

test-monitoring: $(VENV)/.installed-dev ## Run promtool's tests, then hold every rule and dashboard against the real services
	@$(PY) -m tests.services fetch
	@$(PY) -m tests.services.monitoring
	@$(PY) -m tests.services.lake fetch spark
	@$(PY) -m pytest tests/integration/test_monitoring.py -q --durations=10

soak: $(VENV)/.installed-dev ## Ten rounds of every fault, here and in the containers, Grafana and Loki included
	@$(PY) -m tests.services fetch
	@$(PY) -m tests.services.lake fetch
	@$(MAKE) -s test-sink
	@$(PY) -m pytest tests/unit -q -n 2 --dist loadfile -m broad
	@for round in 1 2 3 4 5 6 7 8 9 10; do $(PY) -m pytest $(STREAMING_TESTS) -q -x || exit 1; done
	@VQE_ALL_KILLS=1 $(PY) -m pytest tests/integration/test_spark_tables.py tests/integration/test_queue_faults.py -q -x -k killed
	@$(COMPOSE) build --quiet
	@VQE_E2E_ROUNDS=10 GRAFANA_IMAGE=$${GRAFANA_IMAGE:-grafana/grafana:12.2.1} LOKI_IMAGE=$${LOKI_IMAGE:-grafana/loki:3.5.5} $(PY) -m pytest tests/e2e -q -x

lint: $(VENV)/.installed-dev ## Check style and types
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

format: $(VENV)/.installed-dev ## Format the code
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

bench: $(VENV)/.installed-dev ## Measure what README quotes
	@OMP_NUM_THREADS=1 $(PY) benchmarks/solve.py
	@$(PY) benchmarks/build_tables.py
	@$(PY) benchmarks/start.py

clean: ## Remove the virtual environment and caches; data stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
