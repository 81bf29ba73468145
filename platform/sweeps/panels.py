"""The trials' CAM panels, drawn once more with cam_baseline's column when that system has run, at the end of a search.

Runs are shared by sweeps and keep the panel they were finished with; the new one lies in the sweep's folder and takes
the old one's place in the records. No network runs for it: each run has kept its maps of the panel's images.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cpn.core.checked import OF_RUN, whole_png
from cpn.core.errors import to_stderr
from cpn.core.files import write_bytes
from cpn.core.run_files import PANEL, RESULT
from cpn.data.voc import Pack
from cpn.plots.run_pictures import draw_panel, load_panel
from cpn.scoring.finished_run import damaged_files, read_result

from ..search.confirm import CAM_BASELINE
from ..search.trial_row import State, TrialRow

NAME = "cam_panel.png"


def compared_panels(
    rows: Sequence[TrialRow],
    again: Sequence[TrialRow],
    folder_of: Callable[[TrialRow], Path],
    pack: Pack,
    out: Path,
    warn: Callable[[str], None] = to_stderr,
) -> Iterator[tuple[str, Path]]:
    """Uid and picture of every finished trial in `rows`, in `out`/UID/cam_panel.png; what is whole is not drawn again.

    cam_baseline is its first finished run in `again`; without one there is nothing to compare. A run that an earlier
    version finished has kept no maps, and its panel stays as it is; so does that of a damaged run, and `warn` says so.
    """
    systems = (folder_of(row) for row in again if row.role == CAM_BASELINE and row.state is State.COMPLETE)
    system = next((folder for folder in systems if (folder / PANEL).exists()), None)
    if system is None:
        return
    cam_baseline = load_panel(system / PANEL)
    names = ["background", *pack.classes]
    for row in rows:
        folder, picture = folder_of(row), out / row.uid / NAME
        if row.state is not State.COMPLETE or not (folder / PANEL).exists():
            continue
        if not whole_png(picture):
            damaged = damaged_files(folder, (PANEL,))
            result = read_result(folder)
            if damaged or result is None:
                warn(
                    f"{folder / (damaged or [RESULT])[0]}: missing or damaged, no panel of {row.uid} is drawn; {OF_RUN}"
                )
                continue
            scored, beta = pack.split(result.config["data"]["score"]), float(result.metrics["beta"])
            compared = result.config["train"]["objective"] != "classification"
            drawn = draw_panel(load_panel(folder / PANEL), scored, names, beta, compared, cam_baseline)
            write_bytes(picture, drawn)
        yield row.uid, picture
