"""Specifications and --set values: mostly by --dry-run, which reads them as the sweep does."""

import os
from typing import Any

from tests.bad_input.case import DRY, Case, Make, searching, spec, text_file

GOOD = "name: small\nbase: {preset: scenes}\nbudget: {trials: 2}\n"
BOMB = "".join(
    f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9 if level else ['lol'] * 9)}]\n" for level in range(12)
)
MERGE_BOMB = "x0: &x0 {a: 1}\n" + "".join(
    f"x{level}: &x{level} {{<<: [{', '.join([f'*x{level - 1}'] * 9)}]}}\n" for level in range(1, 12)
)


def written(name: str, text: str | bytes, *words: str, **more: Any) -> Case:
    """A file that is wrong as it stands."""
    return Case(f"yaml: {name}", DRY, ("s.yaml", *words), text_file(text), **more)


def changed(name: str, make: Make, *words: str) -> Case:
    """A file that is good YAML and a wrong sweep."""
    return Case(f"spec: {name}", DRY, ("s.yaml", *words), make)


def given(name: str, text: str, *words: str) -> list[Case]:
    """A value of --set that is wrong for a sweep and for a single run."""
    sweep = Case(f"set: {name}, sweep", f"{DRY} --set '{text}'", ("--set", *words), spec())
    return [sweep, Case(f"set: {name}, train", f"platform.train --set '{text}'", ("--set", *words))]


