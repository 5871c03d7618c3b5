"""Score predicted depth against exported ground truth, or write it for KITTI's server."""

import dataclasses
import json
import math
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from checkpoint import DepthModel, load_depth_model, training_split
from datasets import (
    Benchmark,
    GroundTruth,
    benchmark,
    read_image,
    recordings,
    write_submission,
)
from inference import predict_disparities
from metrics import (
    DepthErrors,
    DepthSummary,
    Protocol,
    ServerErrors,
    resized_depth,
    score_depth,
    summarise,
)
from options import EvalDepthOptions, parse, to_json
from released import fetch_released
from utils import UserError, atomic_write, demand_writable, pick_device, run_script

Disparities = Iterator[Float[np.ndarray, "h w"]]


class Factor(NamedTuple):
    """What predicted depths are multiplied by, and where that comes from."""

    value: float
    origin: str

    def __str__(self) -> str:
        return f"depth x {self.value:.4g} ({self.origin})"


# Where disparities come from ----------------------------------------------------------------------


def load_model(options: EvalDepthOptions, weights: Path) -> DepthModel:
    """The model to evaluate, on its device."""
    loaded = load_depth_model(weights)
    if options.num_layers not in (None, loaded.num_layers):
        raise UserError(
            f"{weights}: weights of another architecture: ResNet "
            f"{loaded.num_layers}, not --num_layers {options.num_layers}"
        )
    loaded.model.to(pick_device(options.no_cuda)).eval()
    return loaded


def predict(options: EvalDepthOptions, loaded: DepthModel, bench: Benchmark) -> Disparities:
    """Scaled disparity (1 / depth) of every frame of a benchmark, at the network's size."""
    model, height, width = loaded.model, loaded.height, loaded.width
    frames = bench.frames(options.data_path)
    dataset = bench.dataset(options.data_path, frames, height, width, png=options.png)
    device = pick_device(options.no_cuda)
    print(f"predicting {len(frames)} frames of {bench.name} at {width}x{height} on {device}")
    return predict_disparities(
        model,
        dataset,
        options.batch_size,
        options.num_workers,
        options.min_depth,
        options.max_depth,
        options.post_process,
    )


def read_disparities(path: Path) -> Disparities:
    """Scaled disparities saved by this or another program."""
    try:
        disps = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of disparities") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an array ({error})") from None
    if disps.dtype.kind != "f" or disps.ndim != 3 or 0 in disps.shape:
        raise UserError(f"{path}: does not hold float disparities [N h w]")
    for i, disp in enumerate(disps):
        if not (np.isfinite(disp).all() and (disp >= 0).all()):
            raise UserError(f"{path}: disparity {i} has negative or non-finite values")
        yield np.asarray(disp, np.float32)


def eigen_to_benchmark(disps: Disparities, options: EvalDepthOptions) -> Disparities:
    """Of disparities for split eigen those whose frames eigen_benchmark has, in its order."""
    eigen = benchmark("eigen", "kitti").frames(options.data_path)
    chosen = set(benchmark("eigen_benchmark", "kitti").frames(options.data_path))
    count = 0
    for count, disp in enumerate(disps, start=1):
        if count <= len(eigen) and eigen[count - 1] in chosen:
            yield disp
    if count != len(eigen):
        raise UserError(
            f"{options.ext_disp_to_eval}: holds {count} disparities, not eigen's {len(eigen)}"
        )


def saving(disps: Disparities, path: Path) -> Disparities:
    """Hand disparities on and write them all to `path` at the end."""
    kept = []
    for disp in disps:
        kept.append(disp)
        yield disp
    with atomic_write(path) as file:
        np.save(file, np.stack(kept))
    print(f"{len(kept)} scaled disparities in {path}")


# How they are scored ------------------------------------------------------------------------------


def read_ground_truth(path: Path, bench: Benchmark, options: EvalDepthOptions) -> GroundTruth:
    """Exported ground truth, which must be that of the benchmark."""
    gt = GroundTruth(path)
    # Predictions in a file need no images, so where those are the list, the file's frames count.
    if options.ext_disp_to_eval is None or not bench.lists_images:
        if gt.frames != [str(frame) for frame in bench.frames(options.data_path)]:
            raise UserError(f"{path}: belongs to other frames than {bench.name}; export it again")
    if gt.dataset != bench.dataset.__name__:
        raise UserError(f"{path}: holds depth of {gt.dataset}: give its --dataset here too")
    return gt


