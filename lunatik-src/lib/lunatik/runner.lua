-- SPDX-License-Identifier: MIT
--
-- Runs scripts by name and keeps them in lunatik._ENV, for whoever stops them.
--
local lunatik = require("lunatik")
local linux   = require("linux")

local runner = {}

local env = lunatik._ENV

local function keys(table)
	local names = {}
	require("rcu").map(table, function(name) names[#names + 1] = name end)
	return names
end

local function trim(script) -- "dir/script.lua" names the script "dir/script"
	return (script:gsub("%.lua$", ""))
end

local function instance(script, cpu)
	return ("%s:%d"):format(script, cpu)
end

-- A look is not enough: others may be at it. The kernel lets the first one in.
local function claim(script)
	if env.runtimes[script] or env.runtimes[instance(script, 0)] then
		error(("%s is already running"):format(script), 0)
	end
end

-- What could not be kept for whoever stops it does not go on.
local function keep(runtimes)
	for name, runtime in pairs(runtimes) do
		env.runtimes[name] = runtime
	end
end

local function drop(runtimes)
	for name, runtime in pairs(runtimes) do
		env.runtimes[name] = nil
		runtime:stop()
	end
end

-- All run before any is kept: those of a session that is killed meanwhile, which
-- no pcall outlives, stop with it.
local function start(runtimes, script, context, percpu)
	if not percpu then
		runtimes[script] = lunatik.runtime(script, context, {only = true})
		return
	end
	for cpu = 0, linux.numcpus() - 1 do
		runtimes[instance(script, cpu)] =
			lunatik.runtime(script, context, {cpu = cpu, only = true})
	end
end

--- Loads a script in a runtime of its own, or one for each CPU.
function runner.run(script, context, percpu)
	script = trim(script)
	claim(script)
	local runtimes = {}
	local ok, message = pcall(start, runtimes, script, context, percpu)
	if ok then
		ok, message = pcall(keep, runtimes)
	end
	if not ok then
		drop(runtimes)
		error(message, 0)
	end
	return runtimes[script]
end

--- Loads a script, and runs the function that it returns in a kernel thread.
function runner.spawn(script)
	script = trim(script)
	local thread  = require("thread")
	local runtime = runner.run(script, "process")
	local ok, result = pcall(thread.run, runtime, script:match("[^/]*$"))
	if not ok then
		runner.stop(script)
		error(result, 0)
	end
	env.threads[script] = result
	return result
end

-- Any script may have put anything there, which must not be in our way.
local function stop(table, name)
	local object = table[name]
	if object ~= nil then
		table[name] = nil
		pcall(function() object:stop() end)
	end
	return object ~= nil
end

--- Stops a script, all runtimes and the thread of it.
function runner.stop(script)
	script = trim(script)
	local names = {script}
	for cpu = 0, linux.numcpus() - 1 do
		names[#names + 1] = instance(script, cpu)
	end
	local found = stop(env.threads, script)
	for _, name in ipairs(names) do
		found = stop(env.runtimes, name) or found
		-- It may still be loading, and a script may have taken it out of there.
		found = lunatik.stop(name) or found
	end
	return found
end

--- The names of what runs, as one string.
function runner.list()
	local names = keys(env.runtimes)
	table.sort(names)
	return table.concat(names, ", ")
end

local function stop_listed()
	for _, kind in ipairs {"threads", "runtimes"} do
		for _, name in ipairs(keys(env[kind])) do
			stop(env[kind], name)
		end
	end
end

--- Stops everything, and empties what scripts share.
function runner.shutdown()
	stop_listed()
	for _, runtime in ipairs(lunatik.status()) do
		if not runtime.session then
			lunatik.stop(runtime.name)
		end
	end
	stop_listed() -- what they have put there since
	for _, name in ipairs(keys(env)) do
		if name ~= "threads" and name ~= "runtimes" then
			env[name] = nil
		end
	end
end

--- Lunatik 4.4 makes its tables here; ours are always there.
function runner.startup()
end

return runner
