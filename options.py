"""Command-line flags: one frozen dataclass per concern; a script's options inherit its concerns.

`parse(TrainOptions)` makes an argparse group of each concern, so `-h` shows what applies and
nothing else. A file of flags can be given as `@experiments/name.args`; what follows overrides it.
Some defaults depend on the data set: `flag(192, ..., nyuv2=480)`.
"""

import argparse
import dataclasses
import inspect
import json
import math
import shlex
import textwrap
import types
import typing
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from camera import Camera
from datasets import DATASETS, known_benchmark, split_folder
from utils import OneLineParser, UserError

ROOT = Path(__file__).resolve().parent
NetworkName = Literal["encoder", "depth", "pose_encoder", "pose", "predictive_mask"]
NETWORKS: tuple[str, ...] = typing.get_args(NetworkName)
NEWEST = Path("newest")  # --resume without a file
RESUMED_AS_WISHED = {  # what a resumed run may have otherwise than before
    "resume", "log_dir", "model_name", "data_path", "num_workers", "log_frequency",
    "save_frequency", "save_steps", "keep", "num_epochs", "on_bad_sample", "max_bad_steps",
    "no_cuda", "load_weights_folder", "models_to_load", "no_data_check",
}  # fmt: skip
DatasetName = Literal["kitti", "kitti_odom", "kitti_depth", "nyuv2", "nyuv2_raw", "folder"]


def flag(default: Any, help: str, alone: Any = None, **by_dataset: Any) -> Any:
    """A field with its help text; a bool becomes a switch, a tuple takes several values.

    `alone` is the value of a flag that may come without one, and `by_dataset` holds the defaults of
    data sets that have their own.
    """
    metadata = {"help": help, "by_dataset": by_dataset, "alone": alone}
    return dataclasses.field(default=default, metadata=metadata)


def default_of(field: dataclasses.Field, dataset: str) -> Any:
    """A flag's default for a data set."""
    return field.metadata["by_dataset"].get(dataset, field.default)


