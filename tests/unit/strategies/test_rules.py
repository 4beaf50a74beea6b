"""Combinations that cannot work are refused before anything heavy is imported, with the reason."""

import pytest

from headstart.config import compose
from headstart.config.check import check
from headstart.config.compose import chosen, plain, reference
from headstart.errors import ConfigError

OTHER = "+datamodule@sources.other.datamodule=digits"


def checked(*overrides: str) -> None:
    config = compose(overrides)
    values = plain(config)
    check(values, reference(config.hydra, chosen(config.hydra, values)))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["strategy=freeze", "head_epochs=2"], "head_epochs=2 has no effect with strategy=freeze"),
        (["strategy=full", "head_epochs=20"], "head_epochs=20 leaves nothing of trainer.max_epochs=20"),
        (["strategy=wise_ft", "head_epochs=2"], "head_init=probe instead"),
        (["strategy=wise_ft", "ema.decay=0.9"], "both average weights"),
        (["head=mlp", "head_init=class_means"], "head_init=class_means sets the weights of one linear layer"),
        (["batch_transform=mixup", "datamodule.batch_size=1"], "datamodule.batch_size=1 has one"),
        (["strategy=distill", "strategy.teacher=null"], "strategy.teacher=PATH"),
        (["strategy=share"], "strategy=share needs another task"),
        (["strategy=full", OTHER], "sources.other has no effect with this strategy"),
        (["strategy=share", "+datamodule@sources.val.datamodule=digits"], "sources.val: a task's name"),
        (["strategy=share", "+sources.other.head=linear"], "sources.other has no datamodule"),
        (["ema.decay=1.0"], "ema.decay=1.0: must be"),
        (["batchnorm=frozen"], "batchnorm=frozen: must be train, eval or affine"),
        (["strategy=lora", "strategy.targets=[convolution]"], "strategy.targets"),
        (["strategy=l2sp", "+strategy.held={}"], "strategy.held is unknown"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(overrides, reason):
    with pytest.raises(ConfigError) as caught:
        checked(*overrides)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=full", "head_epochs=2", "batchnorm=eval", "ema.decay=0.99", "head_init=probe"],
        ["strategy=gradual", "batch_transform=cutmix", "batchnorm=affine"],
        ["strategy=share", OTHER, "strategy.loss_weights={other: 0.5}", "strategy.sampling=proportional"],
        ["strategy=distill", "strategy.teacher=somewhere"],
        ["strategy=wise_ft", "strategy.alphas=[0.5,1.0]"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_works_together_passes(overrides):
    checked(*overrides)
