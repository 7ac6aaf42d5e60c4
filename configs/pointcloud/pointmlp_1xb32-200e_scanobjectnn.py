"""PointMLP on ScanObjectNN PB_T50_RS, 13,232,079 parameters.

tools/dist_train.sh configs/pointcloud/pointmlp_1xb32-200e_scanobjectnn.py 1

Published: mAcc 84.4, OA 86.1 in its own repository, after 200 epochs; this reports the last epoch.
"""

_base_ = '../_base_/pointmlp_1xb32_scanobjectnn.py'

epochs = 200
model = dict(backbone=dict(arch='pointmlp'))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-4, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
