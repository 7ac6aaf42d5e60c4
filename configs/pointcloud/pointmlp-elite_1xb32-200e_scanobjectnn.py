"""PointMLP-Elite on ScanObjectNN PB_T50_RS, 709,807 parameters.

tools/dist_train.sh configs/pointcloud/pointmlp-elite_1xb32-200e_scanobjectnn.py 1

The recipe of PointMLP.
"""

_base_ = '../_base_/pointmlp_1xb32_scanobjectnn.py'

epochs = 200
model = dict(backbone=dict(arch='pointmlp_elite'))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-4, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
