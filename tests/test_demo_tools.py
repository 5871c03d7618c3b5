"""What the demo prints beside the network's figures, and the ablations' bookkeeping."""

import json

import numpy as np
import pytest
from scripts import fails, run

from benchmarks import ablations, objective
from benchmarks.ablations import BEGIN, END, PARTS, VARIANTS, Size, Truth
from metrics import resized_depth
from options import TrainOptions, parse
from tools.mean_depth import COLUMNS, ROWS, mean_depth

SPLIT = "sample"


# The mean depth


def test_the_mean_map_is_the_mean_of_what_is_known():
    rng = np.random.default_rng(0)
    depths = [rng.uniform(1, 50, (ROWS, COLUMNS)) for _ in range(3)]
    np.testing.assert_allclose(mean_depth(depths), np.mean(depths, 0))
    for depth in depths:
        depth[rng.random(depth.shape) < 0.3] = 0
    depths[0][5, 7], depths[1][5, 7], depths[2][5, 7] = 2, 0, 6
    mean = mean_depth(depths)
    assert mean[5, 7] == 4 and (mean > 0).all()


def test_the_mean_map_takes_images_of_any_size_and_fills_from_the_nearest():
    large, small = np.full((2 * ROWS, 2 * COLUMNS), 8.0), np.full((ROWS // 2, COLUMNS // 2), 4.0)
    assert mean_depth([large])[3, 9] == 8
    small[:, COLUMNS // 4 :] = 0
    mean = mean_depth([small])
    assert (mean == 4).all()
    with pytest.raises(ValueError):
        mean_depth([np.zeros((4, 5))])


def test_a_mean_map_is_scored_for_every_test_image(monkeypatch, capsys, sample, tmp_path):
    """The split is found by its name in the data's own folder of splits."""
    out, gt, result = tmp_path / "mean.npy", tmp_path / "gt.npz", tmp_path / "mean.json"
    base = ("--data_path", sample)
    run(monkeypatch, "tools.mean_depth", *base, "--split", SPLIT, "--out", out)
    assert np.load(out).shape == (12, ROWS, COLUMNS)
    run(monkeypatch, "export_gt_depth", *base, "--split", SPLIT, "--gt_file", gt)
    run(monkeypatch, "evaluate_depth", *base, "--eval_mono", "--eval_split", SPLIT, "--gt_file", gt,
        "--ext_disp_to_eval", out, "--json", result)  # fmt: skip
    assert 0.02 < json.loads(result.read_text())["metrics"]["abs_rel"] < 1
    capsys.readouterr()
    run(monkeypatch, "tools.summary", "--depth", f"the mean={result}", f"again={result}")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["depth", "abs_rel"] and first.startswith("the mean  ")
    assert first.split()[2:] == second.split()[1:] and len(first) == len(head)


def test_a_split_without_ground_truth_has_no_mean(monkeypatch, capsys, sample, tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for part in ("train", "test"):
        (folder / f"{part}_files.txt").write_text("2011_09_26/2011_09_26_drive_0001_sync 3 l\n")
    (tmp_path / "2011_09_26/2011_09_26_drive_0001_sync").mkdir(parents=True)
    images = "2011_09_26/2011_09_26_drive_0001_sync/image_02"
    (tmp_path / images).symlink_to(sample / images)
    line = fails(monkeypatch, capsys, "tools.mean_depth", "--data_path", tmp_path, "--split",
        folder, "--out", tmp_path / "mean.npy")  # fmt: skip
    assert "have no ground truth" in line and not (tmp_path / "mean.npy").exists()


def test_a_summary_names_the_trajectory_and_refuses_other_files(monkeypatch, capsys, tmp_path):
    row = {"t_rel_percent": None, "r_rel_deg_per_100m": 2.0, "ate_rmse_m": 1.234}
    result = {"sequence": "06", "frames": 20, "length_m": 15.2}
    file = tmp_path / "odometry.json"
    file.write_text(json.dumps(result | {"trajectory": {"7dof": row, "none": row}}))
    run(monkeypatch, "tools.summary", "--odometry", file)
    printed = capsys.readouterr().out
    assert "sequence 06, 20 frames, 15 m: t_rel n/a, r_rel 2.00 deg/100m, ATE 1.23 m" in printed
    for argv, words in (
        (("--depth", f"a={file}"), "is no result with 'metrics'"),
        (("--depth", "a.json"), "write NAME=FILE"),
        (("--odometry", tmp_path / "none.json"), "no such result"),
    ):
        assert words in fails(monkeypatch, capsys, "tools.summary", *argv)


# The ablations


def truth(rng):
    """An image with a car of its own in it."""
    depth_m = rng.uniform(4, 60, (32, 48))
    car = np.zeros_like(depth_m, bool)
    car[20:26, 10:20] = True
    parts = (np.ones_like(car), car, ~car, np.roll(car, 5))
    return Truth(depth_m, dict(zip(PARTS, parts, strict=True)))


def test_parts_are_scored_alone_after_one_scaling():
    rng = np.random.default_rng(1)
    truths = [truth(rng) for _ in range(3)]
    perfect = [1 / (t.depth_m / 5.4) for t in truths]
    got = ablations.scores(perfect, truths)
    assert all(got[part] == pytest.approx(0, abs=1e-6) for part in (*PARTS, "metric"))
    assert got["a1"] == 1 and got["ratio"] == pytest.approx(5.4)
    holes = [disp.copy() for disp in perfect]
    for disp in holes:
        disp[20:26, 10:20] /= 1.5
    got = ablations.scores(holes, truths)
    expected = []
    for disp, t in zip(holes, truths, strict=True):
        pred = resized_depth(disp, t.depth_m.shape)
        pred = np.clip(pred * np.median(t.depth_m) / np.median(pred), 1e-3, 80)
        expected.append((np.abs(pred / t.depth_m - 1))[t.parts["moving cars"]])
    assert got["moving cars"] == pytest.approx(np.concatenate(expected).mean(), rel=1e-4)
    assert got["moving cars"] > 0.25 > 0.1 > got["everywhere"]


def test_the_table_goes_between_its_marks_and_leaves_the_rest(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    row = dict.fromkeys((*PARTS, "a1", "ratio", "metric"), 0.125)
    size = Size(10, 2, 64, 64, 1)
    results = {"baseline": [row, row], "all, stereo": [row]}
    for _ in range(2):
        ablations.write(page, results, size)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n")
    assert "old" not in text and "| baseline | 0.125 ± 0.000 |" in text and text.count(BEGIN) == 1
    assert "0.125 ± 0.000 |  |  |" in text  # monocular networks know no metres
    assert (tmp_path / "page.png").stat().st_size > 5000


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_what_they_are_called(name):
    options = parse(TrainOptions, list(VARIANTS[name]))
    parts = {
        "minimum reprojection": not options.avg_reprojection,
        "auto-masking": not options.disable_automasking,
        "full resolution": not options.v1_multiscale,
    }
    asked = name.partition(" without ")[2]
    expected = {part: part in name if "baseline" in name else part != asked for part in parts}
    assert parts == expected
    assert options.use_stereo == ("stereo" in name)
    assert (options.frame_ids == (0,)) == (name == "all, stereo")


@pytest.mark.slow
def test_ablations_run_from_end_to_end(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(ablations, "VARIANTS", {n: VARIANTS[n] for n in ("baseline", "all (mono)")})
    monkeypatch.setattr(ablations, "FRAMES", (10, 10, 8))
    monkeypatch.setattr(ablations, "TEST_DRIVES", 1)
    page = tmp_path / "page.md"
    flags = ("--work", tmp_path / "work", "--out", page, "--steps", 1, "--from_scratch",
             "--batch_size", 2, "--width", 64, "--seeds", 0, "--jobs", 2)  # fmt: skip
    for _ in range(2):  # the second time finds everything done
        run(monkeypatch, "benchmarks.ablations", *flags)
    assert "| all (mono) |" in page.read_text()


def test_the_minimum_finds_what_one_neighbour_does_not_see(monkeypatch, capsys, tmp_path):
    """And auto-masking leaves out the cars that keep their distance."""
    for name, value in (("STREETS", 1), ("FRAMES", 12), ("EVERY", 6)):
        monkeypatch.setattr(objective, name, value)
    page = tmp_path / "page.md"
    run(monkeypatch, "benchmarks.objective", "--seeds", 0, "--out", page)
    printed = capsys.readouterr().out
    assert page.read_text().startswith(objective.BEGIN) and "one neighbour" in page.read_text()

    def figures(words):
        row = next(line for line in printed.splitlines() if words in line)
        return [float(cell) for cell in row.split("|")[2:-1]]

    mean, minimum = figures("one neighbour does not see it")
    assert minimum < 0.5 * mean
    mean, minimum = figures("both neighbours see it")
    assert minimum < 1.2 * mean < 0.15
    assert figures("keep their distance")[0] > 0.6 and figures("stands still")[0] < 0.1
