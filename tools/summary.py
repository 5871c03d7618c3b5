"""Results side by side: what evaluate_depth.py and evaluate_pose.py wrote by --json.

python tools/summary.py --depth "ours=a.json" "mean depth=b.json" --odometry c.json
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils import OneLineParser, UserError, read_lines, run_script  # noqa: E402


def read_result(path: Path, wanted: str) -> dict[str, Any]:
    """A result that has the wanted entry.

    Raises:
        UserError: missing, or no such result.
    """
    text = "\n".join(read_lines(path, "result", "--json of the evaluation writes it"))
    try:
        result = json.loads(text)
        result[wanted]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path}: is no result with '{wanted}' of an evaluation") from None
    return result


def depth_table(results: dict[str, dict[str, Any]]) -> str:
    """A row of metrics for each result, under its name."""
    names = list(dict.fromkeys(name for r in results.values() for name in r["metrics"]))
    width = max(map(len, results))
    lines = [f"{'depth':<{width}} " + "".join(f"{name:>10}" for name in names)]
    for title, result in results.items():
        cells = (result["metrics"].get(name) for name in names)
        lines.append(
            f"{title:<{width}} "
            + "".join(f"{'':>10}" if c is None else f"{c:10.3f}" for c in cells)
        )
    return "\n".join(lines)


def odometry_line(result: dict[str, Any]) -> str:
    """The errors of a trajectory after the alignment that papers on monocular odometry use."""
    aligned, own = (result["trajectory"][name] for name in ("7dof", "none"))

    def figure(value: float | None, unit: str) -> str:
        return "n/a" if value is None else f"{value:.2f}{unit}"

    return (
        f"odometry of sequence {result['sequence']}, {result['frames']} frames, "
        f"{result['length_m']:.0f} m: t_rel {figure(aligned['t_rel_percent'], ' %')}, "
        f"r_rel {figure(aligned['r_rel_deg_per_100m'], ' deg/100m')}, "
        f"ATE {figure(aligned['ate_rmse_m'], ' m')} (7dof); "
        f"t_rel {figure(own['t_rel_percent'], ' %')}, "
        f"ATE {figure(own['ate_rmse_m'], ' m')} (no alignment)"
    )


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--odometry", type=Path, help="result of evaluate_pose.py")
    arguments = parser.parse_args()
    results = {}
    for entry in arguments.depth:
        name, _, file = entry.rpartition("=")
        if not name:
            raise UserError(f"--depth '{entry}': write NAME=FILE")
        results[name] = read_result(Path(file), "metrics")
    if results:
        print(depth_table(results))
    if arguments.odometry is not None:
        print(odometry_line(read_result(arguments.odometry, "trajectory")))


if __name__ == "__main__":
    run_script(main)
