"""Networks as functions of named tensors, and SGD on those.

Networks stay ordinary modules: effective weights are a function of the state, which the module's
parameters become views of, and every method starts from the gradient with respect to them.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.sgd import sgd
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from lthlib.distributed import Ranks
from lthlib.errors import ConfigError
from lthlib.flat import Flat, Named
from lthlib.masks import is_trained
from lthlib.modules import call, copied, logits_of
from lthlib.training.objective import Objective
from lthlib.training.settings import TrainingSettings

Tensors = dict[str, Tensor]
_HALF = (torch.float16, torch.bfloat16)


class Network:
    """A module seen as a function of named tensors."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        ranks: Ranks | None = None,
        objective: Objective | None = None,
    ):
        self.device = torch.device(device)
        self.precision = precision
        self.ranks = ranks or Ranks()
        self.objective = (objective or Objective()).on(self.device)
        self.model = copied(model).to(self.device)
        self._resting = [m for m in self.model.modules() if self.model.training and not m.training]
        self.train()
        self.modes = [module.training for module in self.model.modules()]
        parameters = dict(self.model.named_parameters())
        types = [p.dtype for p in parameters.values() if p.is_floating_point()]
        self.dtype = types[0] if types else torch.float32
        self.wide = torch.promote_types(self.dtype, torch.float32)  # what sums and scores take
        self._parameters = {n: p for n, p in parameters.items() if is_trained(p)}
        trained = [p.dtype for p in self._parameters.values()]
        self._common = reduce(torch.promote_types, trained, trained[0] if trained else self.dtype)
        self._tensors = parameters | dict(self.model.named_buffers())
        self._held: list[Named | None] = [None, None]
        self._slots: list[tuple[nn.Module, dict[str, Any], str, Any]] = [
            (m, places, key, own)
            for m in self.model.modules()
            for places in (m._parameters, m._buffers)
            for key, own in places.items()
        ]
        # By what gradients are multiplied, as they lie in `into`; None stands for ones.
        self.open: Tensor | None = None
        self._written: list[tuple[Tensor, Tensor]] = []

    def weights(self) -> Tensors:
        """Copies of the parameters that are trained, of one type, convolutions in channels_last
        layout."""
        own = {n: p.detach().to(self._common, copy=True) for n, p in self._parameters.items()}
        return {name: channels_last(weight) for name, weight in own.items()}

    def buffers(self) -> Tensors:
        """Copies of all else: buffers, such as BatchNorm's statistics, and parameters that are
        frozen or no real numbers."""
        rest = {name: t for name, t in self._tensors.items() if name not in self._parameters}
        return {name: tensor.detach().clone() for name, tensor in rest.items()}

    def train(self) -> None:
        """Put the network into training mode as a whole, but for parts that were put into
        evaluation mode alone."""
        self.model.train()
        for module in self._resting:
            module.training = False

    @contextmanager
    def arithmetic(self, precision: str = "") -> Iterator[None]:
        """On a GPU: products and convolutions as precise as `precision`, by default the network's,
        says, by the kernels that are fastest, or by deterministic ones where torch was asked for
        these."""
        if self.device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        products = (torch.backends.cuda.matmul, cudnn.conv)
        before, searched = [kind.fp32_precision for kind in products], cudnn.benchmark
        try:
            for kind in products:
                kind.fp32_precision = "tf32" if (precision or self.precision) == "tf32" else "ieee"
            cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
            yield
        finally:
            cudnn.benchmark = searched
            for kind, value in zip(products, before, strict=True):
                kind.fp32_precision = value

    @contextmanager
    def drawing(self, seed: int) -> Iterator[None]:
        """Draw numbers from a seed in the body; afterwards torch's generators are as before."""
        places = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(places, device_type=self.device.type):
            self.draw_from(seed)
            yield

    def draw_from(self, seed: int) -> None:
        """Seed torch's generators of the CPU and of the device."""
        # torch.manual_seed also queues the seed for every accelerator there might be: 0.3 ms.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)

    def _hold(self, weights: Named, buffers: Named) -> None:
        """Let the module's own tensors be these. Those that stay at one place in memory are held
        already when they come again; torch's `functional_call` exchanges all at every call."""
        for i, named in enumerate((weights, buffers)):
            if named is self._held[i]:
                continue
            stays = isinstance(named, Flat)
            for name, tensor in named.items():
                own = self._tensors[name]
                stays &= own.dtype == tensor.dtype
                own.data = tensor.detach().to(own.dtype)
            self._held[i] = named if stays else None

    def _forward(self, weights: Named, buffers: Named, x: Any) -> Any:
        self._hold(weights, buffers)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                output = logits_of(call(self.model, x))
        finally:
            self._put_back()
        return tree_map_only(Tensor, lambda x: x.float() if x.dtype in _HALF else x, output)

    def _put_back(self) -> None:
        """Give each place in the module its own tensor again, where a forward pass put another, and
        note what a buffer is to become: the backward pass may need what it is."""
        self._written = []
        for module, places, key, own in self._slots:
            new = places.get(key)
            if new is own:
                continue
            places[key] = own
            if places is module._parameters or key in module._non_persistent_buffers_set:
                continue  # a cache, which is made anew
            if own is None or new is None or own.shape != new.shape:
                raise ConfigError(
                    f"a forward pass makes the buffer {key!r} of {type(module).__name__} "
                    f"{_shape(new)}, which was {_shape(own)}; run the network on a batch once "
                    "before, and keep the shape"
                )
            self._written.append((own, new))

    def _settle(self) -> None:
        for own, new in self._written:
            own.data.copy_(new.detach())
        self._written = []

    def forward(self, weights: Named, buffers: Named, x: Any) -> Any:
        """Outputs, such as logits [b, classes], in training mode without gradients; BatchNorm's
        statistics in `buffers` move."""
        if not self.model.training:
            self.train()
        with torch.no_grad():
            output = self._forward(weights, buffers, x)
            self._settle()
        return output

    @contextmanager
    def averaging(self, buffers: Tensors) -> Iterator[None]:
        """Start BatchNorm's statistics in `buffers` anew, those that move, and weigh all batches
        that follow equally."""
        self.train()
        norms = {n: m for n, m in self.model.named_modules() if isinstance(m, _BatchNorm)}
        norms = {n: m for n, m in norms.items() if m.track_running_stats and m.training}
        momenta = {name: module.momentum for name, module in norms.items()}
        for name, module in norms.items():
            module.momentum = None
            for buffer, start in (("running_mean", 0), ("running_var", 1)):
                buffers[f"{name}.{buffer}"].fill_(start)
            buffers[f"{name}.num_batches_tracked"].zero_()
        try:
            yield
        finally:
            for name, module in norms.items():
                module.momentum = momenta[name]

    @torch.enable_grad()
    def gradients(
        self, weights: Named, buffers: Named, x: Any, y: Tensor, into: Flat | None = None
    ) -> tuple[Tensor, Tensor, Tensors]:
        """One forward and backward pass in training mode; BatchNorm's statistics in `buffers` move.
        Where ranks share a run, each brings its images, and all get what one process would.

        weights: effective weights by name. x: [b, ...], or several of them. y: [b, ...]. into: what
        the gradients are copied into.
        Returns the mean loss, the number of correct predictions and d loss / d weight by
        name.
        """
        if not self.model.training:
            self.train()
        output = self._forward(weights, buffers, x)
        alone = self.ranks.world == 1
        loss = self.objective.of(output, y, "mean" if alone else "sum")
        leaves = [self._parameters[name] for name in weights]
        parts = torch.autograd.grad(loss, leaves, materialize_grads=True)
        self._settle()
        loss, correct = loss.detach(), self.objective.correct(output, y)
        gradients = dict(zip(weights, parts, strict=True))
        if into is not None:
            torch._foreach_copy_(list(into.values()), [gradients[name] for name in into])
            gradients = into
            if self.open is not None:
                into.data.mul_(self.open)
        if not alone:
            gradients = into or Flat.of(gradients)
            loss, correct = self.ranks.mean(loss, correct, gradients.data, len(y))
        return loss, correct, gradients

    @torch.no_grad()
    def judge(self, weights: Named, buffers: Named, batches: Iterable[tuple[Any, Tensor]]) -> float:
        """The metric over `batches`, those of all ranks, in evaluation mode; by default the percent
        of correct predictions."""
        self.model.eval()
        with self.arithmetic():
            return self.objective.judge(self._outputs(weights, buffers, batches), self.ranks)

    def _outputs(self, weights: Any, buffers: Any, batches: Any) -> Iterator[tuple[Any, Tensor]]:
        for x, y in batches:
            output = self._forward(weights, buffers, x)
            self._settle()
            yield output, y

    def flops_per_image(self, x: Any) -> int:
        """Floating-point operations of one forward pass of one image, two for each multiply-add. x:
        [2, ...], because a network may normalise by what it is given."""
        self.model.eval()
        buffers = [(own, own.clone()) for own in self.model.buffers()]
        # With gradients on: without them an encoder layer becomes one operator that has no count.
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            call(self.model, x)
        self._put_back()
        for own, before in buffers:
            own.data.copy_(before)
        return int(counter.get_total_flops()) // 2


