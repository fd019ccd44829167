# `make demo` and `make demo-faces` train and evaluate on synthetic ears and faces; `make test` runs everything that must pass.
# Each makes .venv first, which needs only Python >= 3.11 and a package index.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := runs/demo
FACES := runs/demo_faces
PICTURE := runs/picture
ENVIRONMENTS ?= runs/environments
# EdgeFace's weights, for the identity loss and its measures: make demo-faces RECOGNIZER=edgeface_xxs_q.pt
RECOGNIZER ?= none

# Tests that stand beside each other share their fixtures, so each process takes half of them in their order.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: help setup demo demo-faces picture test test-quick test-all test-settings test-versions licences lint docs clean

help:
	@echo "make setup   the environment in .venv"
	@echo "make demo    train and evaluate a small ear VAE on synthetic ears (about 4 minutes on two cores)"
	@echo "make demo-faces   train and evaluate a small face super-resolver on synthetic faces (about as long)"
	@echo "make picture   README's picture, of a VAE that is trained for it (about 15 minutes on two cores)"
	@echo "make test    lint, types and tests"
	@echo "make test-quick   for every edit: lint, types, and the tests that neither train nor start processes"
	@echo "make test-all   all tests, with those that take minutes each"
	@echo "make test-settings   the numerical tests under other kernels and thread counts"
	@echo "make test-versions   a short suite with the oldest versions of pyproject.toml, and under Python 3.12 and 3.13"
	@echo "make licences   the licence of every package of requirements.lock; fails where one is not permissive"
	@echo "make docs    the documents as a site, docs/_build/html/index.html"
	@echo "make clean   remove what these made"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)

demo: $(READY)
	test -f $(DEMO)/ears/val_teacher.npy || $(BIN)/python -m data.synthetic.ears --out $(DEMO)/ears --overwrite \
		--subjects 200 --images-per-subject 10 --image-size 64 --image-grid $(DEMO)/ears.png
	$(BIN)/python -m ear_teacher.train --config configs/demo.yaml
	$(BIN)/python -m ear_teacher.evaluate --checkpoint $(DEMO)/checkpoints/last.ckpt \
		--out $(DEMO)/evaluation --overwrite
	@echo
	@echo "look at    $(DEMO)/evaluation/reconstructions.png, worst.png, samples.png"
	@echo "curves     $(BIN)/tensorboard --logdir $(DEMO)/logs"
	@echo "features   $(BIN)/earface ears extract --checkpoint $(DEMO)/checkpoints/last.ckpt --input $(DEMO)/ears/images --clusters 8"
	@echo "your own   $(BIN)/earface ears prepare --images FOLDER, one folder per person in it; then $(BIN)/earface ears train"

demo-faces: $(READY)
	test -f $(FACES)/faces/splits.json || { \
		$(BIN)/python -m data.synthetic.faces --out $(FACES)/synthetic --overwrite --subjects 200 \
			--images-per-subject 10 --image-grid $(FACES)/synthetic.png && \
		$(BIN)/python -m data.prepare_faces --images $(FACES)/synthetic --aligned --vlr-size 16 \
			--out $(FACES)/faces --overwrite; }
	$(BIN)/python -m dsr.train_dsr --config configs/demo_faces.yaml --recognizer $(RECOGNIZER) \
		--second-recognizer $(RECOGNIZER) $(if $(filter none,$(RECOGNIZER)),--lambda-identity 0 --lambda-feature-match 0)
	$(BIN)/python -m dsr.evaluate --checkpoint $(FACES)/checkpoints/last.ckpt \
		--dataset-root $(FACES)/faces --recognizer $(RECOGNIZER) --second-recognizer $(RECOGNIZER) \
		--out $(FACES)/evaluation --overwrite
	@echo
	@echo "look at    $(FACES)/evaluation/faces.png"
	@echo "curves     $(BIN)/tensorboard --logdir $(FACES)/logs"
	@echo "upscale    $(BIN)/earface dsr upscale --checkpoint $(FACES)/checkpoints/last.ckpt --input $(FACES)/faces/test_processed/vlr_images --out $(FACES)/upscaled"
	@echo "your own   $(BIN)/earface faces prepare --images FOLDER, one folder per person in it; then $(BIN)/earface dsr train"

# Exit code 75: paused after the epochs that are needed.
picture: $(READY)
	test -f $(PICTURE)/ears/val_teacher.npy || $(BIN)/python -m data.synthetic.ears --out $(PICTURE)/ears --overwrite \
		--subjects 300 --images-per-subject 10 --image-size 192
	test -f $(PICTURE)/canonical/val_teacher.npy || $(BIN)/python -m data.prepare_ears --images $(PICTURE)/ears/images \
		--subject-pattern '^[^_]+' --out $(PICTURE)/canonical
	$(BIN)/python -m ear_teacher.train --config configs/picture.yaml --stop-after-epoch 5 || test $$? -eq 75
	$(BIN)/python -m benchmarks.readme_picture $(PICTURE)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) --durations 15

test-quick: lint
	$(PYTEST) -m "not slow and not runs"

test-all: lint
	$(PYTEST) --durations 15 -m "" --timeout 3600

test-settings: $(READY)
	$(BIN)/python -m benchmarks.settings

# Environments of 5 to 6 GB each, which are kept for the next time.
test-versions: $(READY)
	$(BIN)/python -m benchmarks.settings --short --only versions --environments $(ENVIRONMENTS) --workers 2

licences: $(READY)
	$(BIN)/python -m benchmarks.licences

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . docs/_build/html

clean:
	rm -rf $(DEMO) $(FACES) $(PICTURE)
