# Two commands: `make demo` runs the platform and its main job, `make test` proves it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo up stop restart status logs reset install install-dev test check lock proof bench compose-env

PYTHON_BIN := .venv/bin/python
LAUNCHER := $(PYTHON_BIN) -m launcher
BOOTSTRAP = @python=$$(sh launcher/find_python.sh) && "$$python" -m launcher.bootstrap
IF_INSTALLED = @[ -x $(PYTHON_BIN) ] || { echo "AOS was never started here."; exit 0; } && $(LAUNCHER)
# Words for pytest: make test ARGS="-k launcher -x", or ARGS="-n0 --pdb" for a debugger.
ARGS ?=
# How many processes run tests side by side, each on servers of its own.
TEST_PROCESSES ?= 2

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: install ## Start the platform and watch the main job to its receipt
	@$(LAUNCHER) demo

up: install ## Start the platform without a job
	@$(LAUNCHER) up

stop: ## End everything that was started here, in order
	$(IF_INSTALLED) stop

restart: install ## Stop and start again, for new code
	@$(LAUNCHER) restart

status: ## Show what runs
	$(IF_INSTALLED) status || true

logs: ## Follow the logs of all processes
	$(IF_INSTALLED) logs

reset: ## Delete the data of this clone (asks first; YES=1 does not)
	$(IF_INSTALLED) reset $(if $(YES),--yes)

install: ## Make .venv and install the locked packages
	$(BOOTSTRAP) base

install-dev: ## The same, with what tests and checks need
	$(BOOTSTRAP) dev

test: install-dev ## Run the whole suite on real PostgreSQL and Valkey
	@$(PYTHON_BIN) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

check: install-dev ## Lint, types, import contracts, migrations, known holes
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check .
	@$(PYTHON_BIN) -m mypy aos_project apps workers launcher
	@.venv/bin/lint-imports
	@.venv/bin/bandit --quiet --configfile pyproject.toml --recursive aos_project apps workers launcher scripts manage.py
	@$(PYTHON_BIN) scripts/audit_packages.py
	@DJANGO_SETTINGS_MODULE=aos_project.settings.test $(PYTHON_BIN) manage.py makemigrations --check --dry-run

proof: install-dev ## The long proofs: kill real processes, fuzz the API and the pages
	@$(PYTHON_BIN) -m pytest -m "processes or proof" -v $(ARGS)

bench: install-dev ## Measure, and print the ratios
	@$(PYTHON_BIN) -m benchmarks $(ARGS)

# dev first: it holds the other two, and pins both to the same versions.
lock: install-dev ## Lock requirements/*.in with hashes
	@command -v uv >/dev/null || [ -x .venv/bin/uv ] || { echo "x uv is not installed. Next: .venv/bin/pip install uv"; exit 1; }
	@for set in dev base embedded; do \
	  PATH=".venv/bin:$$PATH" uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    $$( [ $$set = dev ] || echo "--constraints requirements/dev.txt" ) requirements/$$set.in -o requirements/$$set.txt || exit 1; \
	done
	@for image in data node mcp-time; do \
	  PATH=".venv/bin:$$PATH" uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    sandbox_images/$$image/requirements.in -o sandbox_images/$$image/requirements.txt || exit 1; \
	done

compose-env: ## Make .env for docker compose, with random passwords
	@python=$$(sh launcher/find_python.sh) && "$$python" -m launcher.compose_env
