"""Completion of all commands in bash: `source <(python -m platform.completion bash)`; each line of it is printed.

The commands are run as `python -m platform.sweep`, so it is `python` that is completed: module names behind `-m`, then
that module's own options, files, dotted names for --set, and the names of the sweeps that are there. Whatever else
completes `python` keeps doing so for everything else. Made by shtab from the parsers themselves.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpn.core.errors import run_command

EXAMPLE = "python -m platform.completion bash"

FUNCTIONS = """
_cpn_set() {
  if [[ $1 == *=* ]]; then compgen -f -- "${1#*=}"; else compgen -W "$_cpn_names" -S = -- "$1"; fi
}
_cpn_sweeps() {
  local folder=sweeps found=() at lock
  for ((at = 1; at < ${#COMP_WORDS[@]} - 1; at++)); do
    [[ ${COMP_WORDS[at]} == --storage ]] && folder=${COMP_WORDS[at + 1]}
  done
  for lock in "$folder"/*/lock; do
    [[ -e $lock ]] && lock=${lock%/lock} && found+=("${lock##*/}")
  done
  compgen -W "${found[*]}" -- "$1"
}
"""

ATTACH = """
if [[ -z ${_cpn_before+set} ]]; then  # what completed python until now, asked for all that is not ours
  _cpn_before=$(complete -p python 2>/dev/null | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
fi
_cpn_ours() {
  local COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
  _shtab_cpn
}
_cpn_python() {
  if [[ ${COMP_WORDS[1]-} == -m ]] && ((COMP_CWORD >= 2)); then
    local module=${COMP_WORDS[2]-} words=(cpn) at
    if ((COMP_CWORD == 2)) || [[ " $_cpn_modules " == *" $module "* ]]; then
      # readline takes NAME=VALUE for three words
      for ((at = 2; at <= COMP_CWORD; at++)); do
        if [[ ${COMP_WORDS[at]} == = || ${words[-1]} == *= ]]; then
          words[-1]+=${COMP_WORDS[at]}
        else
          words+=("${COMP_WORDS[at]}")
        fi
      done
      _cpn_ours "${words[@]}"
      [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
      if ((COMP_CWORD > 2 || ${#COMPREPLY[@]})); then return 0; fi
    fi
  fi
  if [[ -n $_cpn_before && $_cpn_before != _cpn_python ]]; then
    "$_cpn_before" "$@"
  fi
}
complete -o bashdefault -o default -F _cpn_python python python3
"""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.completion",
        usage=f"{EXAMPLE} > ~/.cpn-completion.bash",
        description="Print a script that completes every command in bash: source <(python -m platform.completion bash),"
        " or keep it in a file and name that in ~/.bashrc.",
    )
    command.add_argument("shell", choices=("bash",), help="the shell")
    return command


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the command line of every command, by its module."""
    from cpn import (
        backbone,
        coco,
        download,
        explain,
        judge,
        predict,
        prepare,
        score,
        synthetic,
        voc_submission,
        weights,
    )

    from . import compare, export, gc, leaderboard, promote, report, rollback, status, stop, sweep, train, ui
    from .meta import __main__ as meta

    ours = (compare, export, gc, leaderboard, meta, promote, report, rollback, status, stop, sweep, train, ui)
    method = (backbone, coco, download, explain, judge, predict, prepare, score, synthetic, voc_submission, weights)
    by_module = {module.__name__.removesuffix(".__main__"): module.parser() for module in (*ours, *method)}
    return dict(sorted({**by_module, f"{__package__}.completion": parser()}.items()))


def script(commands: dict[str, argparse.ArgumentParser]) -> str:
    """Return the bash script."""
    import shtab

    root = argparse.ArgumentParser(prog="cpn", add_help=False)
    below = root.add_subparsers()
    for module, command in commands.items():
        for action in command._actions:
            complete = completed(module, action)
            if complete is not None:
                action.complete = complete  # type: ignore[attr-defined]
        below.add_parser(module, parents=[command], add_help=False, help=module)  # shtab leaves out what has no help
    completions: str = shtab.complete(root, shell="bash", root_prefix="cpn", preamble=FUNCTIONS)
    lines = [line for line in completions.splitlines() if not line.startswith(("complete ", "# "))]
    names = f"_cpn_modules={' '.join(commands)!r}\n_cpn_names={' '.join(settable())!r}\n"
    return f"# {EXAMPLE}\n{names}" + "\n".join(lines) + ATTACH


def completed(module: str, action: argparse.Action) -> Any:
    """Return what an argument is completed with, None for nothing."""
    import shtab

    if action.dest == "sets":
        return {"bash": "_cpn_set"} if module.startswith("platform.") else None
    if action.dest in ("name", "names") and module.startswith("platform."):
        return {"bash": "_cpn_sweeps"}
    if action.metavar == "FOLDER" or action.dest == "root":
        return shtab.DIRECTORY
    return shtab.FILE if action.type is Path else None


def settable() -> list[str]:
    """Return the names that --set takes."""
    from cpn.config import Config, to_dotted

    from .config.spec import sweep_names
    from .config.sweep_spec import SweepSpec

    whole = [name for name in sweep_names() if name not in SweepSpec.model_fields or name in ("name", "objective")]
    return ["preset", *whole, *to_dotted(Config())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser().parse_args(arguments)
    print(script(parsers()), end="")
    return 0


if __name__ == "__main__":
    run_command(main)
