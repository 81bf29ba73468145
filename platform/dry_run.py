"""`--dry-run`: the plan of a sweep and its price, without data, GPU or Ray."""

from cpn.config import to_dotted

from .domains import CurveDomain
from .plan import estimate
from .spec import SweepSpec
from .terminal import Terminal


def print_plan(spec: SweepSpec, command: str) -> None:
    """Print what would run, what it costs by estimate, and the command that starts it."""
    terminal = Terminal()
    price = estimate(spec)
    config = spec.base_config
    base = to_dotted(config)
    rows = [
        (
            name,
            "read off the curve of every trial" if isinstance(domain, CurveDomain) else domain_words(domain),
            str(base[name]),
        )
        for name, domain in spec.search.items()
    ]
    terminal.table(f"sweep {spec.name}: what is searched", ["name", "domain", "reference"], rows)
    where = config.data.root or (
        "synthetic scenes" if config.data.scenes else "no data set named yet: --set data.root=FOLDER"
    )
    terminal.say(
        f"data: {where}; lists {config.data.train} (training), {config.data.score} (scored), "
        f"{config.data.val} (validation)"
    )
    trials = str(price.trials) if price.trials is not None else "no fixed number of"
    terminal.say(
        f"runs: {trials} trials, the reference first, then {price.confirm_runs} confirm runs; "
        "then crf, affinity, random_walk, deeplab"
    )
    total = f", {price.gpu_hours:.1f} in all without pruning" if price.gpu_hours is not None else ""
    total += f" for {price.money:.2f} at {spec.budget.price_per_gpu_hour:g} an hour" if price.money is not None else ""
    terminal.say(
        f"price, by operation counts on one RTX 3090: {price.gpu_hours_per_trial:.2f} GPU-hours a run{total}; "
        f"{price.disk_gb:.1f} GB of networks on disk"
    )
    terminal.say(f"nothing was started; next: {command}")


def domain_words(domain: object) -> str:
    """A domain in one cell: `float 0.1 to 10, log`."""
    dump = domain.model_dump(by_alias=True, exclude_none=True)  # type: ignore[attr-defined]
    kind = next(k for k in ("float", "int", "choice") if k in dump)
    ends = dump[kind]
    text = (
        f"{kind} {ends[0]} to {ends[1]}"
        if kind != "choice"
        else f"one of {', '.join(str(list(v) if isinstance(v, tuple) else v) for v in ends)}"
    )
    if dump.get("log"):
        text += ", log"
    conditions = [f"{name}={value}" for name, value in dump.get("when", {}).items()]
    return text + (f", when {' and '.join(conditions)}" if conditions else "")
