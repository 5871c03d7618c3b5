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

from checkpoint import DepthModel, load_depth_model
from datasets import (
    Benchmark,
    GroundTruth,
    benchmark,
    demand_same_frames,
    exported,
    read_ground_truth,
    read_image,
    write_submission,
)
from inference import (
    Disparities,
    Unsure,
    chosen_disparities,
    find_weights,
    known_options,
    predict_disparities,
    read_disparities,
    saved_disparities,
    seen_in_training,
)
from metric_scale import demand_scale, read_scale
from metrics import (
    DepthErrors,
    DepthSummary,
    IndoorErrors,
    Protocol,
    RankingScore,
    ServerErrors,
    resized_depth,
    score_depth,
    score_ranking,
    summarise,
)
from options import EvalDepthOptions, parse, to_json
from utils import UserError, atomic_write, demand_writable, pick_device, run_script


class Factor(NamedTuple):
    """What predicted depths are multiplied by, and where that comes from."""

    value: float
    origin: str = ""

    def __str__(self) -> str:
        return f"depth x {self.value:.4g} ({self.origin})"


# What is scored -----------------------------------------------------------------------------------


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


def predict(
    options: EvalDepthOptions, loaded: DepthModel, bench: Benchmark, uncertainty: bool = False
) -> Disparities | Iterator[Unsure]:
    """Scaled disparity (1 / depth) of every frame of a benchmark, at the network's size."""
    model, height, width = loaded.model, loaded.height, loaded.width
    frames = bench.frames(options.data_path)
    dataset = bench.dataset(
        options.data_path, frames, height, width, png=options.png, input_crop=bench.input_crop
    )
    device = pick_device(options.no_cuda)
    print(
        f"predicting {len(frames)} frames of {bench.name} at {width}x{height} on {device}, depth "
        f"range {options.min_depth:g}-{options.max_depth:g} m"
    )
    return predict_disparities(
        model,
        dataset,
        options.batch_size,
        options.num_workers,
        options.min_depth,
        options.max_depth,
        options.post_process,
        uncertainty,
    )


def from_file(options: EvalDepthOptions, bench: Benchmark) -> Disparities:
    """The disparities of --ext_disp_to_eval, one for each frame of the benchmark."""
    disps = read_disparities(options.ext_disp_to_eval)
    if options.eval_eigen_to_benchmark:
        eigen = benchmark("eigen", "kitti").frames(options.data_path)
        chosen = bench.frames(options.data_path)
        disps = chosen_disparities(disps, eigen, chosen, options.ext_disp_to_eval)
    return disps


def ground_truth(options: EvalDepthOptions, bench: Benchmark) -> GroundTruth:
    """Exported ground truth, which must be that of the benchmark."""
    gt = read_ground_truth(bench, options.gt_file or bench.gt_file)
    # Predictions in a file need no images, so where those are the list, the file's frames count.
    if options.ext_disp_to_eval is None or not bench.lists_images:
        demand_same_frames(gt, bench, options.data_path)
    return gt


def warn_of_leakage(options: EvalDepthOptions, weights: Path, bench: Benchmark) -> None:
    """Say so where the weights were trained on recordings that they are now scored on."""
    split, shared = seen_in_training(weights, bench.frames(options.data_path), options.data_path)
    if shared:
        print(
            f"WARNING: trained on split {split}, which has {len(shared)} of the recordings of "
            f"{bench.name} (such as {min(shared)})"
        )
    elif bench.is_submitted and split not in (None, "benchmark"):
        print(
            f"WARNING: trained on split {split}. The server's images come from recordings that of "
            "KITTI's splits only 'benchmark' leaves out: submit what was trained on that"
        )


def warn_of_depth_range(options: EvalDepthOptions, weights: Path) -> None:
    """Say so where the weights were trained to span another depth than they are read with."""
    trained = known_options(weights)
    for name in ("min_depth", "max_depth"):
        if name in trained and trained[name] != getattr(options, name):
            print(
                f"WARNING: trained with --{name} {trained[name]}, evaluated with "
                f"{getattr(options, name)}"
            )


