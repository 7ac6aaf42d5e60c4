"""``impl='plain'``: the layers' own steps, in plain PyTorch (`coc_core.layers` is the page to read)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from coc_core.layers import Clustering


def forward(layer: nn.Module, *inputs: Any) -> Tensor:
    """Run a layer as it states itself."""
    out: Tensor = layer.forward_plain(*inputs)  # type: ignore[operator]
    return out


def steps(alpha: Tensor, beta: Tensor, **options: Any) -> Clustering:
    """Return the steps of the operator; ``options`` are its grids and its denominator."""
    from coc_core.layers import Clustering  # That file asks the table, which names this one.

    return Clustering(alpha, beta, **options)


def cluster(points_BHWKD: Tensor, values_BHWKD: Tensor, alpha: Tensor, beta: Tensor, **options: Any) -> Tensor:
    """See `coc_core.ops.cluster`."""
    return steps(alpha, beta, **options).cluster(points_BHWKD, values_BHWKD)


def around(operator: Callable[..., Tensor], mixer: Any, x_BHWC: Tensor, scale: Tensor | None = None) -> Tensor:
    """Run the projections of a `coc_core.layers.ClusterMixer` around an operator called as `coc_core.ops.cluster`."""
    points, values = mixer.project(x_BHWC)
    mixed = operator(
        points, values, mixer.sim_alpha, mixer.sim_beta,
        center_grid=mixer.center_grid, region_grid=mixer.region_grid, denominator=mixer.denominator,
    )  # fmt: skip
    out: Tensor = mixer.project_back(mixed, scale)
    return out