SYNTAX = [
    written("empty", "", "is empty", "write at least one `key: value`"),
    written("only comments", "# later\n", "is empty"),
    written("a list", "- name: small\n", "holds a list, not a mapping", "write `key: value` lines"),
    written("plain words", "small sweep\n", "holds a text, not a mapping"),
    written("a tab", "name: small\nbase:\n\tpreset: scenes\n", "s.yaml:3: a tab", "YAML wants spaces"),
    written("a tab after spaces", "base:\n  train:\n  \tepochs: 1\n", "s.yaml:3: a tab", "YAML wants spaces"),
    written("a key twice", "name: a\nbudget: {trials: 2}\nname: b\n", "s.yaml:3: key 'name' stands twice", "line 1"),
    written("a key twice deep inside", "base: {train: {lr: 1, lr: 2}}\n", "s.yaml:1: key 'lr' stands twice"),
    written("an open bracket", "search: {patches.p_h: {float: [0.1, 0.5}\n", "not valid YAML", "check indentation"),
    written("an open quote", "name: 'small\n", "not valid YAML", "quotes"),
    written("two colons", "name: small: sweep\n", "s.yaml:1", "not valid YAML (mapping values are not allowed here)"),
    written(
        "wrong indentation", "base:\n   train:\n  data:\n    crop: 64\n", "s.yaml:3: not valid YAML", "indentation"
    ),
    written("two documents", "name: a\n---\nname: b\n", "not valid YAML", "check"),
    written("NaN", "base: {train: {lr: .nan}}\n", "s.yaml:1: .nan is not a finite number", "write a number"),
    written("infinity", "budget: {wall_hours: .inf}\n", "s.yaml:1: .inf is not a finite number", "null for off"),
    written("a float out of range", "base: {train: {lr: 1e999}}\n", "1e999 is not a finite number"),
    written("a huge integer", "budget: {trials: 99999999999999999999}\n", "s.yaml:1: ", "too large", "64 bits"),
    written(
        "a name that is a version", "name: 1.10\nbudget: {trials: 2}\n", "name: this is read as a number", "quotes"
    ),
    written("a number of 5000 digits", f"budget: {{trials: {'9' * 5000}}}\n", "s.yaml:1: ", "too large", "64 bits"),
    written("code in a tag", "name: !!python/object/apply:os.system [touch executed]\n", "s.yaml:1", "plain values"),
    written("a module in a tag", "name: !!python/module:antigravity\n", "s.yaml:1", "write plain values"),
    written("a tag that does not fit", "budget: {trials: !!int many}\n", "s.yaml:1: 'many' is no int"),
    written("a truth that is none", "base: {network: {pcm: !!bool perhaps}}\n", "s.yaml:1: 'perhaps' is no bool"),
    written("a date that is none", "name: !!timestamp soon\n", "s.yaml:1", "write plain values"),
    written("a list under an int tag", "budget: {trials: !!int [1]}\n", "s.yaml:1: ", "plain values"),
    written("a list under a map tag", "budget: !!map [[a, b]]\n", "s.yaml:1: this is no mapping"),
    written("a list as key", "? [1, 2]\n: 3\n", "a key has to be a plain word", "write `name: value`"),
    written("anchors that multiply", BOMB, "s.yaml", "holds more than 10000 values", "write them out"),
    written("merged anchors that multiply", MERGE_BOMB, "s.yaml", "holds more than 10000 values"),
    written("an anchor inside itself", "base: &b {train: *b}\n", "s.yaml:1: ", "holds itself"),
    written("an anchor that is missing", "base: *nowhere\n", "s.yaml:1: not valid YAML (found undefined alias"),
    written("brackets without end", "base: " + "[" * 5000 + "]" * 5000, "s.yaml", "nested", "levels"),
    written("a thousand levels", "base: " + "[" * 1000 + "]" * 1000, "s.yaml", "nested", "levels"),
    written("a zero byte", b"name: a\0b\n", "not valid YAML", "save it as plain text"),
    written("a zero byte by escape", 'base: {data: {root: "a\\0b"}}\n', "s.yaml:1: ", "no text", "write it without"),
    written("half a character", 'base: {data: {root: "\\ud800"}}\n', "s.yaml:1: ", "no text", "write it without"),
    written("Latin-1", "name: größe\n".encode("latin-1"), "byte 8 is not UTF-8", "save the file as UTF-8 text"),
    written("UTF-16", "name: a\n".encode("utf-16"), "byte 0 is not UTF-8", "save the file as UTF-8 text"),
    written("a picture", b"\x89PNG\r\n\x1a\n\0\0", "byte 0 is not UTF-8"),
    written("JSON with a comment", '{"name": "a", // the name\n"budget": {}}', "not valid YAML"),
    written("a key with a line break", '{"na\\nme": 1, name: a}\n', "na\\nme: unknown key"),
    written("a key with terminal codes", '{"\\e[2Jname": 1, name: a}\n', "\\x1b[2Jname: unknown key"),
    written("a key of a thousand letters", f"{'k' * 1000}: 1\nname: a\n", "unknown key", "kkk..."),
    written("a value of ten thousand letters", f"name: {'v' * 10000}\n", "name: is written in letters", "vvv..."),
    written("numbers as keys", "1: 2\nname: a\n", "s.yaml:1: the key '1' is read as no text; write a name"),
    written("no key at all", "~: 2\nname: a\n", "s.yaml:1: the key '~' is read as no text; write a name"),
    written("a number as key deep inside", "base:\n  train: {1.0: 2}\n", "s.yaml:2: the key '1.0' is read as no text"),
    written("a truth as key", "name: a\ntrue: 2\n", "s.yaml:2: the key 'true' is read as no text; write a name"),
    written("a tab behind a colon", "name:\tsmall\n", "s.yaml:1: a tab stands in this line; YAML wants spaces"),
    written("good with CRLF", GOOD.replace("\n", "\r\n"), "nothing was started", code=0),
    written("good with a byte order mark", "\ufeff" + GOOD, "nothing was started", code=0),
    written("good with an anchor", f"{GOOD}confirm: &c {{top_k: 1}}\n", "nothing was started", code=0),
    written("good JSON", '{"name": "a", "base": {"preset": "scenes"}, "budget": {"trials": 2}}', "nothing", code=0),
    Case("yaml: a pipe", DRY, ("s.yaml is a pipe (FIFO)",), lambda place: os.mkfifo(place / "s.yaml")),
    Case("yaml: endless zeros", DRY, ("s.yaml is a device",), lambda place: (place / "s.yaml").symlink_to("/dev/zero")),
    written("megabytes", "# " + "x" * 2_000_000, "is larger than 1 MB, the most that is read here"),
    written("a hundred thousand values", "name: [" + "a," * 100_000 + "]", "more than 10000 values; give the right"),
    Case("yaml: no such file", "platform.sweep absent.yaml", ("absent.yaml: no such file; check the path",)),
    Case("yaml: no such file for a run", "platform.train absent.yaml", ("absent.yaml: no such file",)),
    Case("yaml: a folder", "platform.sweep . --dry-run", (".: is a folder; name a YAML file",)),
    Case("yaml: no file named", "platform.sweep", ("required: spec",), usage=True),
    Case("yaml: an option that is none", f"{DRY} --sett a=1", ("unrecognized arguments",), spec(), usage=True),
    Case("yaml: --set without a value", f"{DRY} --set", ("--set: expected one argument",), spec(), usage=True),
]

