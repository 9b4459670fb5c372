# SPDX-License-Identifier: GPL-2.0-only
"""For scripts: that what was refused or ended is not held any longer."""

#: forgets(rounds, try): try(kept) puts what it hands over into a table that
#: does not hold it. One turn leaves nothing of it, and so many hold no more memory.
FORGETS = """
local function forgets(rounds, try)
    local kept = setmetatable({}, {__mode = "k"})
    local function held()
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
    end
    try(kept)
    local before = held()
    assert(next(kept) == nil)
    for _ = 1, rounds do try(kept) end
    assert(held() - before < 8, "more is held, in KB: " .. held() - before)
end
"""
