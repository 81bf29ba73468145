"""The files of MLflow's image grid. That MLflow shows them: tests/browser/test_mlflow_ui.py."""

import re
from collections.abc import Callable
from pathlib import Path
from platform.tracking.client import connect
from platform.tracking.in_mlflow.image_grid import TAG, image_key, image_name, write_image

from PIL import Image

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_the_files_are_those_of_log_image(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    """The day MLflow names them otherwise, this is red."""
    client, picture = connect(new_store("store")), tmp_path / "a b-1.png"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(picture)
    place = (tmp_path / "artifacts").as_uri()
    run = client.create_run(client.create_experiment("grid", artifact_location=place)).info.run_id
    key = image_key(picture.stem)
    with Image.open(picture) as opened:
        client.log_image(run, opened, key=key, step=7, timestamp=1234, synchronous=True)
    theirs = sorted(item.path for item in client.list_artifacts(run, "images"))
    assert (TAG[0], TAG[1]) in client.get_run(run).data.tags.items()
    write_image(picture, tmp_path, image_name("uid", key, 7, 1234))
    ours = sorted(f"images/{path.name}" for path in tmp_path.glob("cam~*"))
    assert [UUID.sub("", name) for name in ours] == [UUID.sub("", name) for name in theirs] and len(ours) == 2
    assert all(UUID.search(name) for name in ours)


def test_a_name_follows_from_run_key_and_step() -> None:
    one = image_name("a", "cam/x", 1, 5)
    assert one == image_name("a", "cam/x", 1, 5)
    others = {image_name("b", "cam/x", 1, 5), image_name("a", "cam/y", 1, 5), image_name("a", "cam/x", 2, 5)}
    assert len({one.rpartition("+")[2], *(name.rpartition("+")[2] for name in others)}) == 4
