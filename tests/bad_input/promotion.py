"""Promoting and rolling back what is not there, without a reason, or with options that do not go together."""

from pathlib import Path

from tests.bad_input.case import Case, Make, both
from tests.bad_input.weights import model, with_code

PROMOTE = "platform.promote"
FILE = f"{PROMOTE} model.safetensors --sweep mine"
BACK = "platform.rollback"


def folder(place: Path) -> None:
    (place / "sweeps").mkdir()


def wrong(name: str, command: str, make: Make, *words: str, **more: object) -> Case:
    return Case(f"promotion: {name}", command, words, make, **more)  # type: ignore[arg-type]


CASES = [
    wrong("no storage", f"{PROMOTE} small-0001", lambda _: None, "--storage: ", "sweeps is no folder", "run a sweep"),
    wrong("a run that is not there", f"{PROMOTE} small-0001", folder, "small-0001: no such run", "sweeps: none",
          "a trial's uid, its run key"),
    wrong("a reason for nothing", f"{PROMOTE} --because x", folder, "--because: needs a run"),
    wrong("an empty reason", f"{PROMOTE} small-0001 --because ''", folder, "--because: is empty; say why"),
    wrong("a novel for a reason", f"{PROMOTE} small-0001 --because {'x' * 1001}", folder, "--because: has 1001 char",
          "1000 are kept"),
    wrong("a dry run of nothing", f"{PROMOTE} --dry-run", folder, "--dry-run: needs a run: python -m platform.promote"),
    wrong("a value for nothing", f"{PROMOTE} --set data.root=x", folder, "--set: needs a run"),
    wrong("a watch for a run", f"{PROMOTE} small-0001 --watch", folder, "small-0001: --watch and --history take no"),
    wrong("a watch that never sleeps", f"{PROMOTE} --watch --every 0", folder, "--every 0: give seconds above 0"),
    wrong("the history of no sweep", f"{PROMOTE} --history --sweep x", folder, "x: no such sweep", "--storage names"),
    wrong("no history at all", f"{PROMOTE} --history", folder, "nothing was promoted in", "next: python -m", code=0),
    wrong("a file of no sweep", f"{PROMOTE} model.safetensors", both(model(), folder), "no sweep made it; say --sweep"),
    wrong("a file that is not there", f"{FILE}", folder, "model.safetensors: no such file; give a run's"),
    wrong("a file of another kind", FILE, both(model(kind="deeplab"), folder), "a checkpoint of kind 'deeplab', not of "
          "a CAM network"),
    wrong("a file that names code", FILE, both(with_code("evil:make"), folder), "'evil:make'", "not run unasked"),
    wrong("a sweep outside", f"{PROMOTE} model.safetensors --sweep ../x", both(model(), folder), "name: "),
    wrong("a value that is trained in", f"{FILE} --set loss.w_tcp=2", both(model(), folder), "--set loss.w_tcp: the "
          "network is trained already", "data.root"),
    wrong("data that are not there", f"{FILE} --set data.root=nowhere", both(model(), folder), "nowhere"),
    wrong("a way back without a reason", f"{BACK} small", folder, "--because: say why, it is kept"),
    wrong("a way back from nothing", f"{BACK} --because x", folder, "SWEEP: is missing", "has none; name one"),
    wrong("a way back in no sweep", f"{BACK} small --because x", folder, "small: no such sweep", "there are: none"),
]  # fmt: skip