SECTIONS = [
    changed("an unknown section", spec(budgets={"trials": 2}), "budgets: unknown key", "did you mean 'budget'"),
    changed("an unknown key", spec(budget={"trails": 2}), "budget.trails: unknown key", "did you mean 'budget.trials'"),
    changed("an unknown name", spec(base={"patches": {"S_M": 5}}), "base: patches.S_M", "did you mean 'patches.S_N'"),
    changed("a name with dots", spec(base={"train.epochs": 2}), "base: train.epochs: ", "write train: {epochs: ...}"),
    changed("three levels in dots", spec(base={"data.scenes.val": 2}), "here write data: {scenes: {val: ...}}"),
    changed("dots in a section", spec(**{"budget.trials": 2}), "budget.trials: ", "here write budget: {trials: ...}"),
    changed("an unknown preset", spec(base={"preset": "offical"}), "preset: 'offical'", "did you mean 'official'"),
    changed("a preset that is a number", spec(base={"preset": 7}), "preset: 7 is neither a name"),
    changed("no name", text_file("budget: {trials: 2}\n"), "name: is missing; add it"),
    changed("a name with a slash", spec(name="../../etc"), "name: is written in letters, digits"),
    *(
        changed(f"a name that is taken, {name}", spec(name=name), "name: the storage folder", "take another")
        for name in (
            "runs",
            "stages",
            "cache",
            "attempts",
            "study.db",
            "mlflow.db",
            "mlflow.db-wal",
            "mlartifacts",
            "Runs",
            "study.db.lock",
        )
    ),
    changed("a word for a number", spec(budget={"trials": "many"}), "budget.trials: ", "whole number, given 'many'"),
    changed("a word for a base number", spec(base={"train": {"epochs": "eight"}}), "train.epochs: ", "given 'eight'"),
    changed("a number in quotes", spec(budget={"trials": "64"}), "budget.trials: ", "whole number, given '64'"),
    changed("true for a number", spec(budget={"trials": True}), "budget.trials: ", "whole number, given true"),
    changed("yes for true", spec(base={"network": {"pcm": "ja"}}), "network.pcm: ", "given 'ja'"),
    changed("true for a number of the method", spec(base={"train": {"epochs": True}}), "train.epochs: ", "not true or"),
    changed("false for a rate", spec(base={"train": {"lr": False}}), "train.lr: ", "a number, not true or false"),
    changed("true in a list", spec(base={"patches": {"K": [4, True]}}), "patches.K: ", "a number, not true or false"),
    changed("a rate beyond all bounds", spec(base={"train": {"lr": 1e308}}), "train.lr: ", "1e+09 at most", "1e+308"),
    changed("hours beyond all bounds", spec(budget={"wall_hours": 1e300}), "budget.wall_hours: ", "1e+09 at most"),
    changed(
        "a weight next to nothing", spec(base={"loss": {"alpha": 5e-324}}), "loss.alpha: ", "0 in single precision"
    ),
    changed("an empty folder name", spec(base={"data": {"root": ""}}), "data.root: ", "empty; write a value, or leave"),
    changed("blanks for a list", spec(base={"data": {"train": " "}}), "data.train: ", "empty; write a value"),
    changed("an empty address", spec(tracking={"uri": ""}), "tracking.uri: ", "empty; write a value"),
    changed("an empty question", spec(question=" "), "question: ", "empty; write a value"),
    changed("a section that is null", spec(resources=None), "resources: has to hold `key: value` lines"),
    changed("a section that is a list", spec(confirm=[1]), "confirm: has to hold `key: value` lines"),
    changed("no trials", spec(budget={"trials": 0}), "budget.trials: ", "greater than or equal to 1, given 0"),
    changed("no end", spec(budget={}), "budget: the sweep would never end", "budget.trials"),
    changed(
        "a gain of no sampler",
        spec(budget={"trials": 2, "min_gain_per_gpu_hour": 0.1}, search_options={"sampler": "tpe"}),
        "s.yaml: budget.min_gain_per_gpu_hour: only the sampler gp expects",
        "search_options.sampler=gp, or drop",
    ),
    changed("a gain of nothing", spec(budget={"trials": 2, "min_gain_per_gpu_hour": 0}), "greater than 0, given 0"),
    changed("a gain without another end", spec(budget={"min_gain_per_gpu_hour": 0.1}), "budget: the sweep would never"),
    changed("hours with a unit", spec(budget={"wall_hours": "90min"}), "budget.wall_hours: ", "given '90min'"),
    changed("GPU-hours with a unit", spec(budget={"gpu_hours": "2h"}), "budget.gpu_hours: ", "number, given '2h'"),
    changed("a share in percent", spec(base={"patches": {"p_h": "50%"}}), "patches.p_h: ", "number, given '50%'"),
    changed("a share of fifty", spec(base={"patches": {"p_h": 50}}), "patches.p_h: ", "less than 1, given 50"),
    changed("a decimal comma", text_file("name: a\nbase: {train: {lr: '0,01'}}\n"), "train.lr: ", "given '0,01'"),
    changed(
        "pixels with a unit", spec(base={"data": {"crop": "448px"}}), "data.crop: ", "whole number", "given '448px'"
    ),
    changed("a size as text", spec(base={"data": {"long_side": "448x768"}}), "data.long_side: ", "given '448x768'"),
    changed("a range upside down", spec(base={"data": {"long_side": [768, 448]}}), "long_side is [768, 448]", "give"),
    changed("S_N upside down", spec(base={"patches": {"S_N_range": [800, 50]}}), "S_N_range is [800, 50]", "give"),
    changed("mIoU as a share", spec(budget={"trials": 2, "target_miou": 0.57}), "target_miou: ", "percent", "0.57"),
    changed("mIoU above hundred", spec(budget={"target_miou": 570}), "target_miou: ", "less than or equal to 100"),
    changed("a rate below zero", spec(base={"train": {"lr": -0.1}}), "train.lr: ", "greater than"),
    changed("half a worker", spec(resources={"workers": 0.5}), "resources.workers: ", "whole number", "0.5"),
    changed("GPUs below zero", spec(resources={"gpus_per_worker": -1}), "gpus_per_worker: ", "greater than or equal"),
    changed("cards for one worker", spec(resources={"gpus_per_worker": 4}), "on one card; write workers: 4", "given 4"),
    changed("elastic upwards", spec(resources={"min_workers": 3}), "min_workers: 3 is more than workers, 1"),
    changed("elastic and odd", spec(resources={"min_workers": 2, "workers": 3}), "min_workers: ", "batch_size, 8"),
    changed("growing without end", spec(resources={"autoscaled": True}), "autoscaled: give concurrent"),
    changed(
        "cards for the CPU",
        spec(resources={"accelerator": "A100", "gpus_per_worker": 0}),
        "accelerator: trials train on the CPU",
    ),
    changed("a list for a number", spec(budget={"trials": [2, 3]}), "budget.trials: ", "whole number, given [2, 3]"),
    changed("a section that is a number", spec(budget=5), "budget: "),
    changed("an empty base", spec(base=None), "base: has to hold `key: value` lines"),
    changed("an empty search", spec(search=None), "search: has to hold `key: value` lines"),
    changed("an unknown sampler", spec(search_options={"sampler": "tpee"}), "search_options.sampler: ", "'tpe'"),
    changed("training on test", spec(base={"data": {"train": "test"}}), "train is test", "give trainaug or train"),
]

