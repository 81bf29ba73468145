"""What the command promote prints of gates."""

import io
from platform.base.terminal import Terminal
from platform.promotion.candidates import Gate
from platform.promotion.printing import show_gates

from rich.console import Console


def test_gates_say_what_was_found() -> None:
    terminal = Terminal(Console(file=io.StringIO(), width=100))
    show_gates(terminal, "a-0001", [Gate("artifact", True, "as written"), Gate("confirm", False, "not run again")])
    shown = terminal.console.file.getvalue()  # type: ignore[attr-defined]
    assert all(f"┃ {words}" in shown or f"│ {words}" in shown for words in ("what was found", "as written", "not run"))
    assert "gates of a-0001" in shown and "holds" in shown and "fails" in shown