def chosen_protocol(options: EvalDepthOptions, bench: Benchmark) -> Protocol:
    """The benchmark's rules with the asked scaling."""
    protocol = bench.protocol
    if protocol is None:
        raise UserError(
            f"--dataset {options.dataset} has no depth benchmark: choose --dataset kitti"
        )
    if options.eval_stereo and protocol.stereo_scale is None:
        raise UserError(f"{protocol.name} has no stereo scale: evaluate with --eval_mono")
    given = options.eval_stereo or options.scale_split or options.disable_median_scaling
    if protocol.scaling == "global_median":
        given = given or options.pred_depth_scale_factor != 1
    return dataclasses.replace(protocol, scaling="none") if given else protocol


def chosen_factor(
    options: EvalDepthOptions, protocol: Protocol, loaded: DepthModel | None
) -> Factor:
    """The factor that the flags ask for."""
    if options.eval_stereo:
        return Factor(protocol.stereo_scale, "the stereo rig's")
    if options.scale_split is None:
        return Factor(options.pred_depth_scale_factor, "--pred_depth_scale_factor")
    bench = benchmark(options.scale_split, options.dataset)
    rules = chosen_protocol(options, bench)
    gt = read_ground_truth(bench.folder / "gt_depths.npz", bench, options)
    summary, _ = score(predict(options, loaded, bench), gt, rules, 1.0)
    return Factor(summary.ratio, f"the median ratio of {summary.images} images of {bench.name}")


def score(
    disps: Disparities, gt: GroundTruth, protocol: Protocol, depth_scale: float
) -> tuple[DepthSummary, list[dict[str, Any]]]:
    """Mean metrics and those of each image that has ground truth which counts."""
    scores, per_image = [], []
    count = 0
    for count, disp in enumerate(disps, start=1):
        if count > len(gt):
            break
        one = score_depth(disp, gt[count - 1], protocol, depth_scale)
        if one is not None:
            if not 0 < one.ratio < math.inf:
                raise UserError(f"'{gt.frames[count - 1]}': the median prediction is no depth")
            scores.append(one)
            frame = {"frame": gt.frames[count - 1], "ratio": one.ratio}
            server = one.server._asdict() if one.server is not None else {}
            per_image.append(frame | one.errors._asdict() | server)
    if count != len(gt):
        more = "more" if count > len(gt) else f"only {count}"
        raise UserError(f"{gt.path}: holds {len(gt)} depth maps, but there are {more} predictions")
    if not scores:
        raise UserError(f"{gt.path}: no pixel of the ground truth counts")
    return summarise(scores), per_image


def warn_of_leakage(weights: Path, bench: Benchmark, options: EvalDepthOptions) -> None:
    """Say so where the weights were trained on recordings that they are now scored on."""
    split = training_split(weights)
    if split is None:
        return
    try:
        trained_on = recordings(split)
    except UserError:  # a split that is not here any more
        return
    shared = trained_on & {Path(frame.folder).name for frame in bench.frames(options.data_path)}
    if shared:
        print(
            f"WARNING: trained on split {split}, which has {len(shared)} of the recordings of "
            f"{bench.name} (such as {min(shared)})"
        )
    elif bench.is_submitted and split != "benchmark":
        print(
            f"WARNING: trained on split {split}. The server's images come from recordings that of "
            "KITTI's splits only 'benchmark' leaves out: submit what was trained on that"
        )


# What comes out -----------------------------------------------------------------------------------


def table(errors: DepthErrors | ServerErrors) -> str:
    """Metrics for people and for LaTeX."""
    widths = [max(len(name), 8) for name in errors._fields]
    return "\n".join(
        (
            " | ".join(f"{name:>{w}}" for name, w in zip(errors._fields, widths, strict=True)),
            " | ".join(f"{value:{w}.3f}" for value, w in zip(errors, widths, strict=True)),
            "& " + " & ".join(f"{value:.3f}" for value in errors) + r" \\",
        )
    )