ONE_WEIGHT = {"loss.w_cls": {"float": [0, 2]}}

SEARCH = [
    changed("a searched typo", searching(loss__w_tpc={"float": [1, 2]}), "search.loss.w_tpc: ", "'loss.w_tcp'"),
    changed("low above high", searching(patches__p_h={"float": [0.5, 0.1]}), "search.patches.p_h", "write [0.1, 0.5]"),
    changed("beyond the range", searching(patches__p_h={"float": [0.5, 1.5]}), "1.5 is not", "narrow the domain"),
    changed("one end only", searching(patches__S_N={"int": [2]}), "patches.S_N.int.1: is missing; add it"),
    changed("a list for a domain", searching(patches__S_N=[2, 3]), "patches.S_N: not a domain; write {float"),
    changed("two kinds of domain", searching(patches__S_N={"int": [2, 3], "float": [2, 3]}), "not a domain"),
    changed("a domain of nothing", searching(patches__S_N=None), "patches.S_N: not a domain"),
    changed("a log of zero", searching(loss__w_tcp={"float": [0, 1], "log": True}), "log needs low > 0", "raise it"),
    changed(
        "losses of weight zero",
        spec(base={"preset": ["official"], "loss": {"w_cls": 0, "w_tcp": 0, "w_cpcr": 0}}),
        "base: loss.w_cls: ", "nothing would be trained; give loss.w_cls one above 0",
    ),
    changed(
        "one weight left, and it can be zero",
        spec(base={"preset": ["official"], "loss": {"w_tcp": 0, "w_cpcr": 0}}, search=ONE_WEIGHT),
        "search.loss.w_cls: 0.0 is not possible", "no loss has a weight", "narrow the domain",
    ),
    changed(
        "weights that can all be zero at once",
        searching(loss__w_cls={"float": [0, 3]}, loss__w_tcp={"choice": [0, 1]}, loss__w_cpcr={"float": [0, 1]}),
        "a trial can draw loss.w_cls=0.0, loss.w_tcp=0, loss.w_cpcr=0.0", "raise the low end of one weight",
    ),
    changed("an odd step", searching(patches__p_h={"float": [0.1, 0.5], "step": 0.3}), "whole steps of 0.3; write"),
    changed("a step too fine", searching(loss__w_tcp={"float": [0, 1e300], "step": 1e-300}), "w_tcp: ", "step"),
    changed("a choice of true for a number", searching(patches__S_N={"choice": [5, True]}), "True is not possible"),
    changed("a choice of true in a list", searching(patches__K={"choice": [[4, True]]}), "[4, True] is not possible"),
    changed("a choice of a mapping", searching(patches__K={"choice": [{"a": 1}]}), "K.choice: a choice is a value"),
    changed("a choice of lists of lists", searching(patches__K={"choice": [[[4]]]}), "a choice is a value or"),
    changed("a low end of nothing", searching(loss__w_tcp={"float": [1e-300, 1], "log": True}), "narrow the"),
    changed("a choice of nothing", searching(patches__kind={"choice": []}), "at least 1 item"),
    changed("a choice twice", searching(patches__kind={"choice": ["grid", "grid"]}), "'grid' stands twice; keep one"),
    changed("a choice of thousands", searching(patches__S_N={"choice": list(range(5, 3005))}), "search.patches.S_N",
            "has 3000 values, 1000 at most; write a range: {int: [low, high]}"),
    changed("a choice misspelt", searching(patches__kind={"choice": ["gird", "grid"]}), "'gird' is not possible"),
    changed(
        "a condition on an unsearched name",
        searching(patches__K={"choice": [[4, 7]], "when": {"patches.kind": "grid"}}),
        "search.patches.K: `when` names patches.kind, which is not searched", "search it too or drop the `when`",
    ),
    changed(
        "a condition on an unknown name",
        searching(patches__K={"choice": [[4, 7]], "when": {"patches.kin": "grid"}}),
        "`when` names patches.kin, which is not searched",
    ),
    changed(
        "a condition that never holds",
        searching(patches__kind={"choice": ["grid"]}, patches__S_N={"int": [5, 9], "when": {"patches.kind": "slic"}}),
        "search.patches.S_N: `when` wants patches.kind to be 'slic', which it never is", "name one of its values",
    ),
    changed(
        "conditions in a circle",
        searching(
            patches__kind={"choice": ["grid", "superpixel"], "when": {"patches.S_N": 5}},
            patches__S_N={"int": [5, 6], "when": {"patches.kind": "superpixel"}},
        ),
        "its `when` leads back to itself; drop one",
    ),
    changed("a folder that is searched", searching(data__root={"choice": ["a", "b"]}), "set it in base instead"),
    changed("half superpixels", searching(patches__S_N={"float": [5, 80]}), "whole numbers; write {int: [5, 80]}"),
    changed("true for a domain", searching(patches__p_h=True), "patches.p_h: not a domain"),
]  # fmt: skip

