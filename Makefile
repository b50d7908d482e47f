# The targets that the README names; each installs what it needs into .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test check bench image push constraints clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

test: $(INSTALLED)
	$(BIN)/pytest

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python -m components.definition build/definitions
	$(BIN)/statelint build/definitions/*.json
	npx --yes asl-validator@4.0.0 $(foreach name,quarter quarter-at-most quarters,--json-path build/definitions/$(name).asl.json)

bench: $(INSTALLED)
	$(BIN)/python -m bench

# The worker's image, and into the repository of STACK. Its tags are immutable: a new image needs a new workerImageTag
# in the stack's config, and `pulumi up` before `make push`.
STACK ?= prod
image:
	docker build --platform linux/amd64 --file worker/Dockerfile --tag ftm-worker .

push: image
	image=$$(pulumi stack output worker_image --stack $(STACK)) && \
	aws ecr get-login-password --region "$$(echo "$$image" | cut -d. -f4)" | docker login --username AWS --password-stdin "$${image%%/*}" && \
	docker tag ftm-worker "$$image" && docker push "$$image"

# Pins what a fresh environment resolves to today; run `make test` afterwards.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --editable '.[dev]'
	{ head -1 constraints.txt; build/constraints/bin/pip freeze --exclude-editable; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) .ftm build *.egg-info
