from .depth_decoder import DepthDecoder
from .monodepth import Monodepth, Prediction
from .pose import PoseCNN, PoseDecoder
from .resnet_encoder import ResnetEncoder

__all__ = ["DepthDecoder", "Monodepth", "PoseCNN", "PoseDecoder", "Prediction", "ResnetEncoder"]