# At which scale -----------------------------------------------------------------------------------


def chosen_protocol(options: EvalDepthOptions, bench: Benchmark) -> Protocol:
    """The benchmark's rules with the asked scaling."""
    protocol = bench.protocol
    if protocol is None:
        raise UserError(
            f"--dataset {options.dataset} has no depth benchmark: choose --dataset kitti"
        )
    if options.eval_stereo and protocol.stereo_scale is None:
        raise UserError(f"{protocol.name} has no stereo scale: evaluate with --eval_mono")
    unscaled = options.eval_stereo or options.metric
    unscaled = unscaled or options.scale_split or options.disable_median_scaling
    if options.pred_depth_scale_factor is not None and not unscaled:
        if protocol.scaling == "per_image_median":
            raise UserError(
                "--pred_depth_scale_factor is undone by the median scaling of each image: add "
                "--disable_median_scaling"
            )
        unscaled = True
    if bench.is_submitted and not unscaled:
        raise UserError(
            f"{bench.name} takes metres: give --eval_stereo, --metric, --scale_split, "
            "--pred_depth_scale_factor or --disable_median_scaling"
        )
    return dataclasses.replace(protocol, scaling="none") if unscaled else protocol


def chosen_factor(
    options: EvalDepthOptions,
    scored: Benchmark,
    protocol: Protocol,
    weights: Path | None,
    loaded: DepthModel | None,
) -> Factor:
    """The factor that the flags ask for."""
    if options.metric:
        if not scored.is_metric:
            raise UserError(f"--metric: {scored.name} is not in metres")
        scale = demand_scale(read_scale(weights), weights)
        return Factor(scale.factor, scale.origin)
    if options.eval_stereo:
        return Factor(protocol.stereo_scale, "the stereo rig's")
    if options.scale_split is None:
        given = options.pred_depth_scale_factor
        return Factor(1.0) if given is None else Factor(given, "--pred_depth_scale_factor")
    bench, gt = exported(options.scale_split, options.nyuv2_protocol, options.data_path)
    if bench.is_metric != scored.is_metric:
        raise UserError(
            f"--scale_split {options.scale_split}: {bench.name} and {scored.name} are not both in "
            "metres, and have no factor in common"
        )
    demand_same_frames(gt, bench, options.data_path)
    summary, _ = score(predict(options, loaded, bench), gt, bench.protocol, 1.0)
    same = bench.name == scored.name and bench.folder.samefile(scored.folder)
    what = "these very images" if same else f"{summary.images} images of {bench.name}"
    return Factor(summary.ratio, f"the median ratio of {what}")


# What comes out -----------------------------------------------------------------------------------


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
                raise UserError(
                    f"'{gt.frames[count - 1]}': the median prediction is no depth; disparities "
                    "(1 / depth) are expected"
                )
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


def ranked(
    pairs: Iterator[Unsure],
    gt: GroundTruth,
    protocol: Protocol,
    depth_scale: float,
    scores: list[RankingScore],
) -> Disparities:
    """Hand disparities on, and add to `scores` how well their uncertainty ranks their errors."""
    for i, (disp, uncertainty) in enumerate(pairs):
        if i < len(gt):
            score = score_ranking(disp, uncertainty, gt[i], protocol, depth_scale)
            scores += [] if score is None else [score]
        yield disp


