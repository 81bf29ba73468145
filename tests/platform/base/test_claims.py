"""Two sweeps in one storage folder never make the same run at once."""

import subprocess
import sys
from pathlib import Path
from platform.base import claims
from platform.base.claims import Claims
from platform.base.paths import Storage, storage

import pytest

HOLDER = """
import sys
from platform.base.claims import Claims
from platform.base.paths import storage

claims = Claims(storage(sys.argv[1]))
print(claims.take("other-0000", "k"), claims.take("other-0001", "l"), flush=True)
for line in sys.stdin:
    claims.give(line.strip())
    print("given", flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return storage(str(tmp_path / "sweeps"))


def test_another_process_waits_until_the_run_is_let_go(store: Storage) -> None:
    ours = Claims(store)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    try:
        assert holder.stdout.readline().split() == ["True", "True"]
        assert not ours.take("own-0000", "k") and ours.take("own-0001", "m")
        holder.stdin.write("other-0000\n")
        holder.stdin.flush()
        holder.stdout.readline()
        assert ours.take("own-0000", "k") and not ours.take("own-0002", "l")
    finally:
        holder.kill()
        holder.communicate()
    assert ours.take("own-0002", "l"), "a killed driver holds nothing"
    ours.close()


def test_two_trials_of_one_sweep_may_share_a_run(store: Storage) -> None:
    ours = Claims(store)
    assert ours.take("own-0000", "k") and ours.take("own-0001", "k")
    ours.give("own-0000")
    ours.give("never")
    assert ours.take("own-0002", "k")
    ours.close()


def test_a_stage_waits_until_the_other_sweep_has_made_it(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, said = Claims(store), []
    answers = iter([False, False, True])
    monkeypatch.setattr(ours, "_locked", lambda key, how: next(answers, True))
    monkeypatch.setattr(claims.time, "sleep", said.append)
    with ours.alone("cam-1", said.append):
        assert said == ["cam-1 is being made by another sweep; waiting for it", 1.0, 1.0]
        assert ours._held == {"cam-1": "cam-1"}
    assert ours._held == {}
