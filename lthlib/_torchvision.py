"""Import torchvision also where its compiled operators cannot load (a CPU torch beside a CUDA
torchvision).

torchvision registers shape functions for two detection operators while it is imported, which fails
when nobody has declared them. Nothing here uses them: declaring their schemas is enough.
"""

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(_name + _SIGNATURE)
    import torchvision

__all__ = ["torchvision"]
