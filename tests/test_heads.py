import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from nameonly.heads import PrototypeHead

NOT_OURS: dict[str, str] = {}


@parametrize_with_checks([PrototypeHead()], expected_failed_checks=lambda _: NOT_OURS)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_it_is_the_adapter(toy):
    from nameonly.adapters.prototype_adapter import PrototypeAdapter
    from nameonly.types import PseudoLabels

    features, text, _, y = toy
    head = PrototypeHead(text.weights.numpy(), logit_scale=20.0).fit(features.values.numpy(), y)
    hard = torch.nn.functional.one_hot(y)
    labels = PseudoLabels(features.ids, hard.float(), hard.bool(), torch.ones(60))
    want = PrototypeAdapter().fit(features, text, labels).predict_logits(features)
    got = torch.from_numpy(head.decision_function(features.values.numpy())).float()
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_text_weights_must_fit(toy):
    features, text, _, y = toy
    with pytest.raises(ValueError, match="one row per class"):
        PrototypeHead(text.weights[:3].numpy()).fit(features.values.numpy(), np.asarray(y))
