"""The pictures of the pages: ``python docs/tools/pictures.py docs/explanation/pictures``.

Boxes on a grid with lines between them, as SVG that is readable on light and dark pages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import attrs

PLAIN: Final = "#dbe4ee"
GUEST: Final = "#cfe3cf"
OURS: Final = "#d6d9f2"
BAD: Final = "#f2d0cd"
FONT: Final = "font-family='DejaVu Sans,Verdana,sans-serif'"
LINE_HEIGHT: Final = 16


@attrs.frozen
class Box:
    """A rectangle with lines of text in it.

    Attributes:
        x: left edge, in pixels.
        y: upper edge.
        width: of the rectangle.
        text: lines; the first is bold, those that begin with a blank are code.
        colour: of the rectangle.
    """

    x: int
    y: int
    width: int
    text: Sequence[str]
    colour: str = PLAIN

    @property
    def height(self) -> int:
        """What its lines need."""
        return LINE_HEIGHT * len(self.text) + 14

    def svg(self) -> Iterator[str]:
        """Its elements."""
        yield (
            f"<rect x='{self.x}' y='{self.y}' width='{self.width}' height='{self.height}' rx='5' "
            f"fill='{self.colour}' stroke='#5b6b7b'/>"
        )
        for number, line in enumerate(self.text):
            style = " font-weight='bold'" if number == 0 else ""
            style += " font-family='DejaVu Sans Mono,monospace'" if line.startswith(" ") else ""
            y = self.y + 20 + LINE_HEIGHT * number
            yield f"<text x='{self.x + 10}' y='{y}' fill='#1b2530'{style}>{escape(line.strip())}</text>"


@attrs.frozen
class Arrow:
    """A straight line with a head, and words beside its middle.

    Attributes:
        start: where it begins.
        end: where its head is.
        text: the words.
        dashed: whether it is something that may be, not what is done.
        head: whether it has one; a corner's first half has not.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    text: str = ""
    dashed: bool = False
    head: bool = True

    def svg(self) -> Iterator[str]:
        """Its elements."""
        (x1, y1), (x2, y2) = self.start, self.end
        dash = " stroke-dasharray='5 4'" if self.dashed else ""
        head = " marker-end='url(#head)'" if self.head else ""
        yield f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='#5b6b7b' stroke-width='1.5'{dash}{head}/>"
        if self.text:
            upright = abs(x2 - x1) < abs(y2 - y1)
            x, y = (x1 + x2) // 2 + (8 if upright else 0), (y1 + y2) // 2 + (4 if upright else -6)
            anchor = "start" if upright else "middle"
            halo = "paint-order='stroke' stroke='#ffffff' stroke-width='5'"
            yield f"<text x='{x}' y='{y}' text-anchor='{anchor}' fill='#1b2530' {halo}>{escape(self.text)}</text>"


def picture(title: str, width: int, height: int, parts: Sequence[Box | Arrow]) -> str:
    """An SVG document."""
    body = "\n".join(line for part in parts for line in part.svg())
    size = f"width='{width}' height='{height}' viewBox='0 0 {width} {height}'"
    return f"""<svg xmlns='http://www.w3.org/2000/svg' {size} \
font-size='12' {FONT} role='img' aria-label='{escape(title, quote=True)}'>
<title>{escape(title)}</title>
<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'>\
<path d='M0 0L10 5L0 10z' fill='#5b6b7b'/></marker></defs>
<rect width='{width}' height='{height}' rx='6' fill='#ffffff'/>
{body}
</svg>
"""


def patch() -> str:
    """A site of Linux 6.1 and all that can become of it."""
    site = Box(20, 96, 230, ["a call site of irq_disable", " ff 15 d4 2c 01 00", " call *pv_ops+0xf8(%rip)"], GUEST)
    forms = (
        ["inlined: the op's code is short enough", " fa 0f 1f 44 00 00", " cli; nop"],
        ["direct: a call without the table", " e8 6b f1 ff ff 90", " call xen_irq_disable; nop"],
        ["nop: there is nothing to do", " 66 0f 1f 44 00 00", " nopw 0(%rax,%rax)"],
        ["indirect: left as it was", " ff 15 d4 2c 01 00", " call *pv_ops+0xf8(%rip)"],
    )
    boxes: list[Box | Arrow] = [site]
    for row, text in enumerate(forms):
        box = Box(370, 12 + 72 * row, 320, text)
        boxes += [box, Arrow((250, 127), (370, box.y + 31))]
    return picture("A call site and the four forms that it can take", 710, 300, boxes)


