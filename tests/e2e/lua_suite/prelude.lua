-- SPDX-License-Identifier: MIT
-- What the runner of the suite, all.lua, gives to each file; put before it on
-- its first line, so no comments below. SUPPORT is the table of the modules
-- that files of the suite require, as text.
_soft, _port, _nomsg, T, Message = false, false, true, nil, print
do
  local support, load, loaded = SUPPORT, load, {}
  for _, name in ipairs{"string", "table", "math", "coroutine", "utf8", "debug", "_G"} do
    loaded[name] = _G[name]
  end
  package = {loaded = loaded, preload = {}}
  require = function (name)
    if loaded[name] ~= nil then return loaded[name] end
    local text = support[name]
    local loader = text and load(text, "@" .. name .. ".lua") or package.preload[name]
    if not loader then error("module '" .. name .. "' not found") end
    local value = loader(name, ":preload:")
    if value == nil then value = true end
    loaded[name] = value
    return value
  end
  local nothing = function () end
  io = {write = nothing, stderr = {write = nothing}}
  os = {clock = function () return 0 end, time = function () return 0 end}
  debug = nil
end
