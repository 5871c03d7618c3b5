"""Train depth and pose networks. `python train.py -h` lists the flags."""

from options import TrainOptions, describe, parse
from trainer import Trainer
from utils import run_script


def main() -> None:
    options = parse(TrainOptions)
    print(describe(options))
    Trainer(options).train()


if __name__ == "__main__":
    run_script(main)