def evaluate(
    options: EvalDepthOptions,
    bench: Benchmark,
    disps: Disparities,
    gt: GroundTruth,
    protocol: Protocol,
    factor: Factor,
) -> None:
    """Print the metrics, and write them where --json says."""
    if protocol.scaling == "global_median":
        kept = list(disps)
        summary, _ = score(iter(kept), gt, protocol, 1.0)
        disps, factor = iter(kept), Factor(summary.ratio, "the median ratio of these very images")
    summary, per_image = score(disps, gt, protocol, factor.value)
    print(f"\nprotocol: {protocol.describe()}" + (f", {factor}" if factor.value != 1 else ""))
    print(f"ground truth: {gt.source}")
    whole = bench.official_images
    print(f"images: {summary.images} of {len(gt)}", end="")
    print(f" (the benchmark has {whole})" if whole not in (None, len(gt)) else "")
    print(f"ratio gt / prediction: median {summary.ratio:.3f}, spread {summary.ratio_spread:.3f}")
    print(f"\n{table(summary.errors)}")
    if summary.server is not None:
        print("\nas KITTI's server: SILog in 100 log(m), relative errors in %, iRMSE in 1/km")
        print(table(summary.server))
    if options.json is not None:
        result = {
            "metrics": summary.errors._asdict(),
            "server_metrics": summary.server and summary.server._asdict(),
            "ratio": {"median": summary.ratio, "spread": summary.ratio_spread},
            "images": summary.images,
            "protocol": protocol.describe(),
            "depth_scale": factor._asdict(),
            "ground_truth": gt.source,
            "options": to_json(options),
            "per_image": per_image,
        }
        with atomic_write(options.json, "w") as file:
            json.dump(result, file, indent=2, allow_nan=False)
        print(f"\nwritten to {options.json}", file=sys.stderr)


def submit(
    options: EvalDepthOptions,
    bench: Benchmark,
    disps: Disparities,
    protocol: Protocol,
    factor: Factor,
    path: Path,
) -> None:
    """Write the zip of 16-bit depth images that KITTI's server takes."""
    frames = bench.frames(options.data_path)
    dataset = bench.dataset(options.data_path, frames, height=0, width=0, png=options.png)

    def depth_maps() -> Iterator[np.ndarray]:
        for frame in frames:
            disp = next(disps, None)
            if disp is None:
                raise UserError(f"fewer predictions than the {len(frames)} images of {bench.name}")
            width, height = read_image(dataset.find_image(frame)).size
            depth_m = factor.value * resized_depth(disp, (height, width))
            yield np.clip(depth_m, *protocol.pred_range_m)
        if next(disps, None) is not None:
            raise UserError(f"more predictions than the {len(frames)} images of {bench.name}")

    count = write_submission(path, depth_maps())
    print(f"{factor}\n{count} depth images for KITTI's depth-prediction server in {path}")


def main() -> None:
    options = parse(EvalDepthOptions)
    bench = benchmark(options.eval_split, options.dataset)
    scored = not (options.no_eval or bench.is_submitted)
    protocol = None if options.no_eval else chosen_protocol(options, bench)
    gt_file = options.gt_file or bench.folder / "gt_depths.npz"
    gt = read_ground_truth(gt_file, bench, options) if scored else None

    weights = options.load_weights_folder
    if options.model_name is not None:
        weights = fetch_released(options.model_name, base_url=options.models_url)
    out = options.eval_out_dir or weights
    saved = out / f"disps_{bench.name}_split.npy" if options.save_pred_disps else None
    submission = out / "benchmark_submission.zip" if bench.is_submitted else None
    for path in filter(None, (saved, submission, options.json)):
        demand_writable(path)

    loaded = None
    if weights is not None:
        loaded = load_model(options, weights)
        warn_of_leakage(weights, bench, options)
    if protocol is not None:
        factor = chosen_factor(options, protocol, loaded)
    if loaded is not None:
        disps = predict(options, loaded, bench)
    else:
        disps = read_disparities(options.ext_disp_to_eval)
    if options.eval_eigen_to_benchmark:
        disps = eigen_to_benchmark(disps, options)
    if saved is not None:
        disps = saving(disps, saved)

    if options.no_eval:
        deque(disps, maxlen=0)
    elif bench.is_submitted:
        submit(options, bench, disps, protocol, factor, submission)
    else:
        evaluate(options, bench, disps, gt, protocol, factor)


if __name__ == "__main__":
    run_script(main)
