"""Numbers of classes in a model and its evaluation that are not those of the data."""

import mmdet.models.losses
import mmpretrain.models.losses
import mmseg.models.losses
import pytest
import torch
from mmengine.config import Config
from mmpretrain.evaluation import Accuracy

import pointcloud  # noqa: F401
from coc_core.errors import UserError
from coc_core.mm.data_checks.checks import check_data
from coc_core.mm.data_checks.class_counts import count_problems, model_classes, rank_problems
from coc_core.mm.task import task_of

CLASSES = ['cat', 'dog', 'emu']


def problems(scope, model, classes=CLASSES, **rest):
    cfg = Config(dict(default_scope=scope, model=model, **rest))
    found = count_problems(cfg, task_of(cfg), 'train data', classes)
    return [str(problem) for problem in found if problem.level == 'error']


def place(scope, model, **rest):
    """Return the places of all entries that are not right."""
    return [sentence.split(', but')[0].replace('model.', '') for sentence in problems(scope, model, **rest)]


def test_the_sentence_names_both_numbers_and_the_remedy():
    told = problems('mmpretrain', dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=1000)))
    assert told == ['model.head.num_classes=1000, but the train data has 3 classes (cat, dog, emu): set it to 3.']
    told = problems('pointcloud', dict(head=dict(type='PointClsHead', num_classes=2)))
    assert told == ['model.head.num_classes=2, but the train data has 3 classes (cat, dog, emu): set it to 3.']


def test_whatever_counts_classes_is_compared():
    head = dict(type='LinearClsHead', num_classes=3, loss=dict(type='LabelSmoothLoss', num_classes=7))
    assert place('mmpretrain', dict(type='ImageClassifier', head=head)) == ['head.loss.num_classes=7']
    assert place('mmpretrain', dict(type='TimmClassifier', model_name='resnet18', num_classes=9)) == ['num_classes=9']
    assert place('mmpretrain', dict(type='TimmClassifier', model_name='resnet18')) == ['num_classes=1000']
    heads = dict(decode_head=dict(num_classes=3), auxiliary_head=[dict(num_classes=4), dict(num_classes=3)])
    assert place('mmseg', heads) == ['auxiliary_head.0.num_classes=4']
    boxes = [dict(type='Shared2FCBBoxHead', num_classes=n) for n in (3, 80)]
    assert place('mmdet', dict(roi_head=dict(bbox_head=boxes, mask_head=dict(num_classes=80)))) == [
        'roi_head.bbox_head.1.num_classes=80',
        'roi_head.mask_head.num_classes=80',
    ]


def test_what_counts_something_else_is_not_compared():
    backbone = dict(type='LeNet5', num_classes=-1)
    assert place('mmpretrain', dict(backbone=backbone, head=dict(num_classes=3))) == []
    roi_head = dict(semantic_head=dict(type='FusedSemanticHead', num_classes=183), bbox_head=dict(num_classes=3))
    assert place('mmdet', dict(rpn_head=dict(type='RPNHead', num_classes=1), roi_head=roi_head)) == []
    assert place('mmdet', dict(bbox_head=dict(type='GroundingDINOHead', num_classes=256))) == []
    auxiliary = dict(type='STDCHead', num_classes=2)
    assert place('mmseg', dict(decode_head=dict(num_classes=3), auxiliary_head=[auxiliary])) == []
    train_cfg = dict(rcnn=dict(pos_weight=-1), rpn=dict(pos_weight=-1))
    assert place('mmdet', dict(bbox_head=dict(num_classes=3), train_cfg=train_cfg)) == []


@pytest.mark.parametrize('inside', [False, True])
def test_the_preprocessor_counts_classes_where_it_spreads_labels_over_them(inside):
    def told(train_cfg=None, **settings):
        preprocessor = dict(num_classes=1000, **settings)
        model = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=3), train_cfg=train_cfg)
        if inside:
            # mmengine leaves the config's other one out.
            model['data_preprocessor'], preprocessor = preprocessor, dict(num_classes=500, to_onehot=True)
        return problems('mmpretrain', model, data_preprocessor=preprocessor)

    where = 'model.data_preprocessor' if inside else 'data_preprocessor'
    sentence = f'{where}.num_classes=1000, but the train data has 3 classes (cat, dog, emu): set it to 3.'
    assert told(dict(augments=dict(type='Mixup', alpha=0.8))) == [sentence]
    assert told(to_onehot=True) == told(batch_augments=dict(augments=[])) == [sentence]
    assert told() == []