def _shape(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"of shape {list(tensor.shape)}"


def channels_last(tensor: Tensor) -> Tensor:
    """A 4-d tensor in channels_last layout, any other as it is; layouts choose kernels, so resuming
    keeps them."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def sgd_step(
    weights: Named, gradients: Named, momenta: Named, rate: float | Tensor, **options: Any
) -> None:
    """One step of torch's SGD in place, on named tensors the caller owns; zero momenta behave as a
    first step. options: its momentum, nesterov and weight_decay. Where all three are `Flat`, of one
    layout, it is one step on one tensor. On a GPU it is one kernel, which wants a weight, its
    gradient and its momentum in one layout, and the rate may be a 0-d tensor."""
    if isinstance(weights, Flat) and isinstance(gradients, Flat) and isinstance(momenta, Flat):
        owned, found, moved = [weights.data], [gradients.data], [momenta.data]
    else:
        owned, found = list(weights.values()), [gradients[name] for name in weights]
        moved = [momenta[name] for name in weights]
    fused = bool(owned) and owned[0].is_cuda
    if fused and isinstance(rate, Tensor):
        rate = rate.float()
    options["nesterov"] &= options["momentum"] > 0
    options |= {"foreach": not fused, "fused": fused, "dampening": 0, "maximize": False}
    with torch.no_grad():
        sgd(owned, found, moved, lr=rate, **options)  # type: ignore[arg-type]


def adamw_step(
    weights: Flat, gradients: Flat, moments: Flat, rate: float | Tensor, how: TrainingSettings
) -> None:
    """One step of AdamW (Loshchilov & Hutter, 2019, Algorithm 2) in place. moments: means of the
    gradients, of their squares, and the count of steps, as `moments_of` makes them."""
    n, found = len(weights.data), gradients.data
    mean, square, count = moments.data.split([n, n, 1])
    with torch.no_grad():
        count.add_(1)
        mean.lerp_(found, 1 - how.betas[0])
        square.lerp_(found * found, 1 - how.betas[1])
        # 1 - beta^count, which single precision rounds to little else.
        seen = [-torch.expm1(count * math.log(beta or 1e-300)) for beta in how.betas]
        update = (mean / seen[0]).div_((square / seen[1]).sqrt_().add_(how.epsilon))
        weights.data.mul_(1 - rate * how.weight_decay).sub_(update.mul_(rate))


def moments_of(weights: Tensors, optimiser: str) -> Tensors:
    """The state of an optimiser by the names of the weights, in their layouts, not yet zero."""
    if optimiser == "sgd":
        return weights
    count = next(iter(weights.values()), torch.empty(0)).new_zeros(1)
    return weights | {f"square/{n}": w for n, w in weights.items()} | {"step/count": count}