def table(errors: DepthErrors | IndoorErrors | ServerErrors) -> str:
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
    rankings: list[RankingScore],
) -> None:
    """Print the metrics, and write them where --json says.

    Args:
        rankings: filled while the disparities come, where --uncertainty is asked for.
    """
    if protocol.scaling == "global_median":
        kept = list(disps)
        summary, _ = score(iter(kept), gt, protocol, 1.0)
        disps, factor = iter(kept), Factor(summary.ratio, "the median ratio of these very images")
    summary, per_image = score(disps, gt, protocol, factor.value)
    print(f"\nprotocol: {protocol.describe()}" + (f", {factor}" if factor.origin else ""))
    print(f"ground truth: {gt.source}")
    whole = bench.official_images
    print(f"images: {summary.images} of {len(gt)}", end="")
    print(f" (the benchmark has {whole})" if whole not in (None, len(gt)) else "")
    print(f"ratio gt / prediction: median {summary.ratio:.3f}, spread {summary.ratio_spread:.3f}")
    print(f"\n{table(summary.errors)}")
    if summary.server is not None:
        print("\nas KITTI's server: SILog in 100 log(m), relative errors in %, iRMSE in 1/km")
        print(table(summary.server))
    if rankings:
        ause, aurg = map(float, np.mean(rankings, axis=0))
        print("\nuncertainty, the disagreement with the mirrored image, as a ranking of abs_rel:")
        print(f"AUSE {ause:.4f} (0 is perfect), AURG {aurg:.4f} (above 0 is better than chance)")
    if options.json is not None:
        result = {
            "uncertainty": {"ause": ause, "aurg": aurg} if rankings else None,
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
                raise UserError(f"{options.ext_disp_to_eval}: fewer than {len(frames)} disparities")
            width, height = read_image(dataset.find_image(frame)).size
            depth_m = factor.value * resized_depth(disp, (height, width))
            yield np.clip(depth_m, *protocol.pred_range_m)
        if next(disps, None) is not None:
            raise UserError(f"{options.ext_disp_to_eval}: more than {len(frames)} disparities")

    write_submission(path, frames, depth_maps())
    print(f"{factor}" if factor.origin else "depth as predicted")
    print(f"{len(frames)} depth images for KITTI's depth-prediction server in {path}")


def refuse_idle_flags(options: EvalDepthOptions, bench: Benchmark) -> None:
    """Refuse flags that this benchmark has no use for."""
    if bench.is_submitted:
        for name in ("json", "gt_file"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: {bench.name} is scored by its server, not here")
        if options.ext_disp_to_eval is not None and options.eval_out_dir is None:
            raise UserError(f"{bench.name} of a file needs --eval_out_dir for its zip")
    elif options.eval_out_dir is not None and not options.save_pred_disps:
        raise UserError("--eval_out_dir needs --save_pred_disps")
    if options.eval_eigen_to_benchmark and bench.name != "eigen_benchmark":
        raise UserError("--eval_eigen_to_benchmark needs --eval_split eigen_benchmark")


def main() -> None:
    options = parse(EvalDepthOptions)
    bench = benchmark(
        options.eval_split, options.dataset, options.nyuv2_protocol, options.data_path
    )
    refuse_idle_flags(options, bench)
    scored = not (options.no_eval or bench.is_submitted)
    protocol = None if options.no_eval else chosen_protocol(options, bench)
    gt = ground_truth(options, bench) if scored else None
    weights = find_weights(options.load_weights_folder, options.model_name, options.models_url)
    out = options.eval_out_dir or weights
    saved = out / f"disps_{bench.name}_split.npy" if options.save_pred_disps else None
    submission = out / "benchmark_submission.zip" if bench.is_submitted else None
    if options.uncertainty and (bench.is_submitted or protocol.scaling == "global_median"):
        raise UserError(
            f"--uncertainty: {bench.name} has no errors that could be ranked one by one"
        )
    for path in filter(None, (saved, submission, options.json)):
        demand_writable(path)

    loaded = None
    if weights is not None:
        loaded = load_model(options, weights)
        warn_of_leakage(options, weights, bench)
        warn_of_depth_range(options, weights)
    if protocol is not None:
        factor = chosen_factor(options, bench, protocol, weights, loaded)
    rankings: list[RankingScore] = []
    if loaded is None:
        disps = from_file(options, bench)
    elif options.uncertainty:
        pairs = predict(options, loaded, bench, uncertainty=True)
        disps = ranked(pairs, gt, protocol, factor.value, rankings)
    else:
        disps = predict(options, loaded, bench)
    if saved is not None:
        disps = saved_disparities(disps, saved)
    if options.no_eval:
        deque(disps, maxlen=0)
    elif bench.is_submitted:
        submit(options, bench, disps, protocol, factor, submission)
    else:
        evaluate(options, bench, disps, gt, protocol, factor, rankings)


if __name__ == "__main__":
    run_script(main)
