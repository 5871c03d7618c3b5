# A fresh machine needs `make demo` and `make test`; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEMO := demo
WEIGHTS := $(DEMO)/runs/demo/models/weights_9

.PHONY: demo test test-slow lint clean

$(READY): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

# A street with exact geometry in KITTI's layout; training, evaluation (median-scaled, then in
# metres by the stereo baseline) on a held-out drive, a picture.
demo: $(READY) $(DEMO)/data/splits/test_files.txt
	$(BIN)/python train.py @experiments/demo.args --data_path $(DEMO)/data --split $(DEMO)/data/splits --log_dir $(DEMO)/runs
	$(BIN)/python export_gt_depth.py --data_path $(DEMO)/data --split $(DEMO)/data/splits --overwrite
	$(BIN)/python evaluate_depth.py --eval_mono --data_path $(DEMO)/data --eval_split $(DEMO)/data/splits --load_weights_folder $(WEIGHTS) --json $(DEMO)/result.json
	$(BIN)/python evaluate_depth.py --eval_stereo --data_path $(DEMO)/data --eval_split $(DEMO)/data/splits --load_weights_folder $(WEIGHTS)
	$(BIN)/python tools/show_depth.py --data_path $(DEMO)/data --eval_split $(DEMO)/data/splits --load_weights_folder $(WEIGHTS) --frame 20 --out $(DEMO)/result.png
	@echo
	@echo "metrics   $(DEMO)/result.json (held-out drive)"
	@echo "picture   $(DEMO)/result.png"
	@echo "weights   $(WEIGHTS)"
	@echo "log       $(BIN)/python -m pip install tensorboard; $(BIN)/tensorboard --logdir $(DEMO)/runs"

$(DEMO)/data/splits/test_files.txt: tools/make_sample.py | $(READY)
	$(BIN)/python tools/make_sample.py $(DEMO)/data

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) $(DEMO) *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
