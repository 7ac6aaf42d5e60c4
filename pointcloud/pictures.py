"""Clouds drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coc_core.files import replacing


def draw_cloud(path: Path, points: Any, colors: Any, title: str, *, bar: str = '') -> None:
    """Write the picture of a cloud.

    Args:
        path: The file.
        points: Coordinates [P, 3].
        colors: The color of each point, or numbers.
        title: What stands above.
        bar: What numbers mean, beside their colors.

    Raises:
        UserError: The file cannot be written.
    """
    # What trains has no use for it, and it takes a second to import.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout='constrained')
    axes: Any = figure.add_subplot(projection='3d')
    axes.view_init(elev=15, azim=20, vertical_axis='y')
    size, scale = (16 if len(points) > 200 else 36), ('cividis' if bar else None)
    drawn = axes.scatter(*points.T, c=colors, s=size, depthshade=False, cmap=scale)
    if bar:
        figure.colorbar(drawn, label=bar, shrink=0.6)
    sides = (points.max(0) - points.min(0)).clip(1e-3)
    axes.set_box_aspect(tuple(sides), zoom=1.15)
    axes.set_axis_off()
    axes.set_title(title, parse_math=False)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120)
