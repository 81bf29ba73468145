"""Select and confirm images: which they are, and that choosing does not see the others."""

import numpy as np

from cpn.config.cam import CamConfig
from cpn.scoring.metrics import BETAS
from cpn.scoring.selection import epoch_sample, select_and_confirm, summarise


def test_select_and_confirm() -> None:
    ids = [f"2007_{number:06}" for number in range(400)]
    select, confirm = select_and_confirm(ids, CamConfig())
    assert sorted(select + confirm) == list(range(400)) and 160 < len(confirm) < 240
    # Neither order nor company matters: each image is on its side for ever.
    reverse = select_and_confirm(ids[::-1][:100], CamConfig())
    assert {ids[::-1][i] for i in reverse[0]} == {ids[i] for i in select} & set(ids[::-1][:100])
    assert {ids[::-1][i] for i in reverse[1]} == {ids[i] for i in confirm} & set(ids[::-1][:100])
    assert select_and_confirm(ids, CamConfig(confirm_seed=1))[1] != confirm
    fewer = select_and_confirm(ids, CamConfig(confirm_share=0.1))[1]
    assert 15 < len(fewer) < 70 and set(fewer) < set(confirm)


def test_the_epochs_sample_is_fixed_among_select_images() -> None:
    ids = [f"2007_{number:06}" for number in range(400)]
    select, _ = select_and_confirm(ids, CamConfig())
    assert epoch_sample(ids, CamConfig()) == select == epoch_sample(ids, CamConfig(epoch_images=1000))
    few, more = (epoch_sample(ids, CamConfig(epoch_images=count)) for count in (30, 60))
    assert len(few) == 30 and len(more) == 60 and set(few) < set(more) < set(select) and more == sorted(more)
    reverse = ids[::-1]
    assert {reverse[i] for i in epoch_sample(reverse, CamConfig(epoch_images=30))} == {ids[i] for i in few}
    assert max(few) > 200, "not the first ones"


def test_selection_does_not_see_the_confirm_images() -> None:
    ids, rng = [f"image{i}" for i in range(20)], np.random.default_rng(0)
    truth = rng.integers(50, 100, (20, 1, 3))
    predicted = rng.integers(50, 100, (20, len(BETAS), 3))
    counts = np.stack(
        [rng.integers(0, 50, predicted.shape), predicted, np.broadcast_to(truth, predicted.shape)], axis=2
    )
    config = CamConfig()
    select, confirm = select_and_confirm(ids, config)
    first = summarise(counts[select].sum(0), counts[confirm].sum(0), config)
    changed = counts.copy()
    changed[confirm, :, 0] = 0
    second = summarise(changed[select].sum(0), changed[confirm].sum(0), config)
    for name in ("miou", "miou_fixed_beta", "beta"):
        assert first.metrics[name] == second.metrics[name]
    assert first.iou == second.iou and first.curve.miou == second.curve.miou
    assert second.metrics["miou_confirm"] == 0 < first.metrics["miou_confirm"]
    assert first.metrics["miou_train"] != second.metrics["miou_train"]
