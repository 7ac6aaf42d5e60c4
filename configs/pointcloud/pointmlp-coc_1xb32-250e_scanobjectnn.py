"""PointMLP-CoC on ScanObjectNN PB_T50_RS, 15,326,815 parameters.

tools/dist_train.sh configs/pointcloud/pointmlp-coc_1xb32-250e_scanobjectnn.py 1

Published: mAcc 84.4, OA 86.2, each the best over the epochs on the test data; this reports the last epoch.
"""

_base_ = '../_base_/pointmlp_1xb32_scanobjectnn.py'

epochs = 250
model = dict(backbone=dict(arch='pointmlp_coc'))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-4, by_epoch=True)]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
