-- SPDX-License-Identifier: GPL-2.0-only
--
-- Scripts that mean harm. A line `--- NAME: END` begins one; END is how it has
-- to end, in process and in softirq alike, or `PROCESS / SOFTIRQ`:
--
--   budget   the runtime is stopped for good, its instructions used up
--   memory   "not enough memory", and the runtime goes on
--   stack    a stack overflow of Lua or C, and the runtime goes on
--   fine     nothing happens at all
--   "text"   an error that holds the text, and the runtime goes on
--
-- Alternatives are joined by |. What stands before a line of three hyphens is
-- done while the script is loaded, with a budget of its own.

-- Loops --------------------------------------------------------------------

--- while: budget
while true do end

--- repeat: budget
repeat until false

--- goto: budget
::again:: goto again

--- numeric_for: budget
for i = 1, math.maxinteger do end

--- for_over_iterator: budget
for _ in function() return true end do end

--- for_over_next: budget
local t = {a = 1}
while true do for k in next, t do end end

--- tail_recursion: budget
local function f() return f() end
f()

--- coroutine_ping_pong: budget
local co = coroutine.wrap(function() while true do coroutine.yield() end end)
while true do co() end

--- coroutine_made_before_the_entry: budget
if not _G.co then _G.co = coroutine.create(function() while true do end end) end
coroutine.resume(_G.co)

--- coroutine_in_coroutine: budget
local function f() return coroutine.wrap(function() while true do f2() end end)() end
f2 = function() local x = 0; while true do x = x + 1 end end
f()

--- index_metamethod: budget
local t = setmetatable({}, {__index = function(t, k) return t[k + 1] == 1 and 1 or 0 end})
while true do pcall(function() return t[1] end) end

--- length_metamethod: budget
local t = setmetatable({}, {__len = function() while true do end end})
return #t

--- load_a_reader_without_end: budget|memory|"too many local"
assert(load(function() return "local a = 1 " end))

--- load_again_and_again: budget
while true do load("return 1")() end

--- chunk_name_of_any_length: budget
local f = load("error('x')", ("x"):rep(1 << 9):rep(7 << 9))
---
while true do pcall(f) end

--- mode_of_any_length: budget
local s = ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do load("", "", s) end

--- hook_mask_of_any_length: budget
local s = ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do debug.sethook(print, s) debug.sethook() end

--- globals_declared: budget
local t = {}
for i = 1, 2000 do t[i] = "a" .. i end
load("global " .. table.concat(t, ",") .. " " .. ("a1=a1 "):rep(500))

--- upvalues_looked_through: budget
local t = {}
for i = 1, 250 do t[i] = "a" .. i end
local first, second = table.concat(t, ",", 1, 190), table.concat(t, ",", 191)
assert(load("local " .. first .. " local function f() local " .. second .. " " ..
	("return function() "):rep(6) .. table.concat(t, "=1 ") .. "=1 " ..
	("x=x "):rep(4000) .. ("end "):rep(7)))

--- print_flood: budget
while true do print("x") end

--- tostring_metamethod: budget
print(setmetatable({}, {__tostring = function() while true do end end}))

--- warn_and_collect: budget
while true do collectgarbage() end

--- warn_giants: budget
local s = ("x"):rep(1000):rep(2000)
while true do warn(s) end

--- print_lines: budget
local s = ("\n"):rep(1 << 10):rep(1 << 10)
---
while true do print(s) end

--- max_of_many: budget
local t = {}
for i = 1, 5000 do t[i] = "0x" .. i end
while true do math.max(table.unpack(t)) end

--- long_numerals: budget
local s = ("0"):rep(1 << 10):rep(1 << 10)
---
while true do pcall(math.abs, s) end

--- numerals_that_are_none: budget
local s = (" "):rep(1 << 9):rep(1 << 10) .. "x"
for _ = 1, 40 do tonumber(s) end

--- numerals_to_add: budget
local s = ("0"):rep(1 << 9):rep(1 << 10) .. "x"
for _ = 1, 40 do pcall(function() return s + 1 end) end

--- keys_of_one_hash: budget
local t = {}
for i = 1, 20000 do t[i << 48] = true end
while true do local _ = t[65536 + 20000 << 48] end

--- collector_settings: budget
collectgarbage("incremental", 1000, 1000)
while true do collectgarbage("step", 0) end

--- generational_collector: budget
collectgarbage("generational")
local t = {}
while true do t[1] = {t[1]}; if #t > 100 then t = {} end t[1] = nil end

-- Loops in C ---------------------------------------------------------------

--- rep_giants: memory|budget
return ("x"):rep(1 << 40)

--- rep_of_nothing: fine
return #(""):rep(math.maxinteger)

--- rep_again_and_again: budget
while true do local _ = ("x"):rep(100000) end

--- concat_giants: memory
local s = "x"
while true do s = s .. s end