VALUES = [
    *given("an unknown name", "data.rot=/data", "data.rot: unknown key", "did you mean 'data.root'"),
    *given("a word for a number", "train.epochs=eight", "train.epochs", "given 'eight'"),
    *given("out of range", "patches.p_h=1.5", "patches.p_h", "given 1.5"),
    *given("an unknown preset", "preset=scene", "--set preset: preset: 'scene' is unknown", "did you mean 'scenes'"),
    *given("no value", "train.epochs", "--set train.epochs: write name=value"),
    *given("no name", "=3", "--set =3: write name=value"),
    *given("an open bracket", "patches.K=[1", "--set patches.K: not valid YAML"),
    *given("NaN", "train.lr=.nan", "--set train.lr: .nan is not a finite number"),
    *given("a huge integer", "train.seed=99999999999999999999", "--set train.seed: ", "too large"),
    *given("code", "data.root=!!python/object/apply:os.system [touch executed]", "--set data.root: ", "plain values"),
    Case("set: an address that is a mapping", f"{DRY} --set tracking.uri=sqlite:///:memory:",
         ("--set tracking.uri: is read as `key: value` lines; write it in quotes",), spec()),
    changed("a name that is a mapping", spec(name={"small": None}), "name: is read as `key: value` lines; write it in"),
    Case("set: a root that is a mapping", "platform.train --set 'data.root=a: b'",
         ("data.root: is read as `key: value` lines; write it in quotes",)),
    Case("set: base", f"{DRY} --set base.data.root=/x", ("--set base.data.root: write it without `base.`",), spec()),
    *(Case(f"set: the file is not blamed for {text}", f"{DRY} --set '{text}'", (f"error: --set {words}",), spec())
      for text, words in (
          ("budget.trials=", "budget.trials: budget: the sweep would never end; give budget.trials"),
          ("budget.trials.x=3", "budget.trials.x: budget.trials: Input should be a whole number"),
          ("search.patches.p_h.float=[.2,.1]", "search.patches.p_h.float: search.patches.p_h: low 0.2 is above high"),
          ("search.train.seed={int: [0, 9]}", "search.train.seed: the best of several seeds is luck"),
          ("search=null", "search: name what is searched: --set search.loss.w_tcp.float=[0.1,10]"))),
    Case("set: no such search", f"{DRY} --set search.a=1", ("--set search.a: a is not a name",), spec()),
    Case("set: budget of a run", "platform.train --set budget.trials=3", ("--set budget.trials: unknown key",)),
    Case("set: no data", "platform.train", ("data.root: no data set is named; --set data.root=FOLDER",)),
    Case(
        "set: no data for a sweep", "platform.sweep s.yaml --set preset=official",
        ("data.root: no data set is named; --set data.root=FOLDER",),
        spec(base={"preset": "official"}),
    ),
]  # fmt: skip


CASES = [*SYNTAX, *SECTIONS, *SEARCH, *VALUES]
