# SPDX-License-Identifier: GPL-2.0-only
"""The scripts of rogues.lua, and how each has to end.

    python tests/e2e/rogue/rogues.py [RUN.json]

prints all of them with how they must end, and how they did in a run
(results/latest/run.json unless another is named).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONTEXTS = ("process", "softirq")

#: What a script that is no rogue any more says of itself.
BROKEN = "instruction budget exceeded"

_HEADER = re.compile(r"^--- (?P<name>\w+): (?P<ends>.+)$", re.MULTILINE)
_LOADED = re.compile(r"^---$", re.MULTILINE)
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
env.rogue_was_fine, env.rogue_may_go = nil, nil
{hook_libraries}
{loaded}
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
        code: what it does when it is let go.
        loaded: what it has done before, while loading, with another budget.
        ends: patterns, one of which the message has to match; "" is no message.
    """

    name: str
    code: str
    loaded: str
    line: int
    ends: dict[str, tuple[str, ...]]

    def script(self, context: str) -> str:
        """The whole script, whose function or packet hook is the rogue."""
        hook = context == "softirq"
        head = _SCRIPT.format(
            hook_libraries=_HOOK_LIBRARIES if hook else "", loaded=self.loaded, code=self.code
        )
        return head + (_SOFTIRQ if hook else _PROCESS)

    @property
    def wants_memory(self) -> bool:
        """Whether memory is what it may end by."""
        return any(_MESSAGES["memory"] in ends for ends in self.ends.values())

    @property
    def memory(self) -> int:
        """The cap to run it with, in bytes: tight where memory is what it wants."""
        return 256 << 10 if self.wants_memory else 4 << 20

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
        *loaded, code = _LOADED.split(code, maxsplit=1)
        process, _, softirq = header["ends"].partition(" / ")
        rogues.append(
            Rogue(
                name=header["name"],
                code=code.strip("\n"),
                loaded="".join(loaded).strip("\n"),
                line=text.count("\n", 0, header.start()) + 1,
                ends={"process": _ends(process), "softirq": _ends(softirq or process)},
            )
        )
    return tuple(rogues)


def table(statuses: Mapping[str, str]) -> str:
    """For people.

    Args:
        statuses: of tests, by the part of their id in brackets; "-" for others.
    """
    rows = [f"{'rogue':34} {'ends by':34} " + " ".join(f"{name:>8}" for name in CONTEXTS)]
    for rogue in read_rogues():
        ends = " / ".join(
            dict.fromkeys("|".join(e or "fine" for e in rogue.ends[c]) for c in CONTEXTS)
        )
        verdicts = [statuses.get(f"{rogue.name}-{context}", "-") for context in CONTEXTS]
        rows.append(f"{rogue.name:34} {ends:34} " + " ".join(f"{word:>8}" for word in verdicts))
    good = sum(status == "passed" for status in statuses.values())
    rows.append(f"{len(rows) - 1} rogues, {good} of {len(statuses)} tries ended as they must")
    return "\n".join(rows)


def _main(words: list[str]) -> None:
    from lab.manifest import ROOT
    from lab.results.merge import load_run

    file = Path(words[0]) if words else ROOT / "results" / "latest" / "run.json"
    tests = load_run(file).tests if file.exists() else ()
    mine = [test for test in tests if "test_rogue.py::test_rogue[" in test.id]
    print(table({test.id.partition("[")[2].rstrip("]"): test.status for test in mine}))


if __name__ == "__main__":
    _main(sys.argv[1:])
