import math
import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cpn.core.errors import WorkError
from cpn.segmentation.collapse import check_trained, square_label, square_mask, variation
from cpn.segmentation.deeplab import deeplab_job
from cpn.training.training_job import fit
from tests.cpn.segmentation.test_deeplab import DATA, SILENT, TINY, Boxes, changed, tiny

FINE = [{"loss_total": 0.3}]


def constant(classes: int = 3) -> torch.nn.Module:
    """A network that sees class 0 everywhere."""
    network = tiny(classes=classes)
    with torch.no_grad():
        network.cls_conv.weight.zero_()
        network.cls_conv.bias[0] = 1  # type: ignore[index]
    return network


def test_what_has_learned_passes() -> None:
    network = tiny()
    history = fit(deeplab_job(network, Boxes(), TINY, DATA, seed=0), SILENT)
    check_trained(network, Boxes(), TINY, 32, history)
    assert not network.training


def test_one_mask_for_all_images_is_an_error_with_the_cure() -> None:
    with pytest.raises(WorkError, match=r"one mask for all images \(loss 0\.30 after 120 steps\)") as raised:
        check_trained(constant(), Boxes(), TINY, 32, FINE)
    assert raised.value.cure == "deeplab.schedule=by_images" and f"--set {raised.value.cure}" in str(raised.value)
    with pytest.raises(WorkError) as raised:
        check_trained(constant(), Boxes(), changed(schedule="by_images"), 32, FINE)
    assert raised.value.cure == "deeplab.iterations=240"
    assert pickle.loads(pickle.dumps(raised.value)).cure == raised.value.cure, "it comes from another process"


def test_one_map_of_several_classes_for_all_is_one_mask() -> None:
    """A network whose logits follow the place alone, as batch norm that never settled leaves them."""
    network = constant()

    def by_place(*_: object) -> torch.Tensor:
        logits = torch.zeros(1, 3, 32, 32)
        logits[:, 1, :10], logits[:, 2, 20:, 5:] = 1, 1
        return logits

    network.forward = by_place  # type: ignore[method-assign, assignment]
    with pytest.raises(WorkError, match="one mask"):
        check_trained(network, Boxes(), TINY, 32, FINE)


def test_a_loss_above_chance_is_an_error_with_the_cure() -> None:
    """ln C is what equal probabilities cost; most pixels being background, a constant network lies far below it."""
    with pytest.raises(WorkError, match=r"loss ends at 1\.11, above ln 3 = 1\.10; --set deeplab\.schedule"):
        check_trained(tiny(), Boxes(), TINY, 32, [{"loss_total": 0.1}, {"loss_total": math.log(3) + 0.01}])
    by_images = changed(schedule="by_images", lr=0.03)
    with pytest.raises(WorkError, match=r"--set deeplab\.lr=0\.01$"):
        check_trained(tiny(), Boxes(), by_images, 32, [{"loss_total": float("inf")}])


def test_labels_that_are_one_mask_are_no_fault_of_the_training() -> None:
    class Empty(Boxes):
        def label(self, index: int, /) -> NDArray[np.uint8]:
            return np.zeros((32, 32), np.uint8)

    source = Boxes()
    source.label = Empty().label  # type: ignore[method-assign]
    with pytest.raises(WorkError, match=r"labels are one mask .* random_walk") as raised:
        check_trained(constant(), source, TINY, 32, FINE)
    assert raised.value.cure is None


def test_a_few_steps_are_not_judged() -> None:
    check_trained(constant(), Boxes(), changed(iterations=19), 32, [{"loss_total": 9.0}])
    with pytest.raises(WorkError):
        check_trained(constant(), Boxes(), changed(iterations=20), 32, [{"loss_total": 9.0}])


def test_variation_by_hand() -> None:
    one = np.zeros((2, 2), np.uint8)
    other = np.array([[0, 1], [0, 0]], np.uint8)
    assert variation([one, one, one]) == 0
    assert variation([one, one, other]) == pytest.approx(1 / 12)


def test_masks_and_labels_are_read_at_one_size() -> None:
    source = Boxes(size=40)
    assert square_label(source.label(1), 32).shape == square_mask(tiny(), source.image(1)[:30], 32).shape == (32, 32)
    assert set(np.unique(square_label(source.label(1), 17))) == {0, 2}
