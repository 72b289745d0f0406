PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test check format bench docs site bench-check-cost bench-check-size bench-neighbours bench-false-alarms bench-ledger bench-proof bench-proof-power bench-proof-sound bench-effect-course bench-speed bench-accuracy bench-few-shot bench-backbones bench-labels bench-leaks bench-shift bench-faults bench-fault-peers bench-fixed-labels bench-fixed-script bench-budget bench-course bench-busy bench-ranks bench-real bench-threads bench-cases bench-campaign bench-strangers bench-reference-update bench-preflight bench-preflight-peers bench-compare bench-live bench-agents bench-review bench-trust bench-sandbox bench-install-size bench-mutants fit-confidences
install: $(STAMP)

$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,dev]'
	touch $(STAMP)

demo: install
	$(BIN)/valgap demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# What only the documentation, the benchmarks and the slow tests need: fastai, cleanlab, mkdocs...
$(VENV)/.extras: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs,bench]'
	touch $@

check: $(VENV)/.extras
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py
	$(BIN)/python docs/generate_causes.py --check
	$(BIN)/python -m pytest -q -m slow tests

format: install
	$(BIN)/ruff format src tests examples benchmarks
	$(BIN)/ruff check --fix src tests examples benchmarks

bench: install
	$(BIN)/python benchmarks/overhead.py $(DATA)

bench-false-alarms: install
	$(BIN)/python benchmarks/false_alarms.py $(DATA)

bench-ledger: install
	$(BIN)/python benchmarks/ledger.py $(DATA)

bench-proof: install
	$(BIN)/python benchmarks/proof.py $(DATA)

bench-labels bench-shift: $(VENV)/.extras
	$(BIN)/python benchmarks/$(@:bench-%=%).py $(DATA)

# fastdup wants an older numpy than ours.
FASTDUP_VENV := .venv-fastdup

$(FASTDUP_VENV)/.installed:
	test -d $(FASTDUP_VENV) || $(PYTHON) -m venv $(FASTDUP_VENV)
	$(FASTDUP_VENV)/bin/pip install --quiet --disable-pip-version-check fastdup==2.54
	touch $@

bench-leaks: $(VENV)/.extras $(FASTDUP_VENV)/.installed
	$(BIN)/python benchmarks/leaks.py $(DATA) --fastdup $(FASTDUP_VENV)/bin/python

bench-fixed-labels: install
	$(BIN)/python benchmarks/fixed_labels.py $(DATA)

bench-fixed-script: install
	$(BIN)/python benchmarks/fixed_script.py $(DATA)

bench-check-cost: $(VENV)/.extras
	$(BIN)/python benchmarks/check_cost.py $(DATA)

# A part of at most nine minutes; call it again until nothing is left. It needs 20 GB of disk at WORK.
bench-check-size: install
	$(BIN)/python benchmarks/check_size.py $(DATA) --minutes $(or $(MINUTES),9) $(if $(WORK),--work $(WORK)) $(ARGS)

bench-neighbours: install
	$(BIN)/python benchmarks/neighbours.py $(if $(WORK),--work $(WORK)) $(ARGS)

# EfficientNet-Lite1 and Lite2 beside the bundled one, in parts of at most nine minutes.
bench-backbones: $(VENV)/.extras
	$(BIN)/python benchmarks/backbones.py $(DATA) $(ARGS)

bench-few-shot: install
	$(BIN)/python benchmarks/few_shot.py $(DATA) $(ARGS)

bench-speed: install
	$(BIN)/python benchmarks/speed.py $(DATA)

# MINUTES=9 begins no process after so long: call it again until nothing is left. BEFORE=FOLDER: src of an older checkout.
bench-accuracy: $(VENV)/.extras
	$(BIN)/python benchmarks/accuracy.py $(DATA) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(BEFORE),--before $(BEFORE)) $(ARGS)