class Options:
    """Base of all concerns. Each may define `check`, which raises ValueError for bad values."""

    split_flag: ClassVar[str | None] = None  # its benchmark says which data set, if no flag does

    def __post_init__(self) -> None:
        for concern in reversed(type(self).__mro__):
            if "check" in vars(concern):
                concern.check(self)

    def _demand(self, good: bool, message: str) -> None:
        if not good:
            raise ValueError(message)

    def _demand_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            good = 0 < value < math.inf
            self._demand(good, f"--{name} must be a positive number, not {value}")


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
    """data on disk"""

    data_path: Path = flag(
        ROOT / "kitti_data",
        "root folder of the data set",
        nyuv2=Path("nyuv2"),
        nyuv2_raw=Path("nyuv2_raw"),
        folder=Path("video"),
    )
    dataset: DatasetName = flag("kitti", "kind of data set; benchmarks choose theirs by name")
    png: bool = flag(False, "use PNG images only (otherwise JPEG or PNG, whichever is there)")

    def check(self) -> None:
        split = getattr(self, self.split_flag) if self.split_flag else None
        self._demand(
            split != "", f"--dataset {self.dataset} has no benchmark: give --{self.split_flag}"
        )
        usual = _dataset_of(split)
        self._demand(
            usual in ("kitti", self.dataset),
            f"--dataset {self.dataset}: split {split} is of --dataset {usual}",
        )

    def _is_usual(self, name: str) -> bool:
        """Whether a flag has the default of the data set."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        return getattr(self, name) == default_of(fields[name], self.dataset)


@dataclasses.dataclass(frozen=True)
class SampleOptions(SourceOptions):
    """training samples"""

    split_flag = "split"
    split: str = flag(
        "eigen_zhou",
        "name of a folder in splits/ (the project's, or the data's own), or the path of one",
        nyuv2="nyuv2",
        nyuv2_raw="nyuv2_raw",
        folder="video",
    )
    height: int = flag(192, "input height in pixels, a multiple of 32", nyuv2=480, nyuv2_raw=288)
    width: int = flag(640, "input width in pixels, a multiple of 32", nyuv2_raw=384)
    frame_ids: tuple[int, ...] = flag((0, -1, 1), "offsets of the frames of a sample, 0 first")
    use_stereo: bool = flag(False, "add the stereo partner to the sources")
    intrinsics: Literal["nominal", "calib"] = flag(
        "nominal",
        "the data set's published camera, or the calibration of each recording",
        nyuv2_raw="calib",
        folder="calib",
    )
    nyuv2_neighbours: Literal["scene", "any"] = flag(
        "scene",
        "which labelled NYUv2 images are each other's neighbours: those of the same scene, or, as "
        "the report had it, any whose numbers follow each other",
    )

    def check(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            good = size >= 64 and size % 32 == 0
            self._demand(good, f"--{name} must be a multiple of 32 from 64 on, not {size}")
        ids = self.frame_ids
        self._demand(ids[0] == 0, f"--frame_ids must start with 0, not {ids[0]}")
        self._demand(len(set(ids)) == len(ids), "--frame_ids names a frame twice")
        self._demand(
            len(ids) > 1 or self.use_stereo, "--frame_ids 0 alone needs --use_stereo: no source"
        )
        nyuv2 = self.dataset in ("nyuv2", "nyuv2_raw")
        self._demand(not (nyuv2 and self.use_stereo), "--use_stereo: NYUv2 has one camera")
        self._demand(
            self.nyuv2_neighbours == "scene" or self.dataset == "nyuv2",
            "--nyuv2_neighbours is about --dataset nyuv2",
        )
        self._demand(
            self.dataset not in ("nyuv2_raw", "folder") or self.intrinsics == "calib",
            f"--intrinsics nominal: the camera of --dataset {self.dataset} is the one beside its "
            "frames; leave the flag out",
        )


@dataclasses.dataclass(frozen=True)
class ModelOptions(Options):
    """networks"""

    num_layers: Literal[18, 34, 50, 101, 152] = flag(18, "depth of the ResNet encoders")
    weights_init: Literal["pretrained", "scratch"] = flag(
        "pretrained",
        "start the encoders from ImageNet weights, or from random ones",
        nyuv2="scratch",
    )
    scales: tuple[int, ...] = flag((0, 1, 2, 3), "scales of the disparity that the loss uses")
    pose_model_type: Literal["separate_resnet", "shared", "posecnn"] = flag(
        "separate_resnet", "pose network: own encoder, the depth encoder's features, or PoseCNN"
    )
    pose_model_input: Literal["pairs", "all"] = flag(
        "pairs", "frames that the pose network sees at once"
    )
    predictive_mask: bool = flag(
        False, "learn a mask per source (ablation; needs --disable_automasking)"
    )

    learn_intrinsics: bool = flag(
        False, "learn the focal length of each camera, starting from the one given (approximate)"
    )

    def check(self) -> None:
        good = list(self.scales) == sorted(set(self.scales)) and set(self.scales) <= {0, 1, 2, 3}
        self._demand(
            good and 0 in self.scales, "--scales must be ascending numbers of 0 1 2 3, with 0"
        )


@dataclasses.dataclass(frozen=True)
class DepthRangeOptions(Options):
    """depth range"""

    min_depth: float = flag(0.1, "depth of a disparity of 1")
    max_depth: float = flag(100.0, "depth of a disparity of 0", nyuv2=10.0, nyuv2_raw=10.0)

    def check(self) -> None:
        self._demand_positive("min_depth", "max_depth")
        good = self.min_depth < self.max_depth
        self._demand(good, f"--min_depth {self.min_depth} is not below --max_depth")


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """loss (the switches are the paper's ablations)"""

    disparity_smoothness: float = flag(1e-3, "weight of the edge-aware smoothness")
    v1_multiscale: bool = flag(False, "compare images at each scale's own resolution")
    avg_reprojection: bool = flag(False, "average over sources instead of the minimum")
    disable_automasking: bool = flag(False, "do not mask out static pixels")
    no_ssim: bool = flag(False, "compare images by L1 alone")

    def check(self) -> None:
        good = 0 <= self.disparity_smoothness < math.inf
        self._demand(
            good, f"--disparity_smoothness must be 0 or more, not {self.disparity_smoothness}"
        )


@dataclasses.dataclass(frozen=True)
class OptimOptions(Options):
    """optimisation"""

    batch_size: int = flag(12, "samples per step")
    accumulate_grad: int = flag(1, "passes of --batch_size whose gradients make one step")
    learning_rate: float = flag(1e-4, "of Adam")
    num_epochs: int = flag(20, "passes over the training split")
    scheduler_step_size: tuple[int, ...] = flag(
        (15,),
        "epochs after which the learning rate drops to a tenth: one number, again and again; "
        "several, after each of them",
    )
    load_weights_folder: Path | None = flag(None, "weights to start from")
    models_to_load: tuple[NetworkName, ...] = flag(
        (), "networks that take these weights (default: all)"
    )
    freeze: tuple[NetworkName, ...] = flag(
        (), "networks that stay as they are, batch-norm statistics included"
    )

    def check(self) -> None:
        self._demand_positive("batch_size", "accumulate_grad", "learning_rate", "num_epochs")
        steps = self.scheduler_step_size
        self._demand(
            0 < steps[0] and list(steps) == sorted(set(steps)),
            f"--scheduler_step_size must be ascending numbers of epochs, not {_shown(steps)}",
        )
        good = not self.models_to_load or self.load_weights_folder is not None
        self._demand(good, "--models_to_load needs --load_weights_folder")


@dataclasses.dataclass(frozen=True)
class WorkersOptions(Options):
    """workers"""

    num_workers: int = flag(-1, "workers that load data; -1: one per core, 12 at most")

    def check(self) -> None:
        self._demand(self.num_workers >= -1, "--num_workers must be 0 or more, or -1")


@dataclasses.dataclass(frozen=True)
class DeviceOptions(Options):
    """machine"""

    no_cuda: bool = flag(False, "stay on the CPU")


@dataclasses.dataclass(frozen=True)
class SpeedOptions(Options):
    """speed (geometry and loss are always fp32)"""

    precision: Literal["fp32", "bf16", "fp16"] = flag("fp32", "of the networks; fp16 needs a GPU")
    compile: bool = flag(False, "compile networks and loss: some minutes at the start, then faster")
    sync_batchnorm: bool = flag(
        False, "batch-norm statistics over all processes of torchrun (needs GPUs)"
    )


@dataclasses.dataclass(frozen=True)
class LogOptions(Options):
    """files and log"""

    log_dir: Path = flag(Path("~/tmp"), "folder of all runs")
    model_name: str = flag("mdp", "name of the run, a folder in --log_dir")
    log_frequency: int = flag(250, "steps between entries in TensorBoard")
    save_frequency: int = flag(1, "epochs between saved weights; the last are always saved")
    seed: int = flag(0, "of all random numbers")
    no_data_check: bool = flag(
        False, "start without looking at the data, which takes five seconds at most"
    )

    def check(self) -> None:
        self._demand_positive("log_frequency", "save_frequency")
        self._demand(0 <= self.seed < 2**63, f"--seed must be 0 or more, not {self.seed}")
        good = self.model_name not in ("", ".", "..") and Path(self.model_name).name == (
            self.model_name
        )
        self._demand(good, f"--model_name '{self.model_name}' is not the name of a folder")


@dataclasses.dataclass(frozen=True)
class ResumeOptions(Options):
    """stopping and going on"""

    save_steps: int = flag(0, "steps between saved states, for --resume, beside those of epochs")
    keep: int = flag(0, "newest weights and states that stay; 0: all weights, two states")
    resume: Path | None = flag(
        None,
        "go on with this run where its newest state (or the one named) was saved",
        alone=NEWEST,
    )
    on_bad_sample: Literal["stop", "skip"] = flag(
        "stop",
        "what to do with images that cannot be read: stop, or let other samples stand in (at most "
        "5 %% of the split)",
    )
    max_bad_steps: int = flag(
        10, "steps in a row whose loss or gradient is not finite, each skipped, until it stops"
    )

    def check(self) -> None:
        self._demand_positive("max_bad_steps")
        for name in ("save_steps", "keep"):
            self._demand(getattr(self, name) >= 0, f"--{name} must be 0 or more")


@dataclasses.dataclass(frozen=True)
class TrainOptions(
    ResumeOptions,
    LogOptions,
    DeviceOptions,
    WorkersOptions,
    SpeedOptions,
    OptimOptions,
    LossOptions,
    DepthRangeOptions,
    ModelOptions,
    SampleOptions,
):
    """Train depth and pose networks on image sequences, stereo pairs, or both."""

    def check(self) -> None:
        self._demand(
            not self.learn_intrinsics or len(self.frame_ids) > 1,
            "--learn_intrinsics needs a moving camera: --frame_ids 0 alone has none",
        )
        self._demand(
            self.pose_model_input == "pairs" or len(self.frame_ids) != 2,
            "--pose_model_input all needs three --frame_ids or more; two are a pair",
        )
        self._demand(
            self.disable_automasking or not self.predictive_mask,
            "--predictive_mask replaces auto-masking: add --disable_automasking",
        )
        for name in ("models_to_load", "freeze"):
            absent = [network for network in getattr(self, name) if network not in self.networks]
            self._demand(
                not absent,
                f"--{name} {' '.join(absent)}: these options make only {' '.join(self.networks)}",
            )
        left = set(self.networks) - set(self.freeze)
        self._demand(bool(left), "--freeze names all networks: nothing to train")

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that these options make."""
        absent = set()
        if len(self.frame_ids) == 1:
            absent |= {"pose_encoder", "pose"}
        if self.pose_model_type != "separate_resnet":
            absent.add("pose_encoder")
        if not self.predictive_mask:
            absent.add("predictive_mask")
        return tuple(name for name in NETWORKS if name not in absent)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the networks that start from saved weights."""
        if self.load_weights_folder is None:
            return ()
        return self.models_to_load or self.networks

    @property
    def needs_imagenet(self) -> bool:
        """Whether some encoder starts from ImageNet weights."""
        encoders = {"encoder", "pose_encoder"} & set(self.networks)
        new = self.weights_init == "pretrained" and self.resume is None
        return new and not encoders <= set(self.loaded)


@dataclasses.dataclass(frozen=True)
class ExportOptions(WorkersOptions, SourceOptions):
    """Export the ground truth of a split for evaluate_depth.py."""

    split_flag = "split"
    split: str = flag(
        "eigen",
        "eigen, eigen_benchmark, benchmark_val, benchmark_report, benchmark_scale, nyuv2, "
        "nyuv2_official, nyuv2_report, or the path of a split folder",
        nyuv2="nyuv2",
        nyuv2_raw="",
        folder="video",
    )
    depth_axis: Literal["velodyne_x", "camera_z"] = flag(
        "velodyne_x",
        "what LiDAR ground truth holds: the scanner's forward coordinate, as all published "
        "numbers, or the depth seen by the camera (about 0.27 m less)",
    )
    nyuv2_depth: Literal["filled", "raw"] = flag(
        "filled",
        "what NYUv2 ground truth holds: the labelled set's in-painted depth, as published numbers, "
        "or only what the sensor measured",
    )
    gt_file: Path | None = flag(None, "file to write (default: gt_depths.npz in the split)")
    overwrite: bool = flag(False, "replace an existing file instead of refusing")


@dataclasses.dataclass(frozen=True)
class WeightsOptions(Options):
    """trained weights"""

    load_weights_folder: Path | None = flag(None, "weights to evaluate")
    model_name: str | None = flag(
        None, "evaluate this released model instead, such as mono_640x192 (downloaded once)"
    )
    models_url: str | None = flag(None, "address of a mirror of the released models")

    def check(self) -> None:
        good = self.load_weights_folder is None or self.model_name is None
        self._demand(good, "--load_weights_folder and --model_name are two choices: give one")
        good = self.models_url is None or self.model_name is not None
        self._demand(good, "--models_url needs --model_name: nothing is downloaded")


@dataclasses.dataclass(frozen=True)
class EvalDepthOptions(
    WeightsOptions, DeviceOptions, WorkersOptions, DepthRangeOptions, SourceOptions
):
    """Score depth: predictions of saved weights, or disparities in a file."""

    num_layers: Literal[18, 34, 50, 101, 152] | None = flag(
        None, "depth of the encoder (read from the weights, which must agree)"
    )
    split_flag = "eval_split"
    batch_size: int = flag(16, "images per pass")
    eval_split: str = flag(
        "eigen",
        "eigen, eigen_benchmark, benchmark_val, benchmark_report, benchmark (for the server), "
        "nyuv2, nyuv2_official, nyuv2_report, or the path of a split folder",
        nyuv2="nyuv2",
        nyuv2_raw="",
        folder="video",
    )
    nyuv2_protocol: Literal["A", "B", "C"] | None = flag(
        None,
        "rules for NYUv2: A, as P2Net, on images cut to the valid region (the default); B, as "
        "SC-Depth, on whole images; C, as supervised work, without median scaling",
    )
    eval_mono: bool = flag(
        False,
        "scale predictions as the benchmark does, by the median",
        nyuv2=True,
        nyuv2_raw=True,
    )
    eval_stereo: bool = flag(False, "evaluate in metres, by the scale of the stereo rig")
    post_process: bool = flag(False, "average with the prediction of the mirrored image")
    uncertainty: bool = flag(
        False, "also say how well the mirrored image's disagreement ranks the errors (AUSE)"
    )
    disable_median_scaling: bool = flag(False, "score the predictions as they are")
    metric: bool = flag(False, "score in metres, by the scale.json of tools/calibrate_scale.py")
    pred_depth_scale_factor: float | None = flag(None, "multiply predicted depths by this")
    scale_split: str | None = flag(
        None, "multiply predicted depths by the median ratio on this split, once it is exported"
    )
    ext_disp_to_eval: Path | None = flag(None, ".npy of scaled disparities [N h w] to score")
    eval_eigen_to_benchmark: bool = flag(
        False, "the disparities are of split eigen: score those that eigen_benchmark holds"
    )
    save_pred_disps: bool = flag(False, "save the scaled disparities as .npy")
    no_eval: bool = flag(False, "predict and save only")
    eval_out_dir: Path | None = flag(
        None, "folder for saved disparities or the submission (default: the weights')"
    )
    gt_file: Path | None = flag(None, "ground truth (default: gt_depths.npz in the split)")
    json: Path | None = flag(None, "also write the result to this file")

    def check(self) -> None:
        self._demand_positive("batch_size")
        if self.pred_depth_scale_factor is not None:
            self._demand_positive("pred_depth_scale_factor")
        good = not (self.eval_stereo and self.dataset.startswith("nyuv2"))
        self._demand(good, "--eval_stereo: NYUv2 has one camera and no stereo scale")
        good = self.eval_mono != self.eval_stereo or (self.metric and not self.eval_stereo)
        self._demand(good, "choose one of --eval_mono and --eval_stereo")
        predicting = self.ext_disp_to_eval is None
        weights = self.load_weights_folder is not None or self.model_name is not None
        self._demand(
            weights == predicting,
            "give one of --load_weights_folder, --model_name and --ext_disp_to_eval",
        )
        for name in (
            "post_process", "save_pred_disps", "no_eval", "scale_split", "num_layers", "metric",
            "uncertainty",
        ):  # fmt: skip
            good = predicting or not getattr(self, name)
            self._demand(good, f"--{name} needs --load_weights_folder: nothing is predicted")
        usual = all(self._is_usual(name) for name in ("min_depth", "max_depth"))
        self._demand(
            predicting or usual,
            "--min_depth and --max_depth are of predictions; a file is scored as is",
        )
        good = not (self.eval_eigen_to_benchmark and predicting)
        self._demand(good, "--eval_eigen_to_benchmark needs --ext_disp_to_eval")
        if self.no_eval:
            self._demand(self.save_pred_disps, "--no_eval without --save_pred_disps does nothing")
            for name in ("json", "gt_file", "scale_split", "pred_depth_scale_factor"):
                good = getattr(self, name) is None
                self._demand(good, f"--no_eval leaves nothing to do for --{name}")
            for name in ("disable_median_scaling", "metric", "uncertainty"):
                good = not getattr(self, name)
                self._demand(good, f"--no_eval leaves nothing to do for --{name}")
        factors = ("pred_depth_scale_factor", "scale_split")
        given = self.eval_stereo + self.metric
        given += sum(getattr(self, name) is not None for name in factors)
        self._demand(
            given <= 1,
            "--eval_stereo, --metric, --pred_depth_scale_factor and --scale_split each set the "
            "factor of predicted depths: give one",
        )


@dataclasses.dataclass(frozen=True)
class CameraOptions(Options):
    """camera of the pictures, for points in space (unknown: KITTI's, 0.58 of the width)"""

    fx: float | None = flag(None, "focal length in pixels of the picture")
    fy: float | None = flag(None, "of its height, where that differs")
    cx: float | None = flag(None, "principal point in pixels (default: the middle)")
    cy: float | None = flag(None, "principal point in pixels (default: the middle)")
    fov_deg: float | None = flag(None, "horizontal field of view instead, in degrees")

    @property
    def camera(self) -> Camera:
        """All of these."""
        return Camera(self.fx, self.fy, self.cx, self.cy, self.fov_deg)

    def check(self) -> None:
        fault = self.camera.fault()
        self._demand(fault is None, fault or "")


@dataclasses.dataclass(frozen=True)
class PredictOptions(WeightsOptions, CameraOptions, DeviceOptions):
    """Predict depth for an image, a folder of images, a video or a webcam."""

    image_path: str | None = flag(
        None, "image, folder, pattern as 'a/*.jpg', video file, or the number of a webcam"
    )
    ext: str | None = flag(None, "of a folder take only files that end in this, such as png")
    onnx: Path | None = flag(None, "depth.onnx of tools/export_onnx.py, instead of weights")
    out: Path | None = flag(None, "folder to write to (default: where each image is)")
    save: tuple[Literal["npy", "picture", "side_by_side", "png16", "ply", "video"], ...] = flag(
        (),
        "npy: disparities at the network's size, _disp.npy; picture: their colours, _disp.jpeg; "
        "side_by_side: with the image; png16: depth as KITTI's 16-bit PNG (256 a metre), "
        "_depth.png; ply: coloured points, .ply; video: the colours of a whole video, _disp.mp4 "
        "(default: npy picture, of a video: video)",
    )
    post_process: bool = flag(False, "average with the prediction of the mirrored image")
    uncertainty: bool = flag(
        False, "also write by how much the mirrored image's prediction differs, as _uncertainty"
    )
    metric: bool = flag(False, "depth in metres, by the scale.json of tools/calibrate_scale.py")
    pred_metric_depth: bool = flag(
        False, "metres of a network trained on KITTI's stereo pairs, as _depth.npy"
    )
    cloud_depth: float | None = flag(
        None, "leave points farther than this out of clouds (default: the farthest 5 %%)"
    )
    max_frames: int | None = flag(None, "stop a video or webcam after so many frames")
    batch_size: int = flag(8, "images per pass")

    def check(self) -> None:
        self._demand(self.image_path is not None, "give --image_path")
        self._demand_positive("batch_size")
        for name in ("cloud_depth", "max_frames"):
            if getattr(self, name) is not None:
                self._demand_positive(name)
        ways = (self.load_weights_folder, self.model_name, self.onnx)
        self._demand(
            sum(way is not None for way in ways) == 1,
            "give one of --load_weights_folder, --model_name and --onnx",
        )
        good = not (self.metric and self.pred_metric_depth)
        self._demand(good, "--metric and --pred_metric_depth are two ways to metres: give one")
        points = "ply" in self.save
        for name in ("fx", "fov_deg", "cloud_depth"):
            good = points or getattr(self, name) is None
            self._demand(good, f"--{name} needs --save ply: nothing else knows of points")


@dataclasses.dataclass(frozen=True)
class EvalPoseOptions(WeightsOptions, DeviceOptions, WorkersOptions):
    """Predict the camera's trajectory on a KITTI odometry sequence, and score it."""

    data_path: Path = flag(ROOT / "kitti_data", "folder with sequences/ and poses/")
    png: bool = flag(False, "use PNG images only (otherwise JPEG or PNG, whichever is there)")
    eval_split: str = flag("odom_9", "odom_<sequence>, as odom_9 or odom_10")
    batch_size: int = flag(16, "pairs per pass")
    pose_scale: float = flag(1.0, "multiply predicted translations by this")
    no_eval: bool = flag(False, "predict and write only; needs no poses")
    eval_out_dir: Path | None = flag(
        None, "folder for trajectory and picture (default: the weights')"
    )
    json: Path | None = flag(None, "also write the result to this file")

    def check(self) -> None:
        self._demand_positive("batch_size", "pose_scale")
        good = not self.no_eval or self.json is None
        self._demand(good, "--no_eval leaves nothing to write to --json")
        good = self.load_weights_folder is not None or self.model_name is not None
        self._demand(good, "give --load_weights_folder or --model_name")
        kind, _, number = self.eval_split.partition("_")
        good = kind == "odom" and number.isascii() and number.isdecimal()
        self._demand(good, f"--eval_split '{self.eval_split}' is not odom_<sequence>")


class _Parser(OneLineParser):
    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        try:
            flags = shlex.split(arg_line, comments=True)
            for flag in flags:
                if flag.startswith("@") and not Path(flag[1:]).is_file():
                    raise ValueError("it names no file")  # nor one without end, as /dev/zero
        except ValueError as error:
            raise ValueError(f"a file of flags has the line '{arg_line}': {error}") from None
        return flags


O = TypeVar("O", bound=Options)  # noqa: E741


def parse(cls: type[O], argv: list[str] | None = None) -> O:
    """The options of a script from the command line; anything wrong ends in one line, status 2."""
    parser = _Parser(
        description=cls.__doc__,
        fromfile_prefix_chars="@",
    )
    hints = typing.get_type_hints(cls)
    for concern in reversed(cls.__mro__):
        own = inspect.get_annotations(concern)
        fields = [field for field in dataclasses.fields(cls) if field.name in own]
        if fields:
            title = "this script" if concern is cls else concern.__doc__
            group = parser.add_argument_group(title)
            for field in fields:
                group.add_argument(f"--{field.name}", **_argument(field, hints[field.name]))
    try:
        given = vars(parser.parse_args(argv))
        dataset = given.get("dataset") or _dataset_of(given.get(cls.split_flag))
        values = {field.name: default_of(field, dataset) for field in dataclasses.fields(cls)}
        if "dataset" in values:
            values["dataset"] = dataset
        return cls(**values | given)
    except RecursionError:
        parser.error("a file of flags names itself")
    except UnicodeDecodeError:
        parser.error("a file of flags is not a text file")
    except ValueError as error:
        parser.error(str(error))


def _argument(field: dataclasses.Field, hint: Any) -> dict[str, Any]:
    """argparse's description of a field."""
    argument: dict[str, Any] = {"default": argparse.SUPPRESS, "help": field.metadata["help"]}
    by_dataset = field.metadata["by_dataset"].items()
    if hint is bool:
        argument["help"] += "".join(f" (on with {dataset})" for dataset, on in by_dataset if on)
        return {**argument, "action": "store_true"}
    if field.default not in (None, ()):
        own = "".join(f"; with {dataset}: {_shown(value)}" for dataset, value in by_dataset)
        argument["help"] += f" (default: {_shown(field.default)}{own})"
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
        argument |= {"nargs": "+", "action": _Tuple}
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        return {**argument, "type": type(choices[0]), "choices": choices}
    kind = _path if hint is Path else hint
    if field.metadata["alone"] is not None:
        argument |= {"nargs": "?", "const": field.metadata["alone"]}
    return {**argument, "type": kind, "metavar": hint.__name__.upper()}


def _path(text: str) -> Path:
    return Path(text).expanduser()


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, tuple(values))


