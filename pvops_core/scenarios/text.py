"""A performance as a story for a terminal or a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from pvops_core.scenarios.acts import Role

if TYPE_CHECKING:
    from rich.console import Console

    from pvops_core.scenarios.acts import Act
    from pvops_core.scenarios.model import Performance

_HEADINGS: Final = {
    Role.OLD: ("OLD", "bold red"),
    Role.ELSEWHERE: ("NO HARM", "bold cyan"),
    Role.FIXED: ("FIXED", "bold green"),
    Role.REFUSED: ("REFUSED", "bold yellow"),
    Role.ALLOWED: ("ALLOWED", "bold green"),
}
_INDENT: Final = 2


def print_performance(performance: Performance, console: Console) -> None:
    """Print what was shown, act by act, and the verdict."""
    _line(console, Text.assemble((performance.name, "bold"), ": ", performance.summary), 0)
    for commit in performance.commits:
        _line(console, Text.assemble((commit.id, "yellow"), f"  {commit.when}: {commit.what}"))
    for act in performance.acts:
        console.print()
        _print_act(act, console)
    console.print()
    _line(console, _verdict(performance), 0)


def _print_act(act: Act, console: Console) -> None:
    _line(console, Text.assemble(_HEADINGS[act.role], f"  {act.title}"), 0)
    for sentence in act.story:
        _line(console, Text(sentence))
    for listing in act.listings:
        _line(console, Text(f"{listing.title}:", style="dim"))
        for line in listing.lines:
            _line(console, Text(line), _INDENT * 3)
    _line(console, Text.assemble("ended: ", (act.ending, "italic")))
    for check in act.checks:
        mark = ("yes", "green") if check.held else ("NO", "bold red")
        _line(console, Text.assemble("- ", check.claim, ": ", mark))


def _line(console: Console, text: Text, indent: int = _INDENT) -> None:
    for part in text.wrap(console, console.width - indent):
        part.rstrip()
        console.print(Text(" " * indent).append_text(part))


def _verdict(performance: Performance) -> Text:
    if performance.honest and performance.of_a_rule:
        return Text(
            "As the rule says: what is wrong is refused and harms nothing, what is right is done.", "bold green"
        )
    if performance.honest:
        return Text("As history says: the old behaviour fails for that reason, and the fixed one works.", "bold green")
    wrong = [act.title for act in performance.acts if not act.held]
    authority = "the rule" if performance.of_a_rule else "history"
    return Text(f"Not as {authority} says: {'; '.join(wrong) or 'nothing was shown'}.", "bold red")
