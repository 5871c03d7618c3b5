"""Train depth and pose networks. `python train.py -h` lists the flags."""

from distributed import joined
from options import TrainOptions, describe, parse
from trainer import Trainer
from utils import run_script


def main() -> None:
    options = parse(TrainOptions)
    with joined(options.no_cuda) as team:
        team.say(describe(options))
        Trainer(options, team).train()


if __name__ == "__main__":
    run_script(main)