def test_a_preprocessor_that_spreads_labels_needs_the_number_of_classes():
    model = dict(type='ImageClassifier', head=dict(num_classes=3), data_preprocessor=dict(to_onehot=True))
    (told,) = problems('mmpretrain', model)
    assert told.startswith('model.data_preprocessor.num_classes=0, but') and told.endswith('set it to 3.')


def evaluate(loss, channels):
    scores, labels = torch.randn(6, channels), torch.arange(6) % 3
    return loss(scores, labels)


@pytest.mark.parametrize(
    ('scope', 'loss', 'needed', 'build'),
    [
        ('mmdet', dict(type='CrossEntropyLoss'), 4, mmdet.models.losses.CrossEntropyLoss),
        ('mmdet', dict(type='CrossEntropyLoss', use_sigmoid=True), 3, mmdet.models.losses.CrossEntropyLoss),
        ('mmseg', dict(type='CrossEntropyLoss'), 3, mmseg.models.losses.CrossEntropyLoss),
        ('mmseg', dict(type='mmdet.CrossEntropyLoss'), 4, mmdet.models.losses.CrossEntropyLoss),
        ('mmpretrain', dict(type='CrossEntropyLoss'), 3, mmpretrain.models.losses.CrossEntropyLoss),
        ('mmpretrain', dict(type='LabelSmoothLoss', label_smooth_val=0.1), 3, mmpretrain.models.losses.LabelSmoothLoss),
    ],
)
def test_class_weights_are_as_many_as_the_loss_has_channels(scope, loss, needed, build):
    arguments = {key: value for key, value in loss.items() if key != 'type'}
    for count in (2, 3, 4, 11):
        weights = [1.0] * count
        told = problems(scope, dict(head=dict(num_classes=3, loss_cls=dict(loss, class_weight=weights))))
        if count == needed:
            assert told == []
            evaluate(build(class_weight=weights, **arguments), needed)
            continue
        with pytest.raises(RuntimeError):
            evaluate(build(class_weight=weights, **arguments), needed)
        background = ', the last for the background' if needed == 4 else ''
        has = f'has {count} values, but the train data has 3 classes (cat, dog, emu): give {needed}{background}.'
        assert told == [f'model.head.loss_cls.class_weight {has}']
    assert problems(scope, dict(head=dict(num_classes=3, loss_cls=dict(loss, class_weight=1.0)))) == []


def test_two_classes_of_pixels_may_have_one_channel():
    head = dict(type='FCNHead', num_classes=2, out_channels=1)
    assert place('mmseg', dict(decode_head=head), classes=['ground', 'road']) == []
    assert place('mmseg', dict(decode_head=dict(head, out_channels=3)), classes=['ground', 'road']) == [
        'decode_head.out_channels=3'
    ]
    # Where a head makes masks, its channels are no classes.
    masks = dict(type='Mask2FormerHead', num_classes=3, out_channels=256)
    assert place('mmseg', dict(decode_head=masks)) == []


def test_more_best_classes_than_there_are_stop_before_training():
    scores, labels = torch.rand(4, 3), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match='Top-5 accuracy is unavailable'):
        Accuracy.calculate(scores, labels, topk=(1, 5))
    model = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=3, topk=(1, 5)))
    cfg = Config(dict(default_scope='mmpretrain', model=model, val_evaluator=dict(type='Accuracy', topk=(1, 5))))
    sentence = r'val_evaluator.topk=\(1, 5\), but the model has 3 classes: take out what is above'
    with pytest.raises(UserError, match=sentence):
        check_data(cfg, ['train', 'val'])
    cfg.val_evaluator = [dict(type='Accuracy', topk=3), dict(type='SingleLabelMetric')]
    check_data(cfg, ['train', 'val'])
    # The head computes it in training only where it is asked for.
    cfg.model.head.cal_acc = True
    assert [str(p).split(',')[0] for p in rank_problems(cfg, task_of(cfg), 'train')] == ['model.head.topk=(1']


def test_a_model_that_does_not_say_how_many_classes_it_has():
    cfg = Config(dict(default_scope='mmpretrain', model=dict(type='Mine'), val_evaluator=dict(type='Accuracy', topk=5)))
    assert model_classes(cfg, task_of(cfg)) is None
    check_data(cfg, ['val'])
