import pytest


@pytest.fixture(scope="session")
def run_folder(all_digits, tmp_path_factory):
    """A run of `label` on 48 digits with the bundled model."""
    from nameonly import label
    from nameonly.tiny.digits import CLASS_NAMES

    folder = tmp_path_factory.mktemp("serve")
    files = [str(path) for path in sorted(all_digits[0].iterdir())[:48]]
    label(files, classes=list(CLASS_NAMES), backbone="tiny", out=folder / "run", cache=folder / "c")
    return folder / "run"


@pytest.fixture(scope="session")
def classifier(run_folder):
    from nameonly import load

    return load(run_folder, device="cpu")


@pytest.fixture(scope="session")
def model(classifier):
    from nameonly.serve.model import ServedClassifier

    return ServedClassifier(classifier, 4 * 10**6)


@pytest.fixture(scope="session")
def pictures(all_digits):
    """The bytes of 64 digits, none of which the classifier was adapted to."""
    return [path.read_bytes() for path in sorted(all_digits[0].iterdir())[100:164]]


@pytest.fixture(scope="session")
def server(model):
    from serving import running

    with running(model) as (client, _):
        yield client
