"""What the command promote prints of an entry of the history and of gates."""

import io
from platform.base.terminal import Terminal
from platform.promotion.candidates import Gate
from platform.promotion.printing import in_words, show_gates

from rich.console import Console


def test_an_entry_names_what_it_overrides() -> None:
    entry = {"when": 0, "model": "cpn-a", "from": None, "to": "1", "uid": "a-0001", "who": "ann", "why": "sharper"}
    lines = in_words({**entry, "overridden": ["confirm"], "gates": {"confirm": "not run again"}}).splitlines()
    assert lines[0].endswith("cpn-a  - to 1: promotion of a-0001 by ann: sharper")
    assert lines[1] == "    overrides confirm: not run again"


def test_gates_say_what_was_found() -> None:
    terminal = Terminal(Console(file=io.StringIO(), width=100))
    show_gates(terminal, "a-0001", [Gate("artifact", True, "as written"), Gate("confirm", False, "not run again")])
    shown = terminal.console.file.getvalue()  # type: ignore[attr-defined]
    assert "gates of a-0001" in shown and "holds" in shown and "fails" in shown
