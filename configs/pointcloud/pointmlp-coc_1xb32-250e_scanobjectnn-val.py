"""PointMLP-CoC on ScanObjectNN PB_T50_RS with the epoch chosen by a validation split of the training data.

tools/dist_train.sh configs/pointcloud/pointmlp-coc_1xb32-250e_scanobjectnn-val.py 1
python tools/test.py configs/pointcloud/pointmlp-coc_1xb32-250e_scanobjectnn-val.py work_dirs/.../best_OA_epoch_*.pth

A tenth of the training clouds, stratified, is held back for the choice; the test data is looked at once.
"""

_base_ = './pointmlp-coc_1xb32-250e_scanobjectnn.py'

_held_back = dict(fraction=0.1, seed=0)
train_dataloader = dict(dataset=dict(validation=dict(keep='train', **_held_back)))
val_dataloader = dict(dataset=dict(part='training', validation=dict(keep='val', **_held_back)))
default_hooks = dict(checkpoint=dict(save_best='OA', rule='greater'))
