# `make demo` and `make demo-faces` train and evaluate on drawn ears and faces; `make test` runs everything that must pass.
# Each makes .venv first, which needs only Python >= 3.11 and a package index.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo
FACES := runs/demo_faces
# EdgeFace's weights, for the identity loss and its measures: make demo-faces RECOGNIZER=edgeface_xxs_q.pt
RECOGNIZER ?= none

.PHONY: help setup demo demo-faces test test-all lint clean

help:
	@echo "make setup   the environment in .venv"
	@echo "make demo    train and evaluate a small ear VAE on drawn ears (about 5 minutes on two cores)"
	@echo "make demo-faces   train and evaluate a small face super-resolver on drawn faces (about as long)"
	@echo "make test    lint, types and tests"
	@echo "make test-all   with those that take minutes each"
	@echo "make clean   remove what make demo made"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)

# One thread trains and one process augments: two threads slow down tenfold beside any other busy process.
demo: $(READY)
	test -f $(DEMO)/ears/val_teacher.npy || $(BIN)/python -m data.synthetic.ears --out $(DEMO)/ears --overwrite \
		--subjects 200 --images-per-subject 10 --image-size 64 --sheet $(DEMO)/ears_sheet.png
	OMP_NUM_THREADS=1 $(BIN)/python -m ear_teacher.train --config configs/demo.yaml
	OMP_NUM_THREADS=1 $(BIN)/python -m ear_teacher.evaluate --checkpoint $(DEMO)/checkpoints/last.ckpt --out $(DEMO)/evaluation

demo-faces: $(READY)
	test -f $(FACES)/faces/splits.json || { \
		OMP_NUM_THREADS=1 $(BIN)/python -m data.synthetic.faces --out $(FACES)/drawn --overwrite --subjects 200 \
			--images-per-subject 10 --sheet $(FACES)/drawn_sheet.png && \
		OMP_NUM_THREADS=1 $(BIN)/python -m data.prepare_faces --images $(FACES)/drawn --aligned --vlr-size 16 \
			--out $(FACES)/faces --overwrite; }
	OMP_NUM_THREADS=1 $(BIN)/python -m dsr.train_dsr --config configs/demo_faces.yaml --recognizer $(RECOGNIZER) \
		--second-recognizer $(RECOGNIZER) $(if $(filter none,$(RECOGNIZER)),--lambda-identity 0 --lambda-feature-match 0)
	OMP_NUM_THREADS=1 $(BIN)/python -m dsr.evaluate --checkpoint $(FACES)/checkpoints/last.ckpt \
		--dataset-root $(FACES)/faces --recognizer $(RECOGNIZER) --second-recognizer $(RECOGNIZER) --out $(FACES)/evaluation

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 8

test-all: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -m ""

clean:
	rm -rf $(DEMO) $(FACES)
