"""The stages of a model's pretrained network, from the pixels up: which of them learn, and how fast."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from vidette.errors import SettingError
from vidette.models.backbone import FrameBackbone
from vidette.models.conv3d import TorchvisionVideo
from vidette.training.recipe import TrainSettings

__all__ = ["Stages", "hold_still"]

_LAYERS_OF_A_BLOCK = 3  # of the small network: convolution, norm, activation


class Stages:
    """A model's parameters by stage of its pretrained network; what is in no stage is the head.

    Networks with stages are 2-D backbones, wherever in the model they are, and torchvision's 3-D CNNs.

    Args:
        model: Any model; parameters that do not learn now never will.
        settings: The rates, ``unfreeze_epochs`` and ``freeze_batchnorm`` are used, the last at once.

    Raises:
        SettingError: Something is asked of the stages of a model that has none, or stages are to be freed one
            by one on several devices.

    Example:
        >>> from vidette.models import build_model
        >>> options = {"backbone": "small"}
        >>> model = build_model("frame_cnn", num_classes=2, num_frames=4, height=32, width=32, options=options)
        >>> stages = Stages(model, TrainSettings(learning_rate=1.0, backbone_rate_factor=0.5, layer_decay=0.5))
        >>> [stages.rate(f"{name}.weight") for name in ("head.norm", "backbone.net.9", "backbone.net.0")]
        [1.0, 0.5, 0.0625]
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.settings = settings
        stages, self.is_2d = _stages_of(model)
        _check(settings, has_stages=bool(stages))
        self._depth = {name: depth for depth, names in enumerate(stages) for name in names}
        if settings.freeze_batchnorm:
            _freeze_batchnorm(model, within=set(self._depth))
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.parameters = [[learning[name] for name in names if name in learning] for names in stages]

    def rate(self, name: str) -> float:
        """Return the largest learning rate of a parameter, by its name in the model."""
        settings = self.settings
        if name not in self._depth:
            return settings.learning_rate
        above = len(self.parameters) - 1 - self._depth[name]
        share = settings.backbone_rate_factor if self.is_2d else 1.0
        return settings.learning_rate * share * settings.layer_decay**above

    def free(self, epoch: int) -> None:
        """Let stages learn whose time has come: none at epoch 0, from the top, all at ``unfreeze_epochs``."""
        epochs, count = self.settings.unfreeze_epochs, len(self.parameters)
        if epochs == 0:
            return
        freed = count * min(epoch, epochs) // epochs
        for depth, parameters in enumerate(self.parameters):
            for parameter in parameters:
                parameter.requires_grad_(depth >= count - freed)


def _check(settings: TrainSettings, *, has_stages: bool) -> None:
    asked = {
        "layer_decay": settings.layer_decay < 1,
        "unfreeze_epochs": settings.unfreeze_epochs > 0,
        "freeze_batchnorm": settings.freeze_batchnorm,
    }
    for name, is_asked in asked.items():
        if is_asked and not has_stages:
            raise SettingError(
                f"{name} needs a pretrained network that learns, and here is none; leave {name} out, or use "
                "--no-frozen and a model with a backbone"
            )
    if settings.unfreeze_epochs > 0 and settings.devices > 1:
        raise SettingError(
            f"unfreeze_epochs works on one device, got devices {settings.devices}; leave one out"
        )


def _stages_of(model: nn.Module) -> tuple[list[list[str]], bool]:
    """Return the parameters' names by stage, and whether the network is a 2-D one; [] if there is none."""
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        if isinstance(module, FrameBackbone):
            return [[f"{start}net.{name}" for name in names] for names in _frame_stages(module)], True
        if isinstance(module, TorchvisionVideo):
            return [[f"{start}{name}" for name in names] for names in _video_stages(module)], False
    return [], False


def _frame_stages(backbone: FrameBackbone) -> list[list[str]]:
    names = [name for name, _ in backbone.net.named_parameters()]
    if backbone.name == "small":
        blocks: dict[int, list[str]] = {}
        for name in names:
            blocks.setdefault(int(name.split(".")[0]) // _LAYERS_OF_A_BLOCK, []).append(name)
        return list(blocks.values())
    matcher = getattr(backbone.net, "group_matcher", None)
    if matcher is None:
        return [names]
    groups = group_parameters(backbone.net, matcher(coarse=True))
    return [groups[depth] for depth in sorted(groups)]


def _video_stages(model: TorchvisionVideo) -> list[list[str]]:
    """The stem and four layers of a ResNet, or the blocks of S3D; not the classifier."""
    stages: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        parts = name.removeprefix("head.net.").split(".")
        if parts[0] not in ("fc", "classifier"):
            stages.setdefault(parts[1] if parts[0] == "features" else parts[0], []).append(name)
    return list(stages.values())


def _freeze_batchnorm(model: nn.Module, *, within: set[str]) -> None:
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            for name, parameter in module.named_parameters(prefix=path):
                if name in within:
                    parameter.requires_grad_(False)


def hold_still(model: nn.Module) -> None:
    """Keep the statistics of every BatchNorm whose scale does not learn; call after ``model.train()``."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()
