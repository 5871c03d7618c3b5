"""The whole model: every network that training couples, as children whose names are the files'."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers import full_precision, pose_matrix

from .cameras import LearnedCameras
from .depth_decoder import DepthDecoder
from .pose import PoseCNN, PoseDecoder
from .resnet_encoder import ResnetEncoder

PoseModelType = Literal["separate_resnet", "shared", "posecnn"]
PoseModelInput = Literal["pairs", "all"]


class Prediction(NamedTuple):
    """disps: per scale [B 1 H/2^s W/2^s], sigmoid output; T: target -> source camera for every
    source in order, stereo partner last; masks: per scale [B S H/2^s W/2^s] or empty."""

    disps: tuple[Tensor, ...]
    T: Float[Tensor, "B S 4 4"]
    masks: tuple[Tensor, ...] = ()


class Monodepth(nn.Module):
    """Depth and pose networks: encoder, depth, pose_encoder, pose, predictive_mask, cameras.

    Args:
        num_layers: ResNet depth of both encoders.
        pretrained: ImageNet weights for both encoders.
        scales: scales of the disparity, ascending.
        frame_ids: temporal frames of a sample, the target's 0 first, e.g. (0, -1, 1).
        stereo: the last frame of a sample is the stereo partner.
        pose_model_type: `separate_resnet` (the paper's), `shared` with depth, or `posecnn`.
        pose_model_input: one pass per `pairs` in temporal order, or one over `all` frames.
        predictive_mask: predict a mask per source (Zhou et al. 2017), for the ablation.
        cameras: how many cameras' focal lengths are learnt.

    Children that a configuration does not need are absent: pose networks without temporal sources,
    `pose_encoder` unless it is separate, `cameras` unless they are learnt.
    """

    def __init__(
        self,
        num_layers: int = 18,
        pretrained: bool = False,
        scales: tuple[int, ...] = (0, 1, 2, 3),
        frame_ids: tuple[int, ...] = (0, -1, 1),
        stereo: bool = False,
        pose_model_type: PoseModelType = "separate_resnet",
        pose_model_input: PoseModelInput = "pairs",
        predictive_mask: bool = False,
        cameras: int = 0,
    ):
        super().__init__()
        self.frame_ids = tuple(frame_ids)
        self.stereo = stereo
        self.pose_model_type = pose_model_type
        self.pose_model_input = pose_model_input
        temporal = len(self.frame_ids) - 1

        self.encoder = ResnetEncoder(num_layers, pretrained)
        self.depth = DepthDecoder(self.encoder.channels, scales)
        if temporal:
            pairs = pose_model_input == "pairs"
            images = 2 if pairs else 1 + temporal
            if pose_model_type == "posecnn":
                self.pose = PoseCNN(images)
            elif pose_model_type == "shared":
                self.pose = PoseDecoder(self.encoder.channels[-1], images, images - 1)
            else:
                self.pose_encoder = ResnetEncoder(num_layers, pretrained, images)
                poses = 2 if pairs else temporal
                self.pose = PoseDecoder(self.encoder.channels[-1], 1, poses)
        if predictive_mask:
            self.predictive_mask = DepthDecoder(self.encoder.channels, scales, temporal + stereo)
        if cameras:
            self.cameras = LearnedCameras(cameras)

    def forward(
        self,
        color_aug: Float[Tensor, "B F 3 H W"],
        stereo_T: Float[Tensor, "B 4 4"] | None = None,
    ) -> Prediction:
        """Disparity of frame 0 and the transforms to all others, from images in [0, 1].

        `stereo_T`, from the target's camera to its partner's, belongs to a `stereo` model. Under
        autocast the predictions still are float32.
        """
        temporal = color_aug[:, : len(self.frame_ids)]
        if self.pose_model_type == "shared":
            B, F = color_aug.shape[:2]  # one pass, so that batch-norm sees all frames together
            joint = [f.unflatten(0, (B, F)) for f in self.encoder(color_aug.flatten(0, 1))]
            features = [f[:, 0] for f in joint]
            pose_inputs = joint[-1][:, : temporal.shape[1]]
        else:
            features = self.encoder(color_aug[:, 0])
            pose_inputs = temporal
        T = self._poses(pose_inputs)
        if self.stereo:
            T.append(stereo_T)
        masks = self.predictive_mask(features) if hasattr(self, "predictive_mask") else ()
        return Prediction(self.depth(features), torch.stack(T, 1), masks)

    def intrinsics(
        self, K: Float[Tensor, "B 3 3"], camera: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 3"]:
        """K as it is given, or as it is learnt for cameras of these numbers."""
        return self.cameras(K, camera) if hasattr(self, "cameras") else K

    def disparity(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Sigmoid disparity at full size of images in [0, 1]."""
        return self.depth(self.encoder(image))[0]

    def relative_pose(
        self, first: Float[Tensor, "B 3 H W"], second: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 4 4"]:
        """Transform that takes points of the earlier frame's camera into the later one's.

        Raises:
            ValueError: the pose network was built for `all` frames at once, not for pairs.
        """
        if self.pose_model_input != "pairs":
            raise ValueError("relative_pose needs a pose network for pairs of frames")
        inputs = torch.stack([first, second], 1)
        if self.pose_model_type == "shared":
            inputs = self.encoder(inputs.flatten(0, 1))[-1].unflatten(0, inputs.shape[:2])
        return self._matrix(self._six(inputs)[:, 0])

    def _poses(self, inputs: Float[Tensor, "B F *any"]) -> list[Float[Tensor, "B 4 4"]]:
        """Transforms from frame 0 to every other temporal frame (images, or shared features)."""
        if len(self.frame_ids) == 1:
            return []
        if self.pose_model_input == "all":
            six = self._six(inputs)
            return [self._matrix(p) for p in six.unbind(1)]
        transforms = []
        for i, frame_id in enumerate(self.frame_ids[1:], start=1):
            preceding = frame_id < 0  # a pair enters in temporal order; then invert
            six = self._six(inputs[:, [i, 0] if preceding else [0, i]])[:, 0]
            transforms.append(self._matrix(six, invert=preceding))
        return transforms

    @staticmethod
    def _matrix(six: Float[Tensor, "B 6"], invert: bool = False) -> Float[Tensor, "B 4 4"]:
        with full_precision(six):
            return pose_matrix(six[:, :3], six[:, 3:], invert)

    def _six(self, inputs: Float[Tensor, "B F *any"]) -> Float[Tensor, "B P 6"]:
        """Axis-angle and translation of the given frames' images, or shared features."""
        if self.pose_model_type == "shared":
            return self.pose(list(inputs.unbind(1)))
        stacked = inputs.flatten(1, 2)
        if self.pose_model_type == "posecnn":
            return self.pose(stacked)
        return self.pose([self.pose_encoder(stacked)[-1]])
