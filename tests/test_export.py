"""Exporting ground truth: parallel, continued, never over an older file unless told."""

import shutil

import numpy as np
import pytest
from scripts import fails, run

from datasets import (
    Frame,
    GroundTruth,
    KITTIRaw,
    benchmark,
    export_ground_truth,
    write_ground_truth,
)
from utils import UserError

DRIVE = "2011_09_26/2011_09_26_drive_0003_sync"


@pytest.fixture
def split(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    (folder / "test_files.txt").write_text(f"{DRIVE} 2-9 l\n")
    return folder


def export(monkeypatch, sample, split, *flags):
    run(monkeypatch, "export_gt_depth", "--data_path", sample, "--split", split, *flags)


def contents(path):
    gt = GroundTruth(path)
    return gt.frames, gt.source, [gt[i] for i in range(len(gt))]


def test_any_number_of_workers_writes_the_same(monkeypatch, sample, split, tmp_path):
    frames = [Frame(DRIVE, i, "l") for i in range(2, 10)]
    data = KITTIRaw(sample, frames, 0, 0, ())
    for workers in (0, 1, 3):
        out = tmp_path / f"{workers}.npz"
        export(monkeypatch, sample, split, "--gt_file", out, "--num_workers", workers)
        names, _, maps = contents(out)
        assert names == [str(frame) for frame in frames]
        for i, depth in enumerate(maps):
            np.testing.assert_array_equal(depth, data.ground_truth(i))


def test_an_interrupted_export_continues_where_it_stopped(
    monkeypatch, capsys, sample, split, tmp_path
):
    scan = sample / DRIVE / "velodyne_points/data/0000000006.bin"
    whole, out = scan.read_bytes(), split / "gt_depths.npz"
    scan.write_bytes(whole[:-5])
    try:
        line = fails(monkeypatch, capsys, "export_gt_depth", "--data_path", sample, "--split",
            split, "--num_workers", 1)  # fmt: skip
    finally:
        scan.write_bytes(whole)
    assert str(scan) in line and not out.exists()
    parts = split / "gt_depths.npz.parts"
    done = {int(path.stem) + 2 for path in parts.glob("*.npz")}
    assert {2, 3, 4, 5} <= done and 6 not in done
    seen = []
    real = KITTIRaw.ground_truth

    def count(self, i):
        seen.append(self.frames[i].index)
        return real(self, i)

    monkeypatch.setattr(KITTIRaw, "ground_truth", count)
    export(monkeypatch, sample, split)
    assert set(seen) == set(range(2, 10)) - done and len(seen) == len(set(seen))
    assert f"{len(done)} of them found from an earlier run" in capsys.readouterr().out
    assert out.exists() and not parts.exists()
    monkeypatch.undo()
    export(monkeypatch, sample, split, "--gt_file", tmp_path / "whole.npz")
    for kept, fresh in zip(contents(out), contents(tmp_path / "whole.npz"), strict=True):
        np.testing.assert_equal(kept, fresh)


def test_existing_files_are_replaced_only_when_told(monkeypatch, capsys, sample, split):
    out = split / "gt_depths.npz"
    export(monkeypatch, sample, split)
    before = out.read_bytes()
    line = fails(monkeypatch, capsys, "export_gt_depth", "--data_path", sample, "--split", split,
        "--depth_axis", "camera_z")  # fmt: skip
    assert "exists already; --overwrite" in line and out.read_bytes() == before
    export(monkeypatch, sample, split, "--depth_axis", "camera_z", "--overwrite")
    assert "z of the camera" in GroundTruth(out).source


def test_an_interrupted_replacement_continues_too(monkeypatch, capsys, sample, split):
    export(monkeypatch, sample, split)
    before = (split / "gt_depths.npz").read_bytes()
    scan = sample / DRIVE / "velodyne_points/data/0000000009.bin"
    whole = scan.read_bytes()
    scan.write_bytes(whole[:-5])
    flags = ("--data_path", sample, "--split", split, "--num_workers", 1, "--overwrite")
    try:
        fails(monkeypatch, capsys, "export_gt_depth", *flags)
    finally:
        scan.write_bytes(whole)
    assert (split / "gt_depths.npz").read_bytes() == before
    run(monkeypatch, "export_gt_depth", *flags)
    assert "7 of them found from an earlier run" in capsys.readouterr().out


def test_parts_made_from_other_data_are_not_mixed_in(monkeypatch, capsys, sample, split, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(sample, other)
    scans = other / DRIVE / "velodyne_points/data"
    (scans / "0000000009.bin").write_bytes(b"broken")
    assert "no velodyne scan" in fails(
        monkeypatch, capsys, "export_gt_depth", "--data_path", other, "--split", split
    )
    line = fails(monkeypatch, capsys, "export_gt_depth", "--data_path", sample, "--split", split)
    assert "left by another export" in line
    export(monkeypatch, sample, split, "--overwrite")
    assert "earlier run" not in capsys.readouterr().out


def test_parts_of_another_export_are_not_mixed_in(monkeypatch, capsys, sample, split, tmp_path):
    out = tmp_path / "gt.npz"
    frames = [Frame(DRIVE, 2, "l"), Frame(DRIVE, 3, "l")]

    def stops(i):
        if i == 1:
            raise UserError("power cut")
        return np.ones((2, 3), np.float32)

    with pytest.raises(UserError, match="power cut"):
        export_ground_truth(out, frames, stops, "somewhere", "KITTIRaw", tmp_path, 1)
    flags = ("--data_path", sample, "--split", split, "--gt_file", out)
    assert "left by another export" in fails(monkeypatch, capsys, "export_gt_depth", *flags)
    run(monkeypatch, "export_gt_depth", *flags, "--overwrite")
    assert contents(out)[2][0].shape == (128, 416)
    assert not out.with_name("gt.npz.parts").exists()


def test_a_damaged_part_is_named(tmp_path):
    frames = [Frame(DRIVE, 2, "l"), Frame(DRIVE, 3, "l")]

    def stops(i):
        if i == 1:
            raise UserError("power cut")
        return np.ones((2, 3), np.float32)

    args = (tmp_path / "gt.npz", frames)
    with pytest.raises(UserError):
        export_ground_truth(*args, stops, "somewhere", "KITTIRaw", tmp_path, 1)
    part = tmp_path / "gt.npz.parts" / "000000.npz"
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(UserError, match="000000.npz: is damaged"):
        export_ground_truth(
            *args, lambda i: np.ones((2, 3), np.float32), "somewhere", "KITTIRaw", tmp_path, 1
        )
    assert not (tmp_path / "gt.npz").exists()


def test_legacy_ground_truth_is_refused_with_the_way_out(monkeypatch, capsys, split, tmp_path):
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros((3, 4)), np.zeros((5, 6))]
    np.savez_compressed(split / "gt_depths.npz", data=ragged)
    np.save(tmp_path / "d.npy", np.ones((8, 4, 4), np.float32))
    line = fails(monkeypatch, capsys, "evaluate_depth", "--eval_mono", "--eval_split", split,
        "--ext_disp_to_eval", tmp_path / "d.npy")  # fmt: skip
    assert "pickled objects" in line and "export_gt_depth.py --overwrite" in line


def test_eigen_predictions_are_scored_on_its_benchmark_subset(
    monkeypatch, capsys, tmp_path, sample
):
    """Disparities of the 697 images, of which the 652 with improved ground truth count."""
    eigen, improved = (
        benchmark(name, "kitti").frames(sample) for name in ("eigen", "eigen_benchmark")
    )
    depth = {frame: 5.0 + i / 100 for i, frame in enumerate(eigen)}
    maps = (np.full((4, 4), depth[frame], np.float32) for frame in improved)
    write_ground_truth(tmp_path / "gt.npz", improved, maps, "made up", "KITTIDepth")
    flags = ("--eval_mono", "--disable_median_scaling", "--eval_split", "eigen_benchmark",
        "--gt_file", tmp_path / "gt.npz", "--ext_disp_to_eval", tmp_path / "d.npy",
        "--eval_eigen_to_benchmark")  # fmt: skip
    disps = np.stack([np.full((2, 2), 1 / depth[frame], np.float32) for frame in eigen])
    np.save(tmp_path / "d.npy", disps)
    run(monkeypatch, "evaluate_depth", *flags)
    printed = capsys.readouterr().out
    assert "images: 652 of 652" in printed and "& 0.000 & 0.000" in printed
    np.save(tmp_path / "d.npy", disps[:-1])
    assert "696 disparities for 697 frames" in fails(monkeypatch, capsys, "evaluate_depth", *flags)


def test_where_the_time_goes_is_measured(monkeypatch, capsys, sample, split):
    run(monkeypatch, "benchmarks.export_ground_truth", "--data_path", sample, "--split", split)
    printed = capsys.readouterr().out
    assert "8 scans of about" in printed
    for what in ("read, cached", "project", "write"):
        assert what in printed
