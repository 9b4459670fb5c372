# SPDX-License-Identifier: GPL-2.0-only
"""Scripts that come and go while packets come in."""

#: Says so once it has met a hundred.
TELLING = """
local action = require("linux.xdp")
local met = 0
require("xdp").attach(function()
    met = met + 1
    if met == 100 then print("met 100") end
    return action.PASS
end, {{dev = "{device}", mode = "{mode}"}})
"""

#: Another script, as often as that, which it starts and stops.
AGAIN = """
local lunatik = require("lunatik")
local linux = require("linux")
for round = 1, {rounds} do
    local one = lunatik.runtime("filter", "softirq")
    if round % 4 == 0 then linux.schedule(1) end
    one:stop()
end
"""
