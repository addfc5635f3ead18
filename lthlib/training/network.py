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
    """A module seen as a function of named tensors.

    Args:
        model: copied.
        device: where it computes.
        precision: of products and convolutions, as `TrainingSettings` has it.
        ranks: that share the run, by default this process alone.
        objective: loss and metric, by default the cross-entropy and percent correct.
    """

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
            (module, tensors, key, tensor)
            for module in self.model.modules()
            for tensors in (module._parameters, module._buffers)
            for key, tensor in tensors.items()
        ]
        # By what gradients are multiplied, as they lie in `into`; None stands for ones.
        self.open: Tensor | None = None
        self._written: list[tuple[Tensor, Tensor]] = []

    def weights(self) -> Tensors:
        """Copies of the parameters that are trained, of one type.

        Returns:
            Tensors by name; weights of convolutions in channels_last layout.
        """
        return {
            name: channels_last(parameter.detach().to(self._common, copy=True))
            for name, parameter in self._parameters.items()
        }

    def buffers(self) -> Tensors:
        """Copies of all else.

        Returns:
            By name, buffers, such as BatchNorm's statistics, and parameters that are frozen or no
            real numbers.
        """
        return {
            name: tensor.detach().clone()
            for name, tensor in self._tensors.items()
            if name not in self._parameters
        }

    def train(self) -> None:
        """Put the network into training mode, but for what alone was in evaluation mode."""
        self.model.train()
        for module in self._resting:
            module.training = False

    @contextmanager
    def arithmetic(self, precision: str = "") -> Iterator[None]:
        """In the body, products and convolutions on a GPU are as precise as is said.

        They take the kernels that are fastest, or deterministic ones where torch was asked for
        these.

        Args:
            precision: by default the network's.
        """
        if self.device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        products = (torch.backends.cuda.matmul, cudnn.conv)
        precisions = [kind.fp32_precision for kind in products]
        searches_kernels = cudnn.benchmark
        try:
            for kind in products:
                kind.fp32_precision = "tf32" if (precision or self.precision) == "tf32" else "ieee"
            cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
            yield
        finally:
            cudnn.benchmark = searches_kernels
            for kind, value in zip(products, precisions, strict=True):
                kind.fp32_precision = value

    @contextmanager
    def drawing(self, seed: int) -> Iterator[None]:
        """Draw numbers from a seed in the body; afterwards torch's generators are as before."""
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices, device_type=self.device.type):
            self.draw_from(seed)
            yield

    def draw_from(self, seed: int) -> None:
        """Seed torch's generators of the CPU and of the device."""
        # torch.manual_seed also queues the seed for every accelerator there might be: 0.3 ms.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)

    def _hold_tensors(self, weights: Named, buffers: Named) -> None:
        """Let the module's own tensors be these."""
        for i, tensors in enumerate((weights, buffers)):
            # It lies where it lay; torch's `functional_call` exchanges all at every call.
            if tensors is self._held[i]:
                continue
            stays = isinstance(tensors, Flat)
            for name, tensor in tensors.items():
                held = self._tensors[name]
                stays &= held.dtype == tensor.dtype
                held.data = tensor.detach().to(held.dtype)
            self._held[i] = tensors if stays else None

    def _forward(self, weights: Named, buffers: Named, x: Any) -> Any:
        self._hold_tensors(weights, buffers)
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                output = logits_of(call(self.model, x))
        finally:
            self._put_back()
        return tree_map_only(Tensor, lambda x: x.float() if x.dtype in _HALF else x, output)

    def _put_back(self) -> None:
        """Undo what a forward pass assigned to the module, noting the buffers' new values."""
        self._written = []
        for module, tensors, key, held in self._slots:
            new = tensors.get(key)
            if new is held:
                continue
            tensors[key] = held
            if tensors is module._parameters or key in module._non_persistent_buffers_set:
                continue  # a cache, which is made anew
            if held is None or new is None or held.shape != new.shape:
                raise ConfigError(
                    f"a forward pass makes the buffer {key!r} of {type(module).__name__} "
                    f"{_shape_of(new)}, which was {_shape_of(held)}; run the network on a batch "
                    "once before, and keep the shape"
                )
            self._written.append((held, new))

    def _write_buffers(self) -> None:
        """Write the noted values, when no backward pass needs the old ones any more."""
        for held, new in self._written:
            held.data.copy_(new.detach())
        self._written = []

    def forward(self, weights: Named, buffers: Named, x: Any) -> Any:
        """A forward pass in training mode without gradients.

        Args:
            weights: effective weights by name.
            buffers: by name; BatchNorm's statistics among them move.
            x: inputs [b, ...], or several of them.

        Returns:
            Outputs, such as logits [b, classes].
        """
        if not self.model.training:
            self.train()
        with torch.no_grad():
            output = self._forward(weights, buffers, x)
            self._write_buffers()
        return output

    @contextmanager
    def averaging(self, buffers: Tensors) -> Iterator[None]:
        """In the body, BatchNorm's statistics are means over all batches.

        Args:
            buffers: by name; statistics among them that move are started anew.
        """
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
        """One forward and backward pass in training mode.

        Where ranks share a run, each brings its images, and all get what one process would.

        Args:
            weights: effective weights by name.
            buffers: by name; BatchNorm's statistics among them move.
            x: inputs [b, ...], or several of them.
            y: targets [b, ...].
            into: what the gradients are copied into.

        Returns:
            The mean loss, the number of correct predictions, and d loss / d weight by name.
        """
        if not self.model.training:
            self.train()
        output = self._forward(weights, buffers, x)
        alone = self.ranks.world == 1
        loss = self.objective.of(output, y, "mean" if alone else "sum")
        leaves = [self._parameters[name] for name in weights]
        derivatives = torch.autograd.grad(loss, leaves, materialize_grads=True)
        self._write_buffers()
        loss, correct = loss.detach(), self.objective.correct(output, y)
        gradients = dict(zip(weights, derivatives, strict=True))
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
        """The metric in evaluation mode.

        Args:
            weights: effective weights by name.
            buffers: by name.
            batches: inputs and targets; each rank brings its share.

        Returns:
            The metric over the batches of all ranks, by default percent correct.
        """
        self.model.eval()
        with self.arithmetic():
            return self.objective.judge(self._outputs(weights, buffers, batches), self.ranks)

    def _outputs(self, weights: Any, buffers: Any, batches: Any) -> Iterator[tuple[Any, Tensor]]:
        for x, y in batches:
            output = self._forward(weights, buffers, x)
            self._write_buffers()
            yield output, y

    def flops_per_image(self, x: Any) -> int:
        """Floating-point operations of one forward pass of one image.

        Args:
            x: inputs [2, ...], because a network may normalise by what it is given.

        Returns:
            Two for each multiply-add.
        """
        self.model.eval()
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        # With gradients on: without them an encoder layer becomes one operator that has no count.
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            call(self.model, x)
        self._put_back()
        for buffer, before in buffers:
            buffer.data.copy_(before)
        return int(counter.get_total_flops()) // 2


