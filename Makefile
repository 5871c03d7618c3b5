# A fresh machine needs `make demo` and `make test`; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEMO := demo
STREET := $(DEMO)/street
WEIGHTS := $(DEMO)/runs/demo/models/weights_13
DEPTH := $(BIN)/python evaluate_depth.py --data_path $(STREET) --eval_split sample --min_depth 0.5
ROOM := $(DEMO)/nyuv2
ROOM_WEIGHTS := $(DEMO)/runs/demo_nyuv2/models/weights_29
ROOM_DEPTH := $(BIN)/python evaluate_depth.py --dataset nyuv2 --data_path $(ROOM) --eval_split $(DEMO)/room/splits/sample

.PHONY: demo demo-nyuv2 bench test test-slow soak fuzz lint clean

$(READY): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

# Streets with exact geometry in KITTI's files; training from scratch on mono and stereo; depth on
# held-out drives, median-scaled and in metres, beside the mean depth of the training frames; the
# pose network's trajectory of one of them; pictures.
demo: $(READY) $(STREET)/splits/sample/test_files.txt
	$(BIN)/python train.py @experiments/demo.args --data_path $(STREET) --split sample --log_dir $(DEMO)/runs
	$(BIN)/python export_gt_depth.py --data_path $(STREET) --split sample --overwrite
	$(DEPTH) --eval_mono --load_weights_folder $(WEIGHTS) --json $(DEMO)/median_scaled.json
	$(DEPTH) --eval_stereo --load_weights_folder $(WEIGHTS) --json $(DEMO)/metres.json
	$(BIN)/python tools/mean_depth.py --data_path $(STREET) --split sample --out $(DEMO)/mean_depth.npy
	$(BIN)/python evaluate_depth.py --data_path $(STREET) --eval_split sample --eval_mono --ext_disp_to_eval $(DEMO)/mean_depth.npy --json $(DEMO)/mean_depth.json
	$(BIN)/python evaluate_pose.py --data_path $(STREET) --eval_split odom_12 --load_weights_folder $(WEIGHTS) --pose_scale 5.4 --eval_out_dir $(DEMO) --json $(DEMO)/odometry.json
	$(BIN)/python tools/show_depth.py --data_path $(STREET) --dataset kitti_depth --eval_split sample --load_weights_folder $(WEIGHTS) --frame 80 --out $(DEMO)/result.png
	@printf '\nheld-out drives, scored as KITTI is\n'
	@$(BIN)/python tools/summary.py --depth "trained, median-scaled=$(DEMO)/median_scaled.json" "trained, in metres=$(DEMO)/metres.json" "mean training depth=$(DEMO)/mean_depth.json" --odometry $(DEMO)/odometry.json
	@printf '\npictures  %s (depth), %s (trajectory)\n' $(DEMO)/result.png $(DEMO)/odom_12.png
	@printf 'weights   %s\n' $(WEIGHTS)
	@printf 'log       %s -m pip install tensorboard; %s --logdir %s\n' $(BIN)/python $(BIN)/tensorboard $(DEMO)/runs

$(STREET)/splits/sample/test_files.txt: | $(READY)
	$(BIN)/python tools/make_sample.py street $(STREET) --frames 16 16 16 16 16 16 16 16 16 16 30 135 --rotation 0.4

# The same for rooms, by way of NYU Depth V2's labelled .mat; mono, for there is one camera.
demo-nyuv2: $(READY) $(ROOM)/scenes.txt
	$(BIN)/python train.py @experiments/demo_nyuv2.args --data_path $(ROOM) --split $(DEMO)/room/splits/sample --log_dir $(DEMO)/runs
	$(BIN)/python export_gt_depth.py --dataset nyuv2 --data_path $(ROOM) --split $(DEMO)/room/splits/sample --overwrite
	$(ROOM_DEPTH) --load_weights_folder $(ROOM_WEIGHTS) --json $(DEMO)/nyuv2.json
	$(BIN)/python tools/mean_depth.py --dataset nyuv2 --data_path $(ROOM) --split $(DEMO)/room/splits/sample --out $(DEMO)/nyuv2_mean_depth.npy
	$(ROOM_DEPTH) --ext_disp_to_eval $(DEMO)/nyuv2_mean_depth.npy --json $(DEMO)/nyuv2_mean_depth.json
	$(BIN)/python tools/show_depth.py --data_path $(ROOM) --dataset nyuv2 --eval_split $(DEMO)/room/splits/sample --load_weights_folder $(ROOM_WEIGHTS) --frame 5 --out $(DEMO)/nyuv2.png
	@printf '\nheld-out room, scored as NYUv2 is\n'
	@$(BIN)/python tools/summary.py --depth "trained, median-scaled=$(DEMO)/nyuv2.json" "mean training depth=$(DEMO)/nyuv2_mean_depth.json"
	@printf '\npicture   %s\nweights   %s\n' $(DEMO)/nyuv2.png $(ROOM_WEIGHTS)
	@printf 'log       %s -m pip install tensorboard; %s --logdir %s\n' $(BIN)/python $(BIN)/tensorboard $(DEMO)/runs

$(ROOM)/scenes.txt: $(DEMO)/room/splits/sample/test_files.txt
	$(BIN)/python tools/prepare_nyuv2.py labelled $(DEMO)/room/nyu_depth_v2_labeled.mat $(ROOM)

$(DEMO)/room/splits/sample/test_files.txt: | $(READY)
	$(BIN)/python tools/make_sample.py room $(DEMO)/room --scenes 10 --frames 12

# All benchmarks of speed, on the GPU where there is one; their figures go to $(DEMO)/bench.
BENCH := $(DEMO)/bench
GPUS := $(shell nvidia-smi -L 2>/dev/null | wc -l)
FAST := $(if $(filter 0,$(GPUS)),,--batch_size 12 --precision bf16 --compile)
bench: $(READY) $(STREET)/splits/sample/test_files.txt $(DEMO)/kitti_size/splits/sample/test_files.txt
	$(BIN)/python benchmarks/bench_loader.py --json $(BENCH)/loader.json
	$(BIN)/python benchmarks/bench_step.py $(FAST) --data_path $(DEMO)/kitti_size --split sample --json $(BENCH)/step.json
	$(BIN)/python benchmarks/bench_eval.py --json $(BENCH)/eval.json
	$(BIN)/python benchmarks/bench_ddp.py --processes $(if $(filter 0,$(GPUS)),2,$(GPUS)) --json $(BENCH)/ddp.json
	$(BIN)/python benchmarks/bench_precision.py --data_path $(STREET) --work $(BENCH)/precision $(filter --compile,$(FAST)) --json $(BENCH)/precision.json

$(DEMO)/kitti_size/splits/sample/test_files.txt: | $(READY)
	$(BIN)/python tools/make_sample.py street $(DEMO)/kitti_size --frames 60 60 8 --test_drives 1 --size 1242x375

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# A training killed twenty times at random instants, and resumed each time; half an hour of training
# whose memory and open files must stay; two hundred starts of the loader.
soak: $(READY)
	$(BIN)/python -m pytest -m slow -rP tests/test_resume.py tests/test_leaks.py

# 20,000 damaged files for every parser, at random, and as many guided by the code that they reach.
fuzz: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[fuzz]"
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/test_parsers.py
	$(BIN)/python tests/fuzz.py -runs=20000

clean:
	rm -rf $(VENV) $(DEMO) notebooks/work *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
