"""Another method's score maps or pseudo labels as a stage's folder: written by the driver, for no other node may have
them at hand.
"""

from pathlib import Path

from cpn.data.voc import Pack
from cpn.stages.imported_files import ImportedFiles, import_files

from ..base.terminal import Terminal


def import_stage(imported: ImportedFiles, pack: Pack, train: str, work: Path, terminal: Terminal) -> None:
    """Write what is missing in `work` of the files of list `train`."""
    split = pack.split(train)
    with terminal.stage(f"{imported.stage}, taking over {imported.kind}", "images", len(split)) as bar:
        import_files(
            imported, split, range(len(split)), len(pack.classes) + 1, work, lambda _, done, total: bar.at(done)
        )
