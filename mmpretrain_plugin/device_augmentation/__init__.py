"""The last random steps of a training pipeline, on whole batches and on the device that trains.

`preprocessor` has what a config names; `erasing` and `rand_augment` are the two steps, each of which draws anew for
every image. What they draw comes from torch's generators, which the project seeds before each step.

A config that uses it names it in ``custom_imports``: the plugin does not import it, since it takes seconds.
"""

from mmpretrain_plugin.device_augmentation.preprocessor import AugmentingDataPreprocessor as AugmentingDataPreprocessor
