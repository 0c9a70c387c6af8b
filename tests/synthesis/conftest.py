import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Folder of a random Stable Diffusion at small size."""
    from diffusion_models import new_model  # after the jaxtyping hook

    return new_model(tmp_path_factory.mktemp("diffusion") / "model")