def trap() -> str:
    """The way of a trap."""
    return picture(
        "The way of a trap from the instruction through the machine to the platform and back",
        710,
        250,
        [
            Box(20, 20, 190, ["guest", " out, cpuid, syscall,", " int, a page fault, hlt"], GUEST),
            Box(270, 20, 180, ["engine (Unicorn)", "ends the instruction,", "keeps its error code"], PLAIN),
            Box(510, 20, 180, ["machine", "vCPU as it stood at", "the instruction"], OURS),
            Arrow((210, 51), (270, 51)),
            Arrow((450, 51), (510, 51)),
            Arrow((600, 82), (600, 160)),
            Box(510, 160, 180, ["platform of the backend", "bare metal, Xen, lguest:", "decides what follows"], OURS),
            Arrow((510, 191), (450, 191)),
            Box(270, 152, 180, ["one of", "deliver by the IDT", "bounce to the guest", "answer, or end the run"]),
            Arrow((270, 191), (115, 191), head=False),
            Arrow((115, 191), (115, 84), "goes on where RIP says"),
        ],
    )


def rendezvous() -> str:
    """How four vCPUs meet for a live patch."""
    parts: list[Box | Arrow] = [
        Box(20, 15, 110, ["action begins"], "#ffffff"),
        Box(330, 15, 130, ["all are held"], "#ffffff"),
        Box(520, 15, 170, ["everybody goes on"], "#ffffff"),
    ]
    arrivals = (150, 210, 330, 260)
    for number, held in enumerate(arrivals):
        y = 56 + 44 * number
        parts += [
            Box(20, y, held - 30, [f"vCPU {number} runs"], GUEST),
            Box(held, y, 470 - held, ["held" if held < 330 else "held: the last"], PLAIN),
            Box(530, y, 150, ["runs the new code"], GUEST),
        ]
    parts += [
        Box(395, 240, 210, ["quiet zone", "expectations, hooks,", "text in one transaction"], OURS),
        Arrow((500, 240), (500, 60)),
        Box(
            20,
            240,
            340,
            [
                "or: the deadline passes first",
                "nothing is written; the message says which",
                "vCPU was missing, and why",
            ],
            BAD,
        ),
    ]
    return picture("Four vCPUs are held one after the other, then the text is changed, then all go on", 710, 320, parts)


def frames() -> str:
    """The types of a frame under Xen, and the ways between them."""
    return picture(
        "Types of a frame on Xen: none, writable, page table of a level, segment descriptors",
        710,
        330,
        [
            Box(270, 20, 170, ["no type", "count 0: may become any"]),
            Box(20, 140, 190, ["writable", "mapped read-write by a", "count of entries"], GUEST),
            Box(260, 140, 190, ["page table L1 to L4", "checked entry by entry,", "read-only to the guest"], OURS),
            Box(500, 140, 190, ["descriptors (GDT, LDT)", "checked, read-only", "to the guest"], OURS),
            Arrow((290, 66), (120, 140), "first writable mapping"),
            Arrow((355, 66), (355, 140), "linked, pinned"),
            Arrow((420, 66), (590, 140), "set_gdt, set_ldt"),
            Box(20, 250, 190, ["pinned", "stays a page table", "without a user"]),
            Arrow((260, 200), (200, 250), dashed=True),
            Box(
                260,
                250,
                430,
                [
                    "refused while the count is not 0",
                    "writable → page table, page table → writable, one level → another:",
                    "-EINVAL or -EBUSY, and the reason is in the event log",
                ],
                BAD,
            ),
            Arrow((355, 202), (355, 250), dashed=True),
            Arrow((120, 202), (300, 250), dashed=True),
        ],
    )


PICTURES: Final = {"patch": patch, "trap": trap, "rendezvous": rendezvous, "frames": frames}


def main(folder: str) -> None:
    """Write all pictures into a folder."""
    for name, draw in PICTURES.items():
        path = Path(folder) / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
