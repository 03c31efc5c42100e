# `make demo` and `make test` need Python >= 3.11 and nothing else: each makes the environment it runs in.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# XLA compiles a small program on one core, so two workers take little more than half the time of one. In the order
# of the folders long files come neither first nor last.
PARALLEL := --numprocesses=2 --dist=loadfile --no-loadscope-reorder
# `make test CUDA=yes` installs PyTorch for the parity tests even where it brings gigabytes of CUDA.
CUDA ?=
INSTALL_PYTORCH := tests/install_pytorch.py $(if $(CUDA),--cuda)

.PHONY: demo docs test test-browser test-docs test-exhaustive test-faults test-fuzz test-lowest test-parity test-plan test-real test-wheel lint format clean

demo: $(VENV)/.installed
	$(BIN)/python launch.py train --config=quickstart --workdir=runs/demo
	@echo "Open $(CURDIR)/runs/demo/report/index.html in a browser."

test: lint
	$(BIN)/python -m pytest $(PARALLEL)

docs:
	# In an environment of its own. Strict: a link that leads nowhere ends it.
	$(PYTHON) -m venv build/docs
	build/docs/bin/python -m pip install --quiet --editable '.[docs]'
	build/docs/bin/python docs/build_site.py --output=build/pages
	build/docs/bin/python -m mkdocs build --strict
	@echo "Open $(CURDIR)/build/site/start.html in a browser."

test-docs: $(VENV)/.installed-test
	# Leaves the executed tutorial in build/tutorial.ipynb.
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	$(BIN)/python -m pytest -m docs

test-exhaustive: $(VENV)/.installed-test
	# Every case of every kind, and all programs compiled as users have them.
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest $(PARALLEL) \
		-m "not parity and not real and not faults and not fuzz and not browser and not docs"

test-browser: $(VENV)/.installed-test
	# With Chromium of this machine, or with Playwright's own, which is downloaded.
	$(BIN)/python -m pip install --quiet --editable '.[test,browser]'
	{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || \
		$(BIN)/python -m playwright install chromium
	$(BIN)/python -m pytest -m browser

test-parity: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m pytest -m parity

test-fuzz: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m fuzz

test-plan: $(VENV)/.installed-test
	# Compilers for TPUs and GPUs, in an environment of their own: they make themselves known in every use of JAX.
	$(PYTHON) -m venv build/plan
	build/plan/bin/python -m pip install --quiet --editable '.[test,plan-tpu,plan-gpu]'
	build/plan/bin/python $(INSTALL_PYTORCH)
	build/plan/bin/python -m pytest -m "plan or not plan" tests/plan

test-real: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m real

test-wheel:
	# The run of `make demo`, its report and the tests from the wheel alone, outside the checkout. The wheel is built
	# from the sdist, so both are complete.
	rm -rf build/wheel dist
	$(PYTHON) -m venv build/wheel/build
	build/wheel/build/bin/python -m pip install --quiet build
	build/wheel/build/bin/python -m build --outdir dist .
	$(PYTHON) -m venv build/wheel/use
	build/wheel/use/bin/python -m pip install --quiet dist/*.whl
	folder=$$(mktemp -d) && cd $$folder && \
		$(CURDIR)/build/wheel/use/bin/bloodcell train --config=quickstart --workdir=demo && \
		$(CURDIR)/build/wheel/use/bin/bloodcell report --workdir=demo && rm -r $$folder
	# The tests come in a copy of the checkout without the package.
	build/wheel/use/bin/python -m pip install --quiet "$$(echo dist/*.whl)[test]"
	build/wheel/use/bin/python $(INSTALL_PYTORCH)
	folder=$$(mktemp -d) && git ls-files -z | grep -zv ^bloodcell_jax/ | tar -c --null -T - | tar -x -C $$folder && \
		cd $$folder && $(CURDIR)/build/wheel/use/bin/python -m pytest $(PARALLEL) \
			--ignore=tests/test_layout.py --ignore=tests/test_packaging.py --ignore=tests/test_documentation.py && rm -r $$folder

test-faults: $(VENV)/.installed-test
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m faults -s

test-lowest:
	# The lowest versions that setup.cfg allows, in an environment of their own; uv resolves to them.
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet uv
	build/lowest/bin/uv pip install --python=build/lowest/bin/python --resolution=lowest-direct --editable '.[test]'
	build/lowest/bin/python $(INSTALL_PYTORCH)
	# Old versions call what newer ones warn of.
	build/lowest/bin/python -m pytest $(PARALLEL) \
		-W "ignore::DeprecationWarning"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# pip says what it loads and installs: silent, it looks as if it hung for a minute.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Making a virtual environment in $(VENV)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip

$(VENV)/.installed: setup.cfg | $(VENV)/bin/python
	@echo "Installing the library and what it needs into $(VENV): a few hundred megabytes, once."
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-test: setup.cfg tests/install_pytorch.py | $(VENV)/bin/python
	@echo "Installing the library and what its tests need into $(VENV): once."
	$(BIN)/python -m pip install --editable '.[test]'
	$(BIN)/python $(INSTALL_PYTORCH)
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