def _dataset_of(split: str | None) -> str:
    """The data set that a benchmark is made of; KITTI, where the split is none."""
    try:
        known = None if split is None else known_benchmark(split_folder(split))
    except UserError:  # no such split: its reader says so
        known = None
    kinds = (name for name, kind in DATASETS.items() if known and issubclass(known.dataset, kind))
    return next(kinds, "kitti")


def _shown(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool) or value in (None, (), ""):
        return "on" if value else "off" if value is False else "none"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def describe(options: Options) -> str:
    """All options with their values, a paragraph for each concern."""
    paragraphs = []
    for concern in reversed(type(options).__mro__):
        names = inspect.get_annotations(concern) if dataclasses.is_dataclass(concern) else ()
        values = [f"{name} {_shown(getattr(options, name))}" for name in names]
        if values:
            text = f"{concern.__doc__.partition(' (')[0]}: {', '.join(values)}"
            paragraphs.append(textwrap.fill(text, 100, subsequent_indent="    "))
    return "\n".join(paragraphs)


def identity_of(options: Options) -> dict[str, Any]:
    """The options that make a run what it is: a resumed one must have the same."""
    values = json.loads(json.dumps(to_json(options)))
    return {f"--{name}": v for name, v in values.items() if name not in RESUMED_AS_WISHED}


def to_json(options: Options) -> dict[str, Any]:
    """Options as plain values."""
    values = dataclasses.asdict(options)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}
