"""Where checkpoints come from: an origin knows its files by their content, and its names in both directions.

`register_origin` adds one from a file of your own; those of `pointcloud` come with that package.
"""

from coc_core.checkpoints.origins.base import (
    ORIGINS,
    Content,
    Denominator,
    Origin,
    Source,
    recognize,
    register_origin,
)
from coc_core.checkpoints.origins.images import Images
from coc_core.checkpoints.origins.published_images import PublishedImages

__all__ = [
    'ORIGINS', 'Content', 'Denominator', 'Images', 'Origin', 'PublishedImages', 'Source',
    'recognize', 'register_origin',
]  # fmt: skip

register_origin(PublishedImages())
register_origin(Images())