def _shape_of(tensor: Tensor | None) -> str:
    return "None" if tensor is None else f"of shape {list(tensor.shape)}"


def channels_last(tensor: Tensor) -> Tensor:
    """A 4-d tensor in channels_last layout, any other as it is.

    Layouts choose kernels, so resuming keeps them.

    Args:
        tensor: of any shape.

    Returns:
        Equal values, maybe the same tensor.
    """
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def sgd_step(
    weights: Named, gradients: Named, momenta: Named, rate: float | Tensor, **options: Any
) -> None:
    """One step of torch's SGD in place, on named tensors the caller owns.

    Where all three are `Flat`, of one layout, it is one step on one tensor. On a GPU it is one
    kernel, which wants a weight, its gradient and its momentum in one layout.

    Args:
        weights: by name.
        gradients: by the same names.
        momenta: by the same names; zeros behave as a first step.
        rate: the learning rate; on a GPU it may be a 0-d tensor.
        options: torch's momentum, nesterov and weight_decay.
    """
    if isinstance(weights, Flat) and isinstance(gradients, Flat) and isinstance(momenta, Flat):
        params, grads, buffers = [weights.data], [gradients.data], [momenta.data]
    else:
        params, grads = list(weights.values()), [gradients[name] for name in weights]
        buffers = [momenta[name] for name in weights]
    fused = bool(params) and params[0].is_cuda
    if fused and isinstance(rate, Tensor):
        rate = rate.float()
    options["nesterov"] &= options["momentum"] > 0
    options |= {"foreach": not fused, "fused": fused, "dampening": 0, "maximize": False}
    with torch.no_grad():
        sgd(params, grads, buffers, lr=rate, **options)  # type: ignore[arg-type]


def adamw_step(
    weights: Flat, gradients: Flat, moments: Flat, rate: float | Tensor, settings: TrainingSettings
) -> None:
    """One step of AdamW in place.

    Args:
        weights: in one piece of memory.
        gradients: in the same layout.
        moments: means of the gradients, of their squares, and the count of steps, as `moments_of`
            makes them.
        rate: the learning rate; on a GPU it may be a 0-d tensor.
        settings: with betas, epsilon and weight decay.

    Source:
        Loshchilov & Hutter (2019), Algorithm 2.
    """
    n, gradient = len(weights.data), gradients.data
    mean, square, count = moments.data.split([n, n, 1])
    with torch.no_grad():
        count.add_(1)
        mean.lerp_(gradient, 1 - settings.betas[0])
        square.lerp_(gradient * gradient, 1 - settings.betas[1])
        # 1 - beta^count, which single precision rounds to little else.
        shares = [-torch.expm1(count * math.log(beta or 1e-300)) for beta in settings.betas]
        update = (mean / shares[0]).div_((square / shares[1]).sqrt_().add_(settings.epsilon))
        weights.data.mul_(1 - rate * settings.weight_decay).sub_(update.mul_(rate))


def moments_of(weights: Tensors, optimiser: str) -> Tensors:
    """The state of an optimiser, in the layouts of the weights, not yet zero.

    Args:
        weights: by name.
        optimiser: `sgd` or `adamw`.

    Returns:
        Of SGD one tensor a weight, by its name; of AdamW also `square/NAME` and `step/count`.
    """
    if optimiser == "sgd":
        return weights
    count = next(iter(weights.values()), torch.empty(0)).new_zeros(1)
    return weights | {f"square/{n}": w for n, w in weights.items()} | {"step/count": count}