bench-budget: $(VENV)/.extras
	$(BIN)/python benchmarks/budget.py $(DATA)

# BEFORE=FOLDER: src of an older checkout, asked too.
bench-threads: $(VENV)/.extras
	$(if $(BEFORE),PYTHONPATH=$(BEFORE) $(BIN)/python benchmarks/threads.py $(DATA) --label before)
	$(BIN)/python benchmarks/threads.py $(DATA)

# A part of at most nine minutes; call it again until nothing is left.
bench-campaign: install
	$(BIN)/python benchmarks/campaign.py $(DATA) --minutes $(or $(MINUTES),9) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left.
bench-strangers: install
	$(BIN)/python benchmarks/strangers.py $(DATA) --minutes $(or $(MINUTES),9) $(ARGS)

bench-reference-update: install
	$(BIN)/python benchmarks/reference_update.py $(DATA) --minutes $(or $(MINUTES),9) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left. CASES=FOLDER: the public reports as well.
bench-preflight: install
	$(BIN)/python benchmarks/preflight.py $(DATA) $(if $(CASES),--cases $(CASES)) --minutes $(or $(MINUTES),9) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left. It makes its own small images.
bench-compare: install
	$(BIN)/python benchmarks/compare.py --budget 2m --minutes $(or $(MINUTES),8) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left.
bench-live: install
	$(BIN)/python benchmarks/live.py --campaign $(DATA) --keep $(or $(KEEP),.bench-live) --minutes $(or $(MINUTES),9) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left. The campaign must have run bare.
bench-agents: install
	$(BIN)/python benchmarks/agents.py $(DATA) --minutes $(or $(MINUTES),9) $(ARGS)

# PART=hostile, undisturbed or killed (these two need DATA; CASES=FOLDER: the public reports as well), of at most nine minutes; call it
# again until nothing is left. BEFORE=FOLDER: src of an older checkout, asked for hostile inputs too.
bench-trust: $(VENV)/.extras
	$(if $(BEFORE),PYTHONPATH=$(BEFORE) OMP_NUM_THREADS=1 $(BIN)/python benchmarks/trust.py $(PART) --before --most 200 --minutes $(or $(MINUTES),9) $(ARGS))
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/trust.py $(PART) $(if $(DATA),--data $(DATA)) $(if $(CASES),--cases $(CASES)) --minutes $(or $(MINUTES),9) $(ARGS)

# Attempts to get out of the sandbox of re-runs.
bench-sandbox: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sandbox.py

bench-install-size: install
	$(BIN)/python benchmarks/install_size.py $(ARGS)

# mutmut makes the mutants, in an environment of its own: what it needs is none of ours.
MUTANTS_VENV := .venv-mutants

$(MUTANTS_VENV)/.installed:
	test -d $(MUTANTS_VENV) || $(PYTHON) -m venv $(MUTANTS_VENV)
	$(MUTANTS_VENV)/bin/pip install --quiet --disable-pip-version-check mutmut==3.8.1
	touch $@

