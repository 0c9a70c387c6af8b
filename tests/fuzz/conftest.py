import shutil

import pytest


@pytest.fixture(scope="module")
def tally():
    """Make a count that is written down at the end."""
    from fuzzing import Tally

    made = {}

    def counted(name, *refusals):
        return made.setdefault(name, Tally(name, *([refusals] if refusals else [])))

    yield counted
    for one in made.values():
        one.write()


@pytest.fixture(scope="session")
def run_folder(all_digits, tmp_path_factory):
    """A run of ``label`` on 24 digits."""
    from nameonly import label
    from nameonly.tiny.digits import CLASS_NAMES

    root = tmp_path_factory.mktemp("fuzz")
    (root / "photos").mkdir()
    for path in sorted(all_digits[0].iterdir())[:24]:
        shutil.copy(path, root / "photos")
    label(root / "photos", CLASS_NAMES, backbone="tiny", out=root / "run", cache=root / "cache")
    return root / "run"
