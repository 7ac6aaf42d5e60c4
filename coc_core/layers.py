"""The layers of Context Cluster, all on channels-last maps [B, H, W, C].

Each layer states its mathematics in plain PyTorch, in ``forward_plain``. `coc_core.ops.dispatch` decides in every
forward whether that runs or fused code that computes the same; ``print(model)`` says which. The legend of the shape
suffixes (``points_GND``) is in `coc_core.ops.regions`.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
import torch.fx
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp, register_notrace_module, trunc_normal_
from torch import Tensor, nn

from coc_core.errors import UserError
from coc_core.mixers import Clusters, check_forward, same_shape
from coc_core.ops.context import widen, without_autocast
from coc_core.ops.dispatch import check_serves, choose
from coc_core.ops.linear import is_bare, unusual_linear, unusual_scalar
from coc_core.ops.regions import NORM_EPS, Grid, Pair, as_pair, check_denominator, region_size
from coc_core.steps import guard_steps, overrides, own_methods

# torch.fx records a call of these as one node and does not look inside, where sizes decide.
for _name in ('rearrange', 'region_size', 'same_shape', 'widen'):
    torch.fx.wrap(_name)


def refuse_torchscript(module: nn.Module) -> NoReturn:
    """Refuse torch.jit.script, which calls ``__prepare_scriptable__`` first and cannot read what `choose` does."""
    raise RuntimeError(
        'torch.jit.script does not take a Context Cluster: use torch.export, torch.compile or torch.jit.trace.'
    )


def cosine(points_GND: Tensor, centers_GMD: Tensor) -> Tensor:
    """Return the cosine of each center with each point, [G, M, N]."""
    return F.normalize(centers_GMD, dim=-1, eps=NORM_EPS) @ F.normalize(points_GND, dim=-1, eps=NORM_EPS).mT


class Clustering:
    """The clustering operator, step by step (paper, section 3.2, equations 1 to 3).

    Args:
        alpha: Scale of the similarity, one element.
        beta: Shift of the similarity, one element.
        center_grid: Centers along each side of a region, or (rows, columns).
        region_grid: Regions along each side of the map, or (rows, columns).
        denominator: See `coc_core.ops.cluster`.
    """

    def __init__(
        self, alpha: Tensor, beta: Tensor, *, center_grid: Grid, region_grid: Grid, denominator: str = 'similarity'
    ) -> None:
        self.sim_alpha, self.sim_beta = alpha, beta
        self.center_grid, self.region_grid, self.denominator = center_grid, region_grid, denominator

    def cluster(self, points: Tensor, values: Tensor) -> Tensor:
        """Mix the values of each cluster: twice [B, H, W, K, D] -> [B, H, W, K, D] (equations 1 to 3)."""
        size = region_size(points, self.region_grid)
        with without_autocast(points):
            points_GND, values_GND = self.cut(points), self.cut(values)
            centers_GMD, value_centers_GMD = self.pool(points_GND, size), self.pool(values_GND, size)
            z_GMN = self.similarity(points_GND, centers_GMD)
            member_GMN = self.assign(z_GMN)
            s_GMN = torch.sigmoid(z_GMN) * member_GMN
            held_GMD = self.aggregate(s_GMN, member_GMN, values_GND, value_centers_GMD)
            mixed_GND = self.dispatch(s_GMN, held_GMD)
        return self.join(mixed_GND, size, points.shape[3]).to(values.dtype)

    def cut(self, x: Tensor) -> Tensor:
        """Cut a map into groups, each one head of one region: [B, H, W, K, D] -> [G, N, D], half precision widened."""
        rows, cols = as_pair(self.region_grid, 'region_grid')
        return widen(rearrange(x, 'b (r h) (c w) k d -> (b r c k) (h w) d', r=rows, c=cols))

    def join(self, x_GND: Tensor, size: Pair, heads: int) -> Tensor:
        """Put groups together again, the inverse of `cut`: [G, N, D] -> [B, H, W, K, D]."""
        rows, cols = as_pair(self.region_grid, 'region_grid')
        return rearrange(x_GND, '(b r c k) (h w) d -> b (r h) (c w) k d', r=rows, c=cols, k=heads, h=size[0], w=size[1])

    def pool(self, x_GND: Tensor, size: Pair) -> Tensor:
        """Make centers, averages over windows of a region of ``size`` (h, w): [G, N, D] -> [G, M, D]."""
        image = rearrange(x_GND, 'g (h w) d -> g d h w', h=size[0], w=size[1])
        centers = F.adaptive_avg_pool2d(image, as_pair(self.center_grid, 'center_grid'))
        return rearrange(centers, 'g d r c -> g (r c) d')

    def similarity(self, points_GND: Tensor, centers_GMD: Tensor) -> Tensor:
        """Return z = beta + alpha * cos(center, point), [G, M, N]."""
        return self.sim_beta + self.sim_alpha * cosine(points_GND, centers_GMD)

    def assign(self, z_GMN: Tensor) -> Tensor:
        """Return how far each point is a member of each center, [G, M, N]: 1 at its largest z, the first on a tie."""
        return torch.zeros_like(z_GMN).scatter(1, z_GMN.argmax(dim=1, keepdim=True), 1.0)

    def aggregate(self, s_GMN: Tensor, member_GMN: Tensor, values_GND: Tensor, centers_GMD: Tensor) -> Tensor:
        """Return what each center holds, (its pooled value + sum of s * value) / (1 + sum of s), [G, M, D]."""
        weight_GMN = member_GMN if self.denominator == 'count' else s_GMN
        return (centers_GMD + s_GMN @ values_GND) / (1 + weight_GMN.sum(dim=2)[..., None])

    def dispatch(self, s_GMN: Tensor, held_GMD: Tensor) -> Tensor:
        """Hand back to each point what its center holds, times s: [G, N, D]."""
        return s_GMN.mT @ held_GMD

    def overridden(self) -> tuple[str, ...]:
        """Return the names of the steps that a subclass, or this layer alone, has its own of."""
        return ()

    @torch.no_grad()
    def find_clusters(self, points: Tensor) -> Clusters:
        """Return who belongs to whom among points [B, H, W, K, D]."""
        size, heads = region_size(points, self.region_grid), points.shape[3]
        with without_autocast(points):
            points_GND = self.cut(points)
            centers_GMD = self.pool(points_GND, size)
            z_GMN = self.similarity(points_GND, centers_GMD)
            index_GN = self.assign(z_GMN).argmax(dim=1)
            stock = 'similarity' not in self.overridden()
            similarity_GMN = cosine(points_GND, centers_GMD) if stock else z_GMN
        index = self.join(index_GN[..., None], size, heads)[..., 0]
        return Clusters(index, self.join(similarity_GMN.mT, size, heads), 'cosine' if stock else 'z')


@register_notrace_module  # timm's FX graphs hold it whole, with the code that it chooses.
class ClusterMixer(nn.Module, Clustering):
    """The clustering layer: mixes the points of each region within their clusters (paper, section 3.2).

    To change it, override a step in a subclass and build the model with ``mixer=YourMixer``: your step then runs in
    training, evaluation and export, on every device (docs/extending.md). The stock class may be served by fused code,
    which an edit of this page does not reach: ``impl='plain'`` always runs this page.

    Args:
        dim: Channels of the map.
        heads: Heads, clustered independently.
        head_dim: Channels of one head.
        center_grid: Centers along each side of a region.
        region_grid: Regions along each side of the map.
        denominator: See `coc_core.ops.cluster`.
        impl: See `coc_core.ops.cluster`.

    Raises:
        UserError: A name is unknown, or ``impl`` names fused code and a subclass overrides a step. Where a subclass is
            defined or called, see `coc_core.steps`.
    """

    operation = 'mixer'
    __prepare_scriptable__ = refuse_torchscript

    @property
    def sizes(self) -> tuple[int, int]:
        """Centers of a region and channels of a head, which `coc_core.ops.dispatch` decides by."""
        rows, cols = as_pair(self.center_grid, 'center_grid')
        return rows * cols, self.head_dim

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_steps(cls, STEPS)

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        *,
        center_grid: int,
        region_grid: int,
        denominator: str = 'similarity',
        impl: str = 'auto',
    ) -> None:
        nn.Module.__init__(self)
        self.heads = heads
        self.head_dim = head_dim
        self.center_grid: Grid = center_grid
        self.region_grid: Grid = region_grid
        self.denominator = denominator
        self.impl = impl
        # One projection for both: the features that are compared come first, the values that are mixed second.
        self.points_values = nn.Linear(dim, 2 * heads * head_dim)
        self.sim_alpha = nn.Parameter(torch.ones(1))
        self.sim_beta = nn.Parameter(torch.zeros(1))
        self.proj = nn.Linear(heads * head_dim, dim)
        check_serves(impl, self.own_parts())

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C], multiplied by ``scale`` [C] where there is one."""
        return choose(self, x).row.function(self, x, scale)

    def forward_plain(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the layer as it is written on this page."""
        points, values = self.project(x)
        return self.project_back(self.cluster(points, values), scale)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, W, C] -> points that are compared and values that are mixed, each [B, H, W, K, D]."""
        both = rearrange(self.points_values(x), 'b h w (two k d) -> two b h w k d', two=2, k=self.heads)
        return both[0], both[1]

    def project_back(self, mixed: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, H, W, K, D] -> [B, H, W, C], multiplied by ``scale`` [C] where there is one."""
        out: Tensor = self.proj(rearrange(mixed, 'b h w k d -> b h w (k d)'))
        return out if scale is None else scale * out

    @torch.no_grad()
    def clusters(self, x: Tensor) -> Clusters:
        """Return who belongs to whom in a map [B, H, W, C]: what pictures and statistics are made from."""
        return self.find_clusters(self.project(x)[0])

    def __setattr__(self, name: str, value: Any) -> None:
        if name in STEPS and isinstance(value, (nn.Module, nn.Parameter)):
            raise UserError(
                f'{type(self).__name__}.{name} is a step: PyTorch would keep a {type(value).__name__} of that name but '
                f'never call it. Give it another name, and call it in a method {name}.'
            )
        if name == 'denominator':
            check_denominator(value)
        super().__setattr__(name, value)

    def overridden(self) -> tuple[str, ...]:
        """Return the names of the steps that a subclass, or this layer alone, has its own of."""
        return own_methods(self, STEPS)

    def own_parts(self) -> str:
        """Return what of this layer fused code does not know, in words, or ''."""
        parts = unusual_linear(self, 'points_values') or unusual_linear(self, 'proj')
        return overrides(self, STEPS) or parts or unusual_scalar(self, 'sim_alpha') or unusual_scalar(self, 'sim_beta')

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return (
            f'heads={self.heads}, head_dim={self.head_dim}, center_grid={self.center_grid}, '
            f'region_grid={self.region_grid}, denominator={self.denominator!r}, {what_runs(self)}'
        )


STEPS = {
    name: getattr(ClusterMixer, name)
    for name in (
        'forward', 'forward_plain', 'project', 'cluster', 'cut', 'join', 'pool', 'similarity', 'assign', 'aggregate',
        'dispatch', 'project_back',
    )
}  # fmt: skip
"""The steps of the stock layer, which fused code stands for."""


@register_notrace_module
class RowwiseMlp(Mlp):  # type: ignore[misc]
    """Linear, GELU, Linear at each position: timm's layer.

    Args:
        dim: Channels of the map.
        hidden_dim: Channels between the two.
        impl: See `coc_core.ops.cluster`.
    """

    operation = 'mlp'
    __prepare_scriptable__ = refuse_torchscript
    # No centers, and the widest of the maps that are read and written.
    sizes = property(lambda mlp: (0, max(mlp.fc1.in_features, mlp.fc2.out_features)))

    def __init__(self, dim: int, hidden_dim: int, *, impl: str = 'auto') -> None:
        super().__init__(dim, hidden_dim)
        self.impl = impl

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[..., C] -> [..., C], multiplied by ``scale`` [C] where there is one."""
        return choose(self, x).row.function(self, x, scale)

    def forward_plain(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the layer in plain PyTorch."""
        out: Tensor = super().forward(x)
        return out if scale is None else scale * out

    def own_parts(self) -> str:
        """Return what of this layer fused code does not know, in words, or ''."""
        act, *rest = (self._modules[name] for name in ('act', 'drop1', 'norm', 'drop2'))
        exact = type(act) is nn.GELU and act.approximate == 'none' and is_bare(act)
        if not exact or not all(isinstance(m, nn.Identity) or (type(m) is nn.Dropout and not m.p) for m in rest):
            return 'its activation, dropout or norm is another'
        if not all(is_bare(part) for part in rest):
            return 'its dropout or norm has hooks'
        return overrides(self, MLP_STEPS) or unusual_linear(self, 'fc1') or unusual_linear(self, 'fc2')

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return what_runs(self)


@register_notrace_module
class MapNorm(nn.GroupNorm):
    """GroupNorm with one group over a channels-last map: every sample is normalized over H, W and C together.

    Args:
        dim: Channels of the map.
        impl: See `coc_core.ops.cluster`.
        before_linear: Whether what follows begins with a linear layer. Under autocast that rounds its input to half
            precision: fused code for GPUs then writes no float32.
    """

    operation = 'norm'
    __prepare_scriptable__ = refuse_torchscript
    sizes = 0, 0

    def __init__(self, dim: int, *, impl: str = 'auto', before_linear: bool = False) -> None:
        super().__init__(num_groups=1, num_channels=dim, eps=1e-5)
        self.impl = impl
        self.before_linear = before_linear

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        return choose(self, x).row.function(self, x)

    def forward_plain(self, x: Tensor) -> Tensor:
        """Return the layer in plain PyTorch."""
        return to_channels_last(super().forward(to_channels_first(x).contiguous()))

    def own_parts(self) -> str:
        """Return what of this layer fused code does not know, in words, or ''."""
        other = f'it has {self.num_groups} groups' if self.num_groups != 1 else ''
        return overrides(self, NORM_STEPS) or other

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f'{self.num_channels}, eps={self.eps}, {what_runs(self)}'


MLP_STEPS = {'forward_plain': RowwiseMlp.forward_plain}
NORM_STEPS = {'forward_plain': MapNorm.forward_plain}


def what_runs(layer: Any) -> str:
    """Return which implementation serves a layer on the device and in the precision of its parameters, and why."""
    try:
        choice = choose(layer, next((p.detach() for p in layer.parameters()), torch.empty(0)))
    except UserError as error:
        return str(error)
    return f'{choice.row.name}: {choice.why}'


class ContextClusterBlock(nn.Module):
    """x + gamma1 * mixer(norm1(x)), then x + gamma2 * mlp(norm2(x)), each with stochastic depth.

    Args:
        dim: Channels of the map.
        mixer: Called with a map [B, H, W, C] and the layer scale [C]; returns the scaled result, of the map's shape.
        mlp_ratio: Hidden width of the MLP divided by ``dim``.
        layer_scale_init: Initial value of gamma1 and gamma2.
        drop_path: Probability that a branch is dropped for a sample in training.
        impl: Of MLP and norms, see `coc_core.ops.cluster`.
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        mlp_ratio: float,
        layer_scale_init: float,
        drop_path: float,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        projects = getattr(type(mixer), 'project', None) is ClusterMixer.project
        self.norm1 = MapNorm(dim, impl=impl, before_linear=projects)
        self.mixer = mixer
        self.gamma1 = nn.Parameter(torch.full((dim,), float(layer_scale_init)))
        self.norm2 = MapNorm(dim, impl=impl, before_linear=True)
        self.mlp = RowwiseMlp(dim, int(dim * mlp_ratio), impl=impl)
        self.gamma2 = nn.Parameter(torch.full((dim,), float(layer_scale_init)))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        for linear in (self.mlp.fc1, self.mlp.fc2):
            init_linear(linear)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ('mixer', 'mlp') and isinstance(value, nn.Module):
            check_forward(value)
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        x = x + self.drop_path(same_shape(self.mixer(self.norm1(x), self.gamma1), x, type(self.mixer).__name__))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x), self.gamma2))
        return out


def init_linear(linear: nn.Linear) -> None:
    """Give linear layers truncated normal weights of deviation 0.02 and zero biases (the published initialization)."""
    trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)


def to_channels_first(x_BHWC: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, C, H, W], a view."""
    return x_BHWC.permute(0, 3, 1, 2)


def to_channels_last(x_BCHW: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H, W, C], a view."""
    return x_BCHW.permute(0, 2, 3, 1)