--- table_concat_giants: memory|budget
local t = {}
for i = 1, 1000 do t[i] = ("x"):rep(1000) end
while true do t[#t + 1] = table.concat(t) end

--- format_widths: "invalid conversion|too long"
return ("%1000d"):format(1)

--- format_again_and_again: budget
while true do local _ = ("%99d %99s %q"):format(1, "x", "\0\n\r") end

--- quoted_zeros: budget
local s = ("\0"):rep(1 << 9):rep(1 << 5)
for _ = 1, 10 do string.format("%q", s) end

--- find_plain_worst_case: budget
local s, p = ("a"):rep(100000), ("a"):rep(1000) .. "b"
while true do s:find(p, 1, true) end

--- find_nothing: budget
local s = ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do s:find("y", 1, true) end

--- pattern_exponential: budget
return (("a"):rep(64)):find(("a?"):rep(32) .. ("a"):rep(65))

--- pattern_of_zeros: budget
local s = ("\0"):rep(1 << 9):rep(1 << 8)
for _ = 1, 20 do ("x"):find(s) end

--- pattern_many_stars: budget
return (("a"):rep(300)):find((".-"):rep(20) .. "b")

--- pattern_one_long_item: budget
local s = "x"
for _ = 1, 20 do s = s .. s end
return s:find("^x*$")

--- pattern_nested_frontier: budget
local s = ("a"):rep(20000)
while true do s:find("%f[b]a*a*a*a*b") end

--- pattern_recursion: "too complex"|stack|budget
return (("a"):rep(300000)):find(("(a"):rep(30) .. ("a?"):rep(40000) .. (")"):rep(30))

--- class_without_end: budget
local s = "[" .. ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do pcall(string.gsub, "x", s, "") end

--- replacement_of_percents: budget
local s = ("%%"):rep(1 << 9):rep(1 << 11)
---
("x"):gsub("x", s, 1)

--- replacement_of_positions: budget
local s = ("%1"):rep(1 << 9):rep(1 << 11)
---
("x"):gsub("()", s, 1)

--- balance_giants: budget
local s = ("("):rep(1 << 9):rep(3 << 10)
---
s:find("%b()")

--- gsub_giants: memory|budget
local s = ("x"):rep(100000)
while true do s = s:gsub("x", "xx") end

--- replaced_by_percents: budget
local s = ("%%"):rep(1 << 9):rep(1 << 5)
for _ = 1, 60 do ("x"):gsub("x", s) end

--- gsub_callback_that_loops: budget
(("x"):rep(10)):gsub("x", function() while true do end end)

--- gsub_in_gsub: stack
local function f() return (("x"):gsub("x", f)) end
f()

--- gmatch_of_nothing: budget
while true do for _ in (("x"):rep(1000)):gmatch("()") do end end

--- sort_giants: budget
local t = {}
for i = 1, 50000 do t[i] = i * 7919 % 50021 end
while true do table.sort(t, function(a, b) return a > b end); table.sort(t) end

--- sort_with_false_comparator: "invalid order function"|budget
local t = {}
for i = 1, 1000 do t[i] = i * 7919 % 1009 end
for _ = 1, 100 do table.sort(t, function() return true end) end

--- sort_a_length_that_lies: "too big|not enough"
table.sort(setmetatable({}, {__len = function() return math.maxinteger end}))

--- sort_an_endless_array: budget
table.sort(setmetatable({}, {__len = function() return 1 << 30 end,
	__index = function() return 1 end}))

--- move_far: "too many|wrap"|budget
table.move({}, 1, math.maxinteger - 1, 2)

--- move_much: budget|memory
table.move({1, 2, 3}, 1, 1 << 40, 1 << 41)

--- unpack_giants: "too many results"|budget
return table.unpack({}, 1, 1 << 30)

--- unpack_metamethods: "too many results|overflow|memory"|budget
return table.unpack(setmetatable({}, {__index = function() return 1 end}), 1, 1000000)

--- insert_in_front: budget|memory
local t = {}
while true do table.insert(t, 1, 0) end

--- remove_from_a_lie: budget|"bounds"
local t = setmetatable({}, {__len = function() return 1 << 40 end})
table.remove(t, 1)

--- next_over_a_hollow_table: budget
local t = {}
for i = 1, 60000 do t["k" .. i] = true end
for i = 1, 60000 do t["k" .. i] = nil end
while true do next(t) end

--- compare_long_strings: budget
local a, b = ("x"):rep(1 << 10):rep(1 << 9), ("x"):rep(1 << 10):rep(1 << 9)
---
while true do local _ = a .. "" == b .. "y" or a < b end

--- equal_strings: budget
local a, b = ("x"):rep(1 << 9):rep(1 << 10), ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do rawequal(a, b) end

--- equal_keys: budget
local a, b = ("x"):rep(1 << 9):rep(1 << 9), ("x"):rep(1 << 9):rep(1 << 9)
local t = {[a] = true}
for _ = 1, 60 do next(t, b) end

--- keys_alike_in_a_chain: budget
local key = ("x"):rep(1 << 9):rep(1 << 7)
local t = {}
for _ = 1, 300 do t = setmetatable({}, {__index = t}) end
return t[key]

--- names_of_any_length: budget
local name = ("x"):rep(1 << 9):rep(1 << 10)
package.loaded[name] = true
for _ = 1, 40 do require(name) end

--- byte_giants: "too long|too many|overflow"|budget
local s = ("x"):rep(1000):rep(1000)
---
return s:byte(1, -1)

--- char_giants: budget|memory
while true do local _ = string.char(table.unpack({(("x"):rep(200)):byte(1, -1)})) end

--- pack_giants: memory
return ("!16 s8"):pack(("x"):rep(1000000)):rep(1000)

--- pack_alignment: "power of 2|too|limits"
return string.pack("!17 i17", 1)

--- unpack_beyond_the_end: "too short|out of"
return string.unpack("s8", "\255\255\255\255\255\255\255\127")

--- format_of_one_character: budget
local s = ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do string.format("%.1s", s) end

--- format_of_zeros: budget
local s = "%" .. ("0"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do pcall(string.format, s, 1) end

--- pack_up_to_a_zero: budget
local s = ("x"):rep(1 << 9):rep(1 << 10) .. "\0x"
for _ = 1, 40 do pcall(string.pack, "z", s) end

--- unpack_up_to_a_zero: budget
local s = ("x"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do pcall(string.unpack, "z", s) end

--- pack_of_zeros: budget
local s = "i" .. ("0"):rep(1 << 9):rep(1 << 10)
for _ = 1, 40 do pcall(string.packsize, s) end

--- utf8_giants: budget
local s = ("\u{10FFFF}"):rep(10000)
while true do utf8.len(s); for _ in utf8.codes(s) do end end

--- utf8_char_of_many: budget
local function f(...) for _ = 1, 100 do utf8.char(...) end end
f(("x"):rep(1 << 9):rep(6):byte(1, -1))

--- reverse_giants: budget|memory
local s = ("ab"):rep(100000)
while true do s = s:reverse():upper():lower() end

--- select_far: budget
local function f(...) return select("#", ...) end
while true do f(table.unpack({}, 1, 200)) end

--- lines_of_a_function: budget
local f = load(("a=a+a+a+a+a+a+a+a+a+a "):rep(200))
for _ = 1, 500 do debug.getinfo(f, "L") end

--- names_in_a_long_function: budget
local long = ("a=a+a+a+a+a+a+a+a+a+a "):rep(200)
_G.name = function() debug.getinfo(1, "n") end
load("if not name then " .. long .. " end for _ = 1, 900 do name() end")()

--- name_of_a_function: budget
local big = table.pack(("x"):rep(20000):byte(1, -1))
for i = 1, 2000 do package.loaded["y" .. i] = big end
pcall(string.rep)

--- names_of_dots: budget / "interrupt|sleep"
require(("."):rep(1 << 14))

--- name_for_each_template: budget
package.path = ("/lib/modules/lua/?;"):rep(200)
require(("x"):rep(1 << 18))

--- results_handed_up: budget
local function f(n, ...)
	if n == 0 then return ... end
	return 1, f(n - 1, ...)
end
local function g(n, t)
	if n == 0 then return table.unpack(t) end
	return 1, g(n - 1, t)
end
g(2000, table.pack(("x"):rep(5000):byte(1, -1)))

--- closures_of_many_upvalues: budget
local names = "a1"
for i = 2, 190 do names = names .. ",a" .. i end
load("local " .. names .. " for _ = 1, 1000 do local f = function() return " .. names .. " end end")()

--- lines_in_a_dead_c_frame: fine|memory
local f, other = load(("a=1\n"):rep(2000)), coroutine.create(print)
local kilobyte, hog = ("x"):rep(1024), {}
local function fill(n)
	while n > 2 do
		if not pcall(function() hog[#hog + 1] = kilobyte:rep(n) end) then n = n // 2 end
	end
end
---
local function lines_of_f(co) fill(16) debug.getinfo(co, f, "L") end
local co = coroutine.create(function() lines_of_f(other) end)
local _, ok, message = pcall(coroutine.resume, co)
hog = {}
assert(coroutine.status(co) == "dead" and not ok and message == "not enough memory")
ok, message = pcall(lines_of_f, co)
hog = nil
assert(not ok and message == "not enough memory")

--- lines_while_parsing: budget
local f, other = load(("a=a+a+a+a+a+a+a+a+a+a "):rep(200)), coroutine.create(print)
local text = "local a = [[" .. ("x"):rep(1 << 9):rep(1 << 7)
---
local function read()
	if not text then while true do debug.getinfo(other, f, "L") end end
	local first = text
	text = nil
	return first
end
coroutine.resume(coroutine.create(function() load(read) end))

--- lines_while_finalizing: fine|memory
local other = coroutine.create(load(("a=1\n"):rep(2000) .. "coroutine.yield()"))
local kilobyte, hog = ("x"):rep(1024), {}
coroutine.resume(other)
local function fill(n)
	while n > 2 do
		if not pcall(function() hog[#hog + 1] = kilobyte:rep(n) end) then n = n // 2 end
	end
end
---
local co = coroutine.create(function()
	setmetatable({}, {__gc = function() fill(16) debug.getinfo(other, 1, "L") end})
	collectgarbage()
end)
pcall(coroutine.resume, co)
hog = nil
assert(collectgarbage("isrunning"), "the collector is stuck")
assert(coroutine.status(co) == "dead")

--- rehash: budget|memory
local t = {}
local i = 0
while true do i = i + 1; t[i * 1000003] = i end

-- Swallowing -----------------------------------------------------------------

--- pcall_once: budget
pcall(function() while true do end end)

--- pcall_in_a_loop: budget
while true do pcall(function() while true do end end) end

--- pcall_error_in_a_loop: budget
while true do pcall(error) end

--- xpcall_handler_that_loops: budget
xpcall(error, function() while true do end end)

--- xpcall_handler_that_fails: budget
xpcall(function() while true do end end, function() error("again") end)

--- xpcall_handler_swallows: budget
while true do xpcall(function() while true do end end, function() return "fine" end) end

--- pcall_in_coroutines: budget
while true do
	coroutine.wrap(function() pcall(function() while true do end end) end)()
end

--- close_that_loops: budget
local x <close> = setmetatable({}, {__close = function() while true do end end})
error("now")

--- close_after_the_stop: budget
local x <close> = setmetatable({}, {__close = function() while true do end end})
while true do end

--- close_in_a_coroutine: budget
local co = coroutine.create(function()
	local x <close> = setmetatable({}, {__close = function() while true do end end})
	coroutine.yield()
end)
coroutine.resume(co)
coroutine.close(co)

--- closes_itself_in_a_reader: fine
local co = coroutine.create(function() return load(function() coroutine.close() end) end)
local _, chunk, message = coroutine.resume(co)
assert(not chunk and message:find("C%-call boundary"))

--- closes_itself_in_a_finalizer: fine
local message
coroutine.wrap(function()
	setmetatable({}, {__gc = function() message = select(2, pcall(coroutine.close)) end})
	collectgarbage()
end)()
assert(collectgarbage("isrunning"), "the collector is stuck")
assert(message:find("C%-call boundary"))

--- gc_that_loops: budget
for _ = 1, 100 do setmetatable({}, {__gc = function() while true do end end}) end
while true do local _ = {} end

--- gc_that_resurrects: budget|memory
local meta = {}
meta.__gc = function(o) setmetatable(o, meta); _G.saved = o end
setmetatable({}, meta)
while true do collectgarbage("step") end

--- gc_that_makes_more: budget|memory
local meta = {}
meta.__gc = function() setmetatable({}, meta); setmetatable({}, meta) end
setmetatable({}, meta)
while true do collectgarbage() end

--- gc_that_fails: budget
while true do setmetatable({}, {__gc = error}) end

--- error_in_error: ": again"
error(setmetatable({}, {__tostring = function() error("again") end}))

--- error_tostring_loops: budget
error(setmetatable({}, {__tostring = function() while true do end end}))

--- error_of_any_kind: "table value"
error({})

--- error_giant: "xxxx"|memory|budget
error(("x"):rep(1000000))

-- Memory ---------------------------------------------------------------------

--- tables: memory
local t = {}
while true do t = {t} end

--- strings: memory|budget
local t = {}
for i = 1, math.maxinteger do t[i] = ("x"):rep(5000) .. i end

--- closures: memory|budget
local f
while true do local g = f; f = function() return g end end

--- upvalue_web: memory|budget
local t = {}
for i = 1, math.maxinteger do
	local a, b = t[i - 1], {}
	t[i] = function() return a, b, t end
end

--- threads: memory
local t = {}
for i = 1, math.maxinteger do t[i] = coroutine.create(function() end) end

--- coroutines_held_open: memory|budget
local t = {}
for i = 1, math.maxinteger do
	t[i] = coroutine.wrap(function() local big = {i}; coroutine.yield(); return big end)
	t[i]()
end

--- userdata: memory
local t, rcu = {}, package.loaded.rcu
for i = 1, math.maxinteger do t[i] = rcu.table(256) end

--- big_userdata: memory|"bounds|out of|memory"
local data = package.loaded.data
local t = {}
for i = 1, math.maxinteger do t[i] = data.new(100000) end

--- shared_table_filled: memory
local shared = package.loaded.rcu.table(1024)
for i = 1, math.maxinteger do shared["key" .. i] = i end

--- runtimes_that_hold_memory: "enough memory|total_memory" / "may sleep"
local env = package.loaded.lunatik._ENV
if env.rogue_breeds then kept = ("x"):rep(1 << 9):rep(1 << 11) end
---
env.rogue_breeds = true
local children = {}
for i = 1, 64 do children[i] = package.loaded.lunatik.runtime("rogue", "process", {cpu = 0}) end

--- strings_dropped: budget
while true do local _ = ("x"):rep(10000) .. math.random(1000) end

--- memory_swallowed: budget
while true do pcall(function() local t = {} while true do t = {t, t} end end) end

--- long_identifiers: memory
assert(load("local " .. ("x"):rep(150000) .. " = 1"))

--- many_constants: memory|budget
local n = 0
assert(load(function() n = n + 1; return n == 1 and "return {" or "'" .. n .. "'," end))

--- collector_stopped: memory|budget
collectgarbage("stop")
while true do local _ = {} end

--- weak_tables: budget|memory
local t = setmetatable({}, {__mode = "kv"})
while true do t[{}] = {} end

--- ephemerons: budget|memory
local t = setmetatable({}, {__mode = "k"})
local k = {}
while true do local n = {}; t[k] = n; k = n end

-- Stack ----------------------------------------------------------------------

--- lua_depth: stack|budget|memory
local function f() return 1 + f() end
f()

--- c_depth: stack
local function f()
	local ok, message = pcall(f)
	if not ok then error(message, 0) end
end
f()

--- parser_depth: "overflow|levels"
assert(load(("("):rep(10000) .. "1" .. (")"):rep(10000)))

--- parser_blocks: "overflow|levels"
assert(load(("do "):rep(10000) .. ("end "):rep(10000)))

--- parser_tables: "overflow|levels"
assert(load("return " .. ("{"):rep(10000) .. ("}"):rep(10000)))

--- parser_concat: "overflow|registers|levels"
assert(load("return " .. ("'a'.."):rep(10000) .. "'a'"))

--- parser_functions: "overflow|levels"
assert(load(("return function() "):rep(10000) .. ("end "):rep(10000)))

--- metamethod_depth: stack
local t = setmetatable({}, {})
getmetatable(t).__index = function(t, k) return t[k] end
return t.x

--- index_chain: "loop|overflow"
local t = {}
setmetatable(t, {__index = t})
for i = 1, 3000 do t = setmetatable({}, {__index = t}) end
return t.x

--- concat_metamethod_depth: stack
local t = setmetatable({}, {})
getmetatable(t).__concat = function(a, b) return a .. b end
return t .. t

--- equality_depth: stack
local meta = {}
meta.__eq = function(a, b) return setmetatable({}, meta) == setmetatable({}, meta) end
return setmetatable({}, meta) == setmetatable({}, meta)

--- coroutine_depth: stack
local function f() return coroutine.wrap(f)() end
f()

--- pcall_depth: fine
local function f() return pcall(f) end
f()

--- sort_in_sort: stack
local function f() table.sort({3, 2, 1}, f) return false end
f()

--- close_depth: stack|budget
local function f() local x <close> = setmetatable({}, {__close = f}) end
f()

--- tostring_depth: stack
local t = setmetatable({}, {})
getmetatable(t).__tostring = function(t) return tostring(t) end
return tostring(t)

--- require_itself: "not found|interrupt|sleep|overflow"
package.preload.me = function() return require("me") end
return require("me")

-- Lies, names and keys ---------------------------------------------------------

--- next_on_a_changing_table: "invalid key to 'next'"|budget
while true do
	local t = {}
	for i = 1, 100 do t[i .. ""] = i end
	for k in next, t do for i = 1, 100 do t[k .. i] = i end t[k] = nil end
end

--- next_with_a_strange_key: "invalid key"
return next({}, "no such key")

--- format_string_as_message: "%s%n"
error("%s%n%p%d")

--- format_string_as_name: "%n%n"
assert(load("error('%n%n%s')", "=%n%n%s"))()

--- nul_in_messages: "(?m):\d+: be$"
error("be\0hind")

--- nul_in_keys: fine
local t = package.loaded.rcu.table(4)
t["a\0b"] = 1; t["a\0c"] = 2; t["a"] = 3
assert(t["a\0b"] == 1 and t["a\0c"] == 2 and t["a"] == 3)

--- keys_of_one_length: fine
local t = package.loaded.rcu.table(1)
for i = 0, 99 do t[("%02d"):format(i)] = i end
for i = 0, 99 do assert(t[("%02d"):format(i)] == i) end

--- giant_key: "too long"
package.loaded.rcu.table()[("k"):rep(5000)] = 1

--- buckets_beyond: "bounds"
package.loaded.rcu.table(1 << 62)

--- buckets_negative: "bounds"
package.loaded.rcu.table(-1)

--- data_negative_offset: "out of bounds"
package.loaded.data.new(8):getbyte(-1)

--- data_overflowing_range: "out of bounds"
package.loaded.data.new(8):getstring(8, math.maxinteger)

--- data_overflowing_offset: "out of bounds"
package.loaded.data.new(8):getint64(math.maxinteger - 3)

--- data_of_4_gib: "bounds|memory|big"
package.loaded.data.new(1 << 32)

--- data_of_minus_one: "bounds|memory"
package.loaded.data.new(-1)

--- data_write_beyond: "out of bounds"
package.loaded.data.new(8):setstring(4, "12345")

--- wrong_class: "expected"
local data = package.loaded.data.new(8)
data.getbyte(package.loaded.rcu.table(), 0)

--- wrong_self: "expected"
package.loaded.data.new(8).getbyte("data", 0)

--- method_without_self: "expected"
package.loaded.data.new(8).getbyte()

--- metatable_of_an_object: "cannot change|protected|attempt|expected"
local data = package.loaded.data.new(8)
assert(getmetatable(data) == false or type(getmetatable(data)) ~= "table")
setmetatable(data, {})

--- finalizer_by_hand: fine
local data = package.loaded.data.new(8)
local ok, gc = pcall(function() return data.__gc end)
assert(not ok or gc == nil)

--- script_in_a_table: "invalid object|boolean, integer"
package.loaded.rcu.table().x = {}

--- float_in_a_chunk: "floating point"
assert(load("return 1.5"))

--- float_by_tonumber: "arithmetic on a nil value"
return tonumber("1.5") + 0

--- division: "floating point"
assert(load("return 1 / 2"))

--- power: "floating point"
assert(load("return 2 ^ 3"))

--- modulo_by_zero: "'n%+0'"
return 1 % 0

--- divide_by_zero: "divide by zero"
return 1 // 0

--- minimum_by_minus_one: fine
assert(math.mininteger // -1 == math.mininteger and math.mininteger % -1 == 0)

--- shift_far: fine
assert(1 << 64 == 0 and 1 >> -64 == 0 and 1 << math.mininteger == 0)

--- bytecode: "attempt to load a binary chunk"
assert(load("\27Lua" .. ("\0"):rep(100)))

--- dump: "nil value"
return string.dump(function() end)

--- debug_registry: "nil value"
return debug.getregistry()

--- debug_metatable: "nil value"
debug.setmetatable(package.loaded.rcu.table(), {})

--- tables_of_any_size: budget
while true do pcall(table.create, 230000) end

--- ephemerons_in_zigzag: budget|fine
collectgarbage("stop")
local count = 12000
local t = table.create(0, 16384)
for _ = 1, count do t[function() end] = true end
local keys = table.create(count)
for key in next, t do keys[#keys + 1] = key end
local low, high, last = 1, #keys, nil
assert(high == count)
-- Each round of the collector, there and back, is to find one of them.
while low <= high do
	if last then t[last] = keys[high] else head = keys[high] end
	last = keys[high]
	high = high - 1
	if low <= high then
		t[last] = keys[low]
		last = keys[low]
		low = low + 1
	end
end
t[last] = true
chain = t
---
setmetatable(chain, {__mode = "k"})
collectgarbage()

--- ephemerons_with_arrays: budget|fine
collectgarbage("stop")
local weak = {__mode = "k"}
local links = setmetatable({}, weak)
for _ = 1, 700 do links[function() end] = false end
local keys = {}
for key in next, links do keys[#keys + 1] = key end
local low, high, last = 1, #keys, nil
while low <= high do
	if last then links[last] = keys[high] else head = keys[high] end
	last = keys[high]
	high = high - 1
	if low <= high then
		links[last] = keys[low]
		last = keys[low]
		low = low + 1
	end
end
chain, arrays = links, {}
-- Each of the rounds goes through all of them.
for i = 1, 4 do
	arrays[i] = setmetatable(table.create(40000), weak)
	arrays[i][function() end] = function() end
end
---
collectgarbage()

--- variables_that_cannot_be_closed: budget
local metatable = {__close = function() end}
local lines = {"local x, f, n = ... if n == 0 then coroutine.yield() return end "}
local object = setmetatable({}, metatable)
for i = 1, 180 do lines[#lines + 1] = "local a" .. i .. " <close> = x " end
lines[#lines + 1] = " f(x, f, n - 1) "
local f = load(table.concat(lines))
pending = coroutine.create(f)
assert(coroutine.resume(pending, object, f, 560))
metatable.__close = nil
---
coroutine.close(pending)

--- strings_of_zeros: budget
zeros = ("\0"):rep(300000)
more = zeros .. "x"
---
return zeros < more

--- hooks_of_a_thread: budget
debug.sethook(function() end, "l", 1)
local thread = coroutine.create(function() for _ = 1, 90000 do end end)
debug.sethook()
coroutine.resume(thread)

--- weak_mode_of_any_length: budget|fine
collectgarbage("stop")
local meta = {__mode = ("x"):rep(1 << 10):rep(1 << 10)}
kept = {}
for i = 1, 8000 do kept[i] = setmetatable({}, meta) end
---
collectgarbage()

--- lines_far_apart: budget
local piece, n = ("a=1" .. ("\n"):rep(128)):rep(50), 0
far = assert(load(function()
	n = n + 1
	return n == 1 and "local a " or n < 72 and piece or nil
end))
---
while true do debug.getinfo(far, "L") end

--- hooks_of_a_deep_coroutine: budget
deep = coroutine.create(function()
	local function f(n) if n > 0 then f(n - 1) else coroutine.yield() end end
	f(12000)
end)
assert(coroutine.resume(deep))
---
while true do debug.sethook(deep, print, "c") end

--- print_of_many: budget
many = {}
for i = 1, 20000 do many[i] = i end
---
while true do
	print(table.unpack(many))
	warn(table.unpack(many))
end

--- strings_of_one_hash: budget
-- Where a string goes in a table, the low bits of its hash: 'next' tells. And each
-- character more tells two bits more of the seed of Lua's own hash.
local order = {}
local function meter()
	local t = table.create(0, 256)
	for i = 1, 256 do t[i << 20] = true end
	return t
end
for key in next, meter() do order[#order + 1] = key end
local function low(s)
	local t, first, last = meter(), 1, 256
	for i = 1, 256 do t[i << 20] = nil end
	t[s] = true
	while first < last do
		local middle = (first + last) // 2
		local ok, key = pcall(next, t, order[middle])
		if not ok then return middle - 1 end
		if key then first = middle + 1 else last = middle end
	end
	return first - 1
end
local function step(h, byte)
	return (h ~ ((h << 5) + (h >> 2) + byte)) & 0xffffffff
end
local seed = low("")
for n = 1, 12 do
	local seen = low(("x"):rep(n))
	for top = 0, 3 do
		local h = (seed | top << (6 + 2 * n)) ~ n
		for _ = 1, n do h = step(h, 120) end
		if h & 255 == seen then seed = seed | top << (6 + 2 * n) break end
	end
end
chain = table.create(0, 1024)
local count = 0
for n = 0, 65535 do
	local h = step(step(seed ~ 4, n >> 8), n & 255)
	for c = 0, 255 do
		local g = (h ~ ((h << 5) + (h >> 2) + c)) & 0xffffffff
		local d = (g & 255) - ((g << 5) + (g >> 2)) & 255
		if (g ~ ((g << 5) + (g >> 2) + d)) & 1023 == 0 then
			local key = string.char(d, c, n & 255, n >> 8)
			count = count + 1
			if count == 2 then deepest = key end
			chain[key] = true
			break
		end
	end
	if count == 1000 then break end
end
---
while true do local _ = chain[deepest] end

--- finalizers_of_the_library: budget
collectgarbage("stop")
warn("@off")
local meta = {__name = ("x"):rep(1 << 10):rep(2500), __gc = tostring}
kept = {}
for i = 1, 5000 do kept[i] = setmetatable({}, meta) end
---
kept = nil
collectgarbage("generational")

--- finalizers_of_the_library_at_the_end: budget
collectgarbage("stop")
warn("@off")
local meta = {__name = ("x"):rep(1 << 10):rep(2500), __gc = tostring}
kept = {}
for i = 1, 5000 do kept[i] = setmetatable({}, meta) end
---
while true do end

--- debug_of_a_thread_that_goes_on: fine
-- Each check of the collector is a whole cycle.
collectgarbage("incremental")
collectgarbage("param", "pause", 0)
collectgarbage("param", "stepmul", 0)
local function ask(how, finalizer, ...)
	local co = coroutine.create(function() coroutine.yield() end)
	coroutine.resume(co)
	local ended = false
	setmetatable({}, {__gc = function() finalizer(co) ended = true end})
	local answer = how(co, ...)
	assert(coroutine.status(co) == (ended and "dead" or "suspended"))
	assert(coroutine.resume(co) ~= ended)
	return answer
end
for _, finalizer in ipairs{coroutine.resume, coroutine.close} do
	for _, options in ipairs{"f", "L", "S", "n", "flnSrtuL"} do
		local info = ask(debug.getinfo, finalizer, 1, options)
		if info then -- it had not ended before
			assert(not info.source or info.source:find("rogue"), info.source)
			assert((type(info.func) == "function") == (options:find("f") ~= nil))
			assert((type(info.activelines) == "table") == (options:find("L") ~= nil))
		end
	end
	for _, options in ipairs{"L>f", "L>", "LL>S", "L>n"} do
		local ok, why = pcall(ask, debug.getinfo, print, 1, options)
		assert(not ok and why:find("invalid option"), why)
	end
	local text = ask(debug.traceback, finalizer, nil, 1)
	assert(text:find("^stack traceback:"), text)
end

--- gmatch_step_in_a_finalizer: fine
collectgarbage("incremental")
collectgarbage("param", "pause", 0)
collectgarbage("param", "stepmul", 0)
local step, ended
local meta = {__gc = function() ended = true coroutine.wrap(function() step() end)() end}
local function take() setmetatable({}, meta) return step() end
for _ = 1, 12 do
	if ended then break end
	step = ("abcdefghijklmnopqrstuvwxyz"):rep(10):gmatch(("(.)"):rep(26))
	local co = coroutine.create(function() return table.pack(take()) end)
	local ok, got = coroutine.resume(co)
	assert(ok and got.n == 26 and table.concat(got) == "abcdefghijklmnopqrstuvwxyz")
end
assert(ended)

--- weak_array_that_shrinks: fine|memory
collectgarbage("stop")
local kilobyte, hog = ("x"):rep(1024), table.create(256)
local function fill(n) while true do hog[#hog + 1] = kilobyte:rep(n) end end
local t, kept = setmetatable(table.create(1024), {__mode = "v"}), table.create(4)
for i = 1, 300 do t[i] = i end
for i = 1, 4 do
	kept[i] = table.create(512)
	t[1000 + i] = kept[i]
end
for _, n in ipairs{16, 4, 2, 1} do pcall(fill, n) end
kept = nil
t[5000] = true -- its array shrinks to 512, and takes a collection to do so
hog = nil
for i = 1, 4 do assert(t[1000 + i] == nil) end

--- resume_that_finds_no_memory: fine|memory / fine|memory|budget
local resume, main = coroutine.resume, coroutine.running()
local kilobyte, hog, slots, n = ("x"):rep(1024), nil, nil, 0
local function large() while true do hog = {hog, kilobyte:rep(4)} end end
local function small() while true do hog = {hog} end end
local function least() while true do slots[n + 1] = "~" .. n n = n + 1 end end
local function fill()
	hog, slots, n = nil, table.create(1024), 0
	pcall(large)
	for _ = 1, 4 do pcall(small) end
	for _ = 1, 4 do pcall(least) end
end
local function free() hog, slots = nil, nil collectgarbage() end
local co = coroutine.create(function() fill() resume(main) end)
local function again() fill() return resume(co) end
pcall(resume, co)
free()
assert(coroutine.status(co) == "dead", "left behind")
pcall(again)

--- dead_stack_in_emergencies: budget
collectgarbage("stop")
local deep = coroutine.wrap(function() -- those do not shrink it again
	coroutine.yield(select("#", table.unpack({}, 1, 60000)))
end)
local kilobyte = ("x"):rep(1 << 10) -- nor do those of concatenation, unlike a buffer's
local pieces = {kilobyte:rep(1 << 8), kilobyte:rep(1 << 3)}
deep()
local kept = {}
local function keep(s) kept[#kept + 1] = s .. "x" end
for _, s in ipairs(pieces) do while pcall(keep, s) do end end
for _ = 1, 150 do pcall(table.create, 4000) end

--- name_of_a_type_that_goes: fine / fine|budget
collectgarbage("incremental")
collectgarbage("param", "pause", 0)
collectgarbage("param", "stepmul", 0)
local meta, ended = {}, 0
local o = setmetatable({}, meta)
local function finalizer()
	meta.__name = nil
	ended = ended + 1
	pcall(table.create, 480000) -- fails, after a collection
end
local function drop() setmetatable({}, {__gc = finalizer}) end
local function wipe() local _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _ end
local function name() meta.__name = ("n"):rep(1 << 9):rep(20) end
for _, wrong in ipairs{
	function() drop() wipe() return o + 1 end,
	function() drop() wipe() return o < o end,
	function() drop() wipe() for _ = 1, o do end end,
} do
	name()
	wipe()
	local ok, message = pcall(wrong)
	assert(not ok and message:find(("n"):rep(512):rep(20), 1, true), message)
end
assert(ended > 0)

--- debug_function_of_a_library: fine
local seen = {}
debug.sethook(function()
	local f = debug.getinfo(2, "f").func
	if f then seen[f] = true end
end, "c")
local s = ("x"):rep(1 << 14)
debug.sethook()
for f in pairs(seen) do pcall(f) end

--- debug_function_of_a_library_elsewhere: fine
local seen = {}
local co = coroutine.create(function() return ("x"):rep(1 << 14):gsub("x", coroutine.yield) end)
debug.sethook(co, function()
	for level = 0, 3 do
		local info = debug.getinfo(co, level)
		if info and info.func then seen[info.func] = true end
	end
end, "c")
coroutine.resume(co)
for f in pairs(seen) do if f ~= coroutine.yield then pcall(f) end end

--- debug_hook: budget
debug.sethook(function() debug.sethook() end, "crl", 1)
while true do debug.sethook() end

--- debug_hook_without_end: budget
debug.sethook(function() while true do end end, "", 1)
for _ = 1, 100 do end

--- loaded_gone: fine
local loaded = package.loaded
for k in pairs(loaded) do if k ~= "rcu" and k ~= "data" and k ~= "lunatik" then loaded[k] = nil end end

--- globals_gone: "nil value"
for k in next, _G do _G[k] = nil end
print("x")

--- string_metatable_gone: "attempt to"
getmetatable("").__index = nil
return ("x"):rep(2)

--- random_range: "interval is empty"
return math.random(1, 0)

--- tostring_of_everything: fine
for k, v in pairs(_G) do tostring(k); tostring(v) end

--- stop_by_a_deep_error: "deep"
local function f(n) if n == 0 then error("deep") end return f(n - 1) + 1 end
return f(100)

--- many_options: "invalid option"
debug.getinfo(1, ("n"):rep(1 << 10))
