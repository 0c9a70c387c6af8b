import pytest
import torch
from safetensors.torch import save_file

from nameonly.backbones._network import build_network


def file_of(folder, architecture, n_classes, prefix=""):
    """Write a file of random weights, and return it with them."""
    torch.manual_seed(5)
    state = build_network(architecture, n_classes, 32, {}).state_dict()
    path = folder / "weights.safetensors"
    save_file({prefix + key: value for key, value in state.items()}, path)
    return path, state


@pytest.mark.parametrize(("held", "wanted"), [(3, 3), (7, 3), (1000, 1000), (7, 1000), (1000, 7)])
@pytest.mark.parametrize(("architecture", "last"), [("test_resnet", "fc."), ("test_vit", "head.")])
def test_all_but_the_last_layer_is_taken_from_a_file(tmp_path, architecture, last, held, wanted):
    path, theirs = file_of(tmp_path, architecture, held)
    torch.manual_seed(0)
    fresh = build_network(architecture, wanted, 32, {}).state_dict()
    torch.manual_seed(0)
    found = build_network(architecture, wanted, 32, {}, path).state_dict()
    ends = [key for key in found if key.startswith(last)]
    assert len(ends) == 2
    assert all(torch.equal(found[key], theirs[key]) for key in found.keys() - ends)
    assert all(torch.equal(found[key], fresh[key]) for key in ends)


def test_a_file_of_which_nothing_fits_is_refused(tmp_path):
    path, _ = file_of(tmp_path, "test_resnet", 3)
    with pytest.raises(ValueError, match="holds nothing that test_vit could take"):
        build_network("test_vit", 3, 32, {}, path)
    path, _ = file_of(tmp_path, "test_resnet", 3, prefix="network.")
    with pytest.raises(ValueError, match="holds nothing that test_resnet could take"):
        build_network("test_resnet", 3, 32, {}, path)
