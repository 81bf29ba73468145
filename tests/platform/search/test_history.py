"""What a learning sampler sees: capped, completed, and nothing but that."""

from platform.config.space import domains
from platform.search.history import StudyView, capped, final_scores
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

SEARCH = domains.parse_search(
    {
        "kind": {"choice": ["superpixel", "grid"]},
        "S_N": {"int": [1, 99], "when": {"kind": "superpixel"}},
        "K": {"choice": [[4, 7], [56, 112]], "when": {"kind": "grid"}},
    }
)


def trial(value: float | None, state: TrialState = TrialState.COMPLETE, **params: Any) -> FrozenTrial:
    from platform.search.distributions import distribution

    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions={n: distribution(SEARCH[n]) for n in params},  # type: ignore[arg-type]
    )


def test_the_best_tenth_and_the_newest_are_kept_in_order() -> None:
    trials = [trial(float(value)) for value in [9, 1, 8, *range(-30, 0), 7]]
    kept = [t.value for t in capped(trials, 20)]
    assert kept == [9, 8, *range(-17, 0), 7]
    assert capped(trials, None) == capped(trials, 34) == trials


def test_only_full_and_pruned_trials_are_history() -> None:
    trials = [
        trial(5.0, TrialState.PRUNED),
        trial(1.0),
        trial(None, TrialState.RUNNING),
        trial(None, TrialState.FAIL),
        *[trial(0.5, TrialState.PRUNED) for _ in range(12)],
    ]
    assert [t.value for t in capped(trials, 10)] == [1.0] + [0.5] * 9


def reported(value: float | None, state: TrialState, **epochs: float) -> FrozenTrial:
    ended = trial(value, state)
    ended.intermediate_values = {int(name[1:]): score for name, score in epochs.items()}
    return ended


def test_a_pruned_trial_scores_what_it_would_have_come_to() -> None:
    complete = [
        reported(end, TrialState.COMPLETE, e2=end - gain) for end, gain in ((50.0, 3.0), (52.0, 9.0), (40.0, 4.0))
    ]
    pruned = reported(30.0, TrialState.PRUNED, e1=20.0, e2=30.0)
    earlier = reported(20.0, TrialState.PRUNED, e1=20.0)  # of no finished one is epoch 1 known
    silent = trial(None, TrialState.PRUNED)
    scored = final_scores([*complete, pruned, earlier, silent])
    assert [score for _, score in scored] == [50, 52, 40, 34]
    assert [one for one, _ in scored] == [*complete, pruned]
    assert final_scores([pruned]) == []


def test_the_view_holds_the_given_trials() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial(3.0))
    own = [trial(1.0), trial(0.5, TrialState.PRUNED)]
    seen = StudyView(study, own)
    assert seen.get_trials(deepcopy=False) == own != seen.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    assert seen._get_trials(deepcopy=True, states=(TrialState.PRUNED,), use_cache=True)[0].value == 0.5
    assert seen.direction == study.direction and seen._study_id == study._study_id
