from pathlib import Path

import pytest

from ochat.errors import ModelError
from ochat.hub import model_folder


@pytest.mark.parametrize("name", ["", "runs/base", "./runs/base", "runs/base/final", "runs/file"])
def test_a_path_that_is_no_folder_is_not_looked_up_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "file").touch()
    with pytest.raises(ModelError, match=f"^{name or 'The empty name'} is not a folder"):
        model_folder(name)


def test_a_hub_id_is_looked_up_where_no_folder_has_its_owners_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"^runs/base is not in the hub's cache"):  # tests don't reach the hub
        model_folder("runs/base")