# A part of about nine minutes; call it again until nothing is left. Linux: it forks.
bench-mutants: install $(MUTANTS_VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py --python $(MUTANTS_VENV)/bin/python --minutes $(or $(MINUTES),9) $(ARGS)

# Needs Chromium and its driver; it makes its own images.
bench-review: install
	$(BIN)/python benchmarks/review.py $(ARGS)

# How sure findings are told to be, from the rows of the calibration half.
fit-confidences: install
	$(BIN)/python benchmarks/campaign_fit.py $(ARGS)

# Ten public reports with their twins.
bench-cases: $(VENV)/.extras
	$(BIN)/python benchmarks/cases.py $(CASES) $(ARGS)

# MINUTES=9 begins no training after so long: call it again until nothing is left.
bench-course: $(VENV)/.extras
	$(BIN)/python benchmarks/course.py $(DATA) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

bench-busy: install
	$(BIN)/python benchmarks/busy.py $(ARGS)

# Programs of two processes: ten faults between them, and as many records after kill -9 of one.
bench-ranks: install
	$(BIN)/python benchmarks/ranks.py $(DATA)
	PYTHONPATH=. $(BIN)/python benchmarks/ranks_killed.py 50

docs: install
	$(BIN)/python docs/generate_causes.py

site: docs $(VENV)/.extras
	$(BIN)/python -m mkdocs build --strict

# Once from the records alone, once with re-runs; the records are used again.
bench-faults: install
	$(BIN)/python benchmarks/faults.py $(DATA) --keep $(or $(RUNS),.bench-faults) --seeds 3
	$(BIN)/python benchmarks/faults.py $(DATA) --keep $(or $(RUNS),.bench-faults) --budget 90s

# The readers of logs, in an environment of their own: what they need is none of ours.
PEERS_VENV := .venv-peers
PEERS := losslint==0.4.1 trainspotter==0.2.6 gradsnitch==0.1.0 runmedic==0.1.1 finetune-doctor==0.2.2

$(PEERS_VENV)/.installed:
	test -d $(PEERS_VENV) || $(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/pip install --quiet --disable-pip-version-check $(PEERS)
	touch $@

PREFLIGHT_PEERS_VENV := .venv-preflight-peers
PREFLIGHT_PEERS := torch-preflight==0.5.0 mldoct==1.0.0 preflight-ml==0.1.1

# The programs' own imports are needed as well: one of these tools is handed what a running program has made.
$(PREFLIGHT_PEERS_VENV)/.installed:
	test -d $(PREFLIGHT_PEERS_VENV) || $(PYTHON) -m venv $(PREFLIGHT_PEERS_VENV)
	$(PREFLIGHT_PEERS_VENV)/bin/pip install --quiet --disable-pip-version-check $(PREFLIGHT_PEERS) torchvision timm
	touch $@

# A part of at most nine minutes; call it again until nothing is left. bench-preflight must have run.
bench-preflight-peers: install $(PREFLIGHT_PEERS_VENV)/.installed
	$(BIN)/python benchmarks/preflight_peers.py $(DATA) --python $(PREFLIGHT_PEERS_VENV)/bin/python $(if $(CASES),--cases $(CASES)) --minutes $(or $(MINUTES),9)

bench-fault-peers: install $(PEERS_VENV)/.installed
	$(BIN)/python benchmarks/fault_peers.py $(RUNS) --python $(PEERS_VENV)/bin/python

# Other people's scripts: what they need is none of ours, and goes into an environment of its own.
REAL_VENV := .venv-real
REAL := accelerate lightning transformers datasets evaluate pytorch-ignite skorch fastai ultralytics keras fire tensorboard tqdm matplotlib 'jsonargparse[signatures]'

$(REAL_VENV)/.installed: pyproject.toml
	test -d $(REAL_VENV) || $(PYTHON) -m venv $(REAL_VENV)
	$(REAL_VENV)/bin/pip install --quiet --disable-pip-version-check -e . $(REAL)
	touch $@

# A part of at most nine minutes; call it again until nothing is left. The campaign must have run bare.
bench-proof-power: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/proof_power.py $(DATA) --minutes $(or $(MINUTES),7) $(ARGS)

# Sound programs as if a cause were suspected: what is confirmed is false.
bench-proof-sound: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/proof_sound.py --minutes $(or $(MINUTES),9) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left. The campaign must have run bare.
bench-effect-course: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/effect_course.py $(DATA) --held --minutes $(or $(MINUTES),9) $(ARGS)

# A part of at most nine minutes; call it again until nothing is left. SCRIPTS: docs/real_scripts.md.
bench-real: $(REAL_VENV)/.installed
	$(REAL_VENV)/bin/python benchmarks/real.py $(DATA) $(SCRIPTS) --minutes $(or $(MINUTES),9) $(ARGS)
