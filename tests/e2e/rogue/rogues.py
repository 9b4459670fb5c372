# SPDX-License-Identifier: GPL-2.0-only
"""The scripts of rogues.lua, and how each has to end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CONTEXTS = ("process", "softirq")

#: What a script that is no rogue any more says of itself.
BROKEN = "instruction budget exceeded"

_HEADER = re.compile(r"^--- (?P<name>\w+): (?P<ends>.+)$", re.MULTILINE)
_END = re.compile(r'"(?P<text>[^"]*)"|(?P<word>\w+)')
_MESSAGES = {
    "budget": BROKEN,
    "memory": "not enough memory",
    "stack": "stack overflow",
    "fine": "",
}

_SCRIPT = """\
local rcu, data, lunatik = require("rcu"), require("data"), require("lunatik")
local env = lunatik._ENV
{hook_libraries}
local function rogue()
{code}
end
"""

_HOOK_LIBRARIES = 'local netfilter, nf = require("netfilter"), require("linux.nf")'

_PROCESS = """
return function() rogue() env.rogue_was_fine = true end
"""

_SOFTIRQ = """
netfilter.register{
	hook = function()
		if env.rogue_may_go then
			env.rogue_may_go = nil
			rogue()
			env.rogue_was_fine = true
		end
		return nf.action.ACCEPT
	end,
	pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, priority = nf.ip.pri.FILTER,
}
"""


@dataclass(frozen=True, kw_only=True)
class Rogue:
    """One script.

    Attributes:
        ends: patterns, one of which the message has to match; "" is no message.
    """

    name: str
    code: str
    line: int
    ends: dict[str, tuple[str, ...]]

    def script(self, context: str) -> str:
        """The whole script, whose function or packet hook is the rogue."""
        hook = context == "softirq"
        libraries = (
            'local netfilter, nf = require("netfilter"), require("linux.nf")' if hook else ""
        )
        head = _SCRIPT.format(hook_libraries=libraries, code=self.code)
        return head + (_SOFTIRQ if hook else _PROCESS)

    @property
    def memory(self) -> int:
        """The cap to run it with, in bytes: tight where memory is what it wants."""
        wants = any(_MESSAGES["memory"] in ends for ends in self.ends.values())
        return 256 << 10 if wants else 4 << 20

    def ended_well(self, context: str, message: str) -> bool:
        """Whether the message is one of those that it should be."""
        return any(re.search(end, message) if end else not message for end in self.ends[context])


def _ends(text: str) -> tuple[str, ...]:
    ends: list[str] = []
    for found in _END.finditer(text):
        if found["text"] is not None:
            ends.append(found["text"])
        else:
            ends.append(_MESSAGES[found["word"]])
    return tuple(ends)


def read_rogues() -> tuple[Rogue, ...]:
    """All of them, in the file's order."""
    text = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")
    headers = list(_HEADER.finditer(text))
    rogues = []
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        code = text[header.end() : following.start() if following else None]
        process, _, softirq = header["ends"].partition(" / ")
        rogues.append(
            Rogue(
                name=header["name"],
                code=code.strip("\n"),
                line=text.count("\n", 0, header.start()) + 1,
                ends={"process": _ends(process), "softirq": _ends(softirq or process)},
            )
        )
    return tuple(rogues)
