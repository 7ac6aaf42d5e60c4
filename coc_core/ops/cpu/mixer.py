"""The clustering layer, projections included, a few regions at a time.

Points and values together are up to six times as wide as the map that they are projected from. Here they exist for a
few regions at a time, which the caches hold from one projection through the clustering to the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coc_core.ops.context import cast_to_autocast, differentiated_once, without_autocast, working_dtype
from coc_core.ops.cpu.slabs import SlabClustering
from coc_core.ops.linear import add_product, fold_scale

# Points and values of up to this many bytes are kept for backward; see `coc_core.ops.mlp`.
KEPT_BYTES = 8 * 2**20


def mix(mixer: Any, x_BHWC: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return what a stock `coc_core.layers.ClusterMixer` makes of a map.

    Args:
        mixer: The layer.
        x_BHWC: Floating.
        scale: [C], or None for one.

    Returns:
        [B, H, W, C] in the dtype of ``x_BHWC``, or of autocast where that is on.

    Raises:
        UserError: The map does not divide into the regions.
    """
    out_weight, out_bias, scale = fold_scale(mixer.proj, scale, x_BHWC)
    heads_BHWKC = x_BHWC[:, :, :, None].expand(-1, -1, -1, mixer.heads, -1)
    slabs = SlabClustering.of(heads_BHWKC, mixer.center_grid, mixer.region_grid, mixer.denominator)
    inner = mixer.points_values
    x_BHWC, *weights = cast_to_autocast(x_BHWC, inner.weight, inner.bias, out_weight, out_bias)
    x_SHWC = x_BHWC.contiguous().view(-1, slabs.height, *x_BHWC.shape[2:])
    size = x_SHWC[..., 0].numel() * len(inner.bias) * x_BHWC.element_size()
    keep = torch.is_grad_enabled() and size <= KEPT_BYTES
    with without_autocast(x_BHWC):
        out: Tensor = _Mix.apply(  # type: ignore[no-untyped-call]
            x_SHWC, *weights, mixer.sim_alpha, mixer.sim_beta, slabs, keep
        )
    out = out.view(*x_BHWC.shape[:-1], len(out_bias))
    return out if scale is None else scale * out


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_SHWC: Tensor, in_weight: Tensor, in_bias: Tensor, out_weight: Tensor, out_bias: Tensor,
        alpha: Tensor, beta: Tensor, slabs: SlabClustering, keep: bool,
    ) -> Tensor:  # fmt: skip
        shape = x_SHWC.shape[:3]
        out = x_SHWC.new_empty(*shape, len(out_bias))
        projected = x_SHWC.new_empty(*shape, len(in_bias)) if keep else None
        alpha_, beta_ = (x.to(working_dtype(x_SHWC)) for x in (alpha, beta))
        found = []
        for piece in slabs.pieces(x_SHWC, len(in_weight) // slabs.heads):
            both = torch.addmm(
                in_bias,
                _rows(x_SHWC[piece]),
                in_weight.t(),
                out=x_SHWC.new_empty(0) if projected is None else _rows(projected[piece]),
            ).view(-1, *shape[1:], 2, slabs.heads, in_weight.shape[0] // (2 * slabs.heads))
            mixed = torch.empty_like(both[:, :, :, 0])
            found.append(slabs.forward(both[:, :, :, 0], both[:, :, :, 1], alpha_, beta_, mixed))
            torch.addmm(out_bias, mixed.view(-1, out_weight.shape[1]), out_weight.t(), out=_rows(out[piece]))
        index, cosine = (torch.cat(parts) for parts in zip(*found, strict=True)) if found else (out, out)
        ctx.save_for_backward(x_SHWC, in_weight, in_bias, out_weight, alpha, beta, index, cosine, projected)
        ctx.slabs = slabs
        return out

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, grad_SHWC: Tensor) -> tuple[Tensor | None, ...]:
        x_SHWC, in_weight, in_bias, out_weight, alpha, beta, index, cosine, projected = ctx.saved_tensors
        slabs: SlabClustering = ctx.slabs
        grad_SHWC, grad_x = grad_SHWC.contiguous(), torch.empty_like(x_SHWC)
        total = working_dtype(x_SHWC)
        sums = [torch.zeros_like(p, dtype=total) for p in (in_weight, in_bias, out_weight)]
        grad_in_weight, grad_in_bias, grad_out_weight = sums
        grad_scalars = torch.zeros(2, dtype=total, device=x_SHWC.device)
        alpha_, beta_ = (x.to(total) for x in (alpha, beta))
        for piece in slabs.pieces(x_SHWC, len(in_weight) // slabs.heads):
            x, grad = _rows(x_SHWC[piece]), _rows(grad_SHWC[piece])
            both = torch.addmm(in_bias, x, in_weight.t()) if projected is None else projected[piece]
            both = both.view(-1, *x_SHWC.shape[1:3], 2, slabs.heads, in_weight.shape[0] // (2 * slabs.heads))
            grad_mixed = torch.mm(grad, out_weight).view(both[:, :, :, 0].shape)
            mixed, grad_both = torch.empty_like(grad_mixed), torch.empty_like(both)
            grad_scalars += slabs.backward(
                both[:, :, :, 0], both[:, :, :, 1], alpha_, beta_, index[piece], cosine[piece],
                grad_mixed, grad_both[:, :, :, 0], grad_both[:, :, :, 1], mixed,
            )  # fmt: skip
            add_product(grad_out_weight, grad.t(), mixed.view(-1, out_weight.shape[1]))
            grad_rows = grad_both.view(len(x), -1)
            add_product(grad_in_weight, grad_rows.t(), x)
            grad_in_bias += grad_rows.sum(0)
            torch.mm(grad_rows, in_weight, out=_rows(grad_x[piece]))
        grads = [g.to(in_weight.dtype) for g in (*sums, _rows(grad_SHWC).sum(0))]
        of_scalars = (g.to(x.dtype).view(x.shape) for g, x in zip(grad_scalars, (alpha, beta), strict=True))
        return grad_x, *grads, *of_scalars, None, None


def _rows(x_SHWC: Tensor) -> Tensor:
    """[S, h, W, C] -> [P, C], a view."""
    return x_SHWC.view(-1, x_SHWC.shape[-1])
