"""What happens to the trials of a study, told to the terminal, the records and the clock."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.terminal import TrialTable
from ..search.confirm import CAM_BASELINE
from ..search.study import State, Study
from ..tracking.records import run_words
from .sweep_context import SweepContext


class TrialListener:
    """Tells the terminal, the records and the clock what happens to the trials of one study."""

    def __init__(self, sweep: SweepContext, trials: Study, table: TrialTable) -> None:
        self._sweep, self._trials, self._table = sweep, trials, table
        self._folders: dict[str, Path] = {}

    def started(self, uid: str) -> None:
        row = self._trials.row(uid)
        config = self._sweep.method(row)
        self._table.started(uid, run_words(row, config), self._sweep.run_price(config), row.epochs)
        self._sweep.clock.began(uid)
        self._folders[uid] = self._sweep.folder(row)
        self._sweep.records.trial_started(row, config, self._sweep.key(row))
        self._sweep.changed(True)

    def reported(self, uid: str, result: Mapping[str, Any]) -> None:
        if "superpixels" in result:
            self._table.preparing(uid, "superpixels", *result["superpixels"])
            return
        if "note" in result:
            self._sweep.terminal.warn(f"{uid}: {result['note']}")
        self._table.reported(uid, result)
        self._sweep.save_clock()
        self._sweep.records.minutes_reported(uid, result.get("minutes", ()))
        if not {"miou", "mask_free", "failed"} & set(result):
            self._sweep.records.trial_reported(uid, result)
            drawn = self._sweep.epoch_pictures(self._folders[uid], int(result["epoch"])) if uid in self._folders else []
            self._sweep.records.trial_pictured(uid, result, drawn)
            self._sweep.changed(False)

    def ended(self, uid: str) -> None:
        self._sweep.clock.ended(uid)
        self._folders.pop(uid, None)
        row = self._trials.row(uid)
        if not row.state.finished:
            self._sweep.claims.give(uid)
            self._table.ended(uid, "resumable", None, None)
            self._sweep.save_clock()
            return
        if row.state is State.PRUNED:
            self._sweep.let_go(row)
        self._sweep.claims.give(uid)
        # cam_baseline is what the others are compared with, and never the best of them.
        self._table.ended(uid, row.state.name, row.miou, row.reason, row.role != CAM_BASELINE)
        self._sweep.save_clock()
        self._sweep.records.trial_ended(row, self._sweep.finished(row), self._sweep.folder(row))
        self._sweep.changed(True)

    def pruning_off(self, line: str) -> None:
        self._sweep.terminal.say(line)
        self._sweep.records.pruning_off(line)
