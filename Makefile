# make demo: set up, fetch the default model, run a program on it.
# make test: set up, run the quick tests and those on the default model.   make slow: those that take longer.
PYTHON ?= python3
VENV ?= .venv
VLLM ?= .vllm
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test slow model capable vllm sweep faults unit lint bench outputs clean

demo: $(READY)
	$(BIN)/lmppl run programs/lost.lm --data programs/lost.jsonl

test: lint unit model

# whole grids of laws, kills, studies: half an hour
slow: $(READY)
	$(BIN)/python -m pytest -n 2 -m "slow and not model and not vllm and not sweep and not faults"

model: $(READY)
	$(BIN)/python -m pytest -n 2 -m "model and not capable and not vllm" --durations=10

# those on the model of 1.5 billion weights, where it is in the cache; they need 8 GB of memory
capable: $(READY)
	$(BIN)/python -m pytest -m capable

# vLLM in an environment of its own, for a machine without a GPU, and the tests that run against it
vllm: $(READY) $(VLLM)/.ready
	LMPPL_VLLM=$(VLLM) $(BIN)/python -m pytest -m vllm

$(VLLM)/.ready: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-vllm.txt
	touch $(VLLM)/.ready

# every architecture that can be built, one by one: for a new version of transformers
sweep: $(READY)
	$(BIN)/python -m pytest -n 2 -m sweep

unit: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not model and not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# bugs that are planted one by one, and commands that are killed, run out of room, are started twice, or find their files
# damaged: tables in benchmarks/results. What is known there is not done again
faults: $(READY)
	$(BIN)/python -m pytest -m faults
	$(BIN)/python tests/faults/plant.py
	$(BIN)/python tests/faults/sweep.py --number 100

bench: $(READY)
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/training.py

# docs/programs.md: what every program prints, run anew where it has changed
outputs: $(READY)
	$(BIN)/python benchmarks/outputs.py

# torch first and pinned: with none installed, an open range would bring gigabytes of CUDA packages
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache
