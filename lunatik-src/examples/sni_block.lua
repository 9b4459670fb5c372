-- SPDX-License-Identifier: MIT
-- Resets TLS connections to blocked server names, also when the ClientHello
-- that names them comes in several segments.
--
--	lunatik run examples/sni_block softirq
--
local netfilter = require("netfilter")
local nf = require("linux.nf")
local packet = require("packet")

local BLOCKED <const> = {
	["blocked.example"] = true,
}
local PORT <const> = 443
local HELLO_MAX <const> = 16384		-- bytes of a ClientHello; no client sends as many
local RECORDS_MAX <const> = 256		-- that it is cut into
local EXTENSIONS_MAX <const> = 128	-- before the name
local NAME_MAX <const> = 255
local PENDING_MAX <const> = 500		-- connections that we wait for at once
local HELD_MAX <const> = 1 << 20	-- bytes of all their ClientHellos
local UNJUDGED <const> = 1 << 31	-- in the mark of a connection

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
local NEW <const> = nf.ct.info.NEW
local SYN <const>, ACK <const>, URG <const> = 2, 16, 32

-- Connections that have not said their name yet, by id and in a ring: who comes new
-- takes the place of who has been there longest. Their marks say so, too, so that
-- who is forgotten is refused: only a name that was read takes that away.
local pending, ring, place, held = {}, {}, 0, 0

local function forget(state)
	pending[state.id], ring[state.place] = nil, false
	held = held - #state.stream
end

local function remember(id, sequence)
	place = place % PENDING_MAX + 1
	if ring[place] then
		forget(ring[place])
	end
	local state = {
		id = id, place = place, stream = "",
		first = sequence, next = sequence + 1 & 0xffffffff,
	}
	ring[place] = state
	pending[id] = state
end

-- Keep what a connection has said so far; who has waited longest makes room.
local function hold(state, stream)
	local at = place
	held = held - #state.stream
	state.stream = ""
	while held + #stream > HELD_MAX do
		at = at % PENDING_MAX + 1
		if ring[at] and ring[at].stream ~= "" then
			forget(ring[at])
		end
	end
	state.stream = stream
	held = held + #stream
end

local function u8(s, at) return (s:byte(at)) or error("short") end
local function u16(s, at) return u8(s, at) << 8 | u8(s, at + 1) end
local function u24(s, at) return u8(s, at) << 16 | u16(s, at + 1) end

-- The server's name in a whole ClientHello; "" if it has none.
local function server_name(hello)
	local at = 1 + 4 + 2 + 32			-- type, length, version, random
	at = at + 1 + u8(hello, at)			-- session
	at = at + 2 + u16(hello, at)			-- cipher suites
	at = at + 1 + u8(hello, at)			-- compression
	if at > #hello then
		return ""
	end
	local last = at + 2 + u16(hello, at)
	at = at + 2
	for _ = 1, EXTENSIONS_MAX do
		if at + 4 > last then
			return ""
		end
		local kind, length = u16(hello, at), u16(hello, at + 2)
		if kind == 0 then
			local size = u16(hello, at + 7)
			if size > NAME_MAX then
				error("long")
			end
			return hello:sub(at + 9, at + 8 + size):lower()
		end
		at = at + 4 + length
	end
	error("many")
end

-- The ClientHello in a stream of records when it is whole, false while it is not,
-- nil if this is no TLS. What a server might read otherwise is an error.
local function client_hello(stream)
	local kind = u8(stream, 1)
	if kind < 20 or kind > 24 then
		return nil
	end
	local parts, at, size = {}, 1, 0
	while at + 5 <= #stream do
		local length = u16(stream, at + 3)
		local part = stream:sub(at + 5, at + 4 + length)
		if u8(stream, at) ~= 22 or #parts == RECORDS_MAX then
			error("no handshake, or one in crumbs")
		end
		parts[#parts + 1] = part
		size = size + #part
		at = at + 5 + length
	end
	local hello = table.concat(parts)
	if size < 4 then
		return false
	end
	local wanted = u24(hello, 2) + 4
	if u8(hello, 1) ~= 1 or wanted > HELLO_MAX then
		error("no ClientHello, or one without end")
	end
	return size >= wanted and hello:sub(1, wanted)
end

local function blocked(name)
	name = name:match("^(.-)%.?$")		-- with the root's dot it is the same
	while name do
		if BLOCKED[name] then
			return true
		end
		name = name:match("^[^.]*%.(.*)$")
	end
	return false
end

-- Whether what a connection has said is blocked; nil while it has not said all.
local function judge(stream)
	local hello = client_hello(stream)
	if hello == false then
		return nil
	end
	return hello ~= nil and blocked(server_name(hello))
end

local function refuse(skb, state)
	if state then
		forget(state)
	end
	skb:reset()
	return DROP
end

-- One connection's next bytes, from sequence number `sequence` on.
local function feed(skb, state, sequence, bytes)
	local ahead = sequence - state.next & 0xffffffff
	if ahead >= 0x80000000 then		-- seen before
		local old = 0x100000000 - ahead
		if old >= #bytes then
			return ACCEPT
		end
		bytes = bytes:sub(old + 1)
	elseif ahead > 0 then			-- let it come again, in its turn
		return DROP
	end
	local stream = state.stream .. bytes
	local ok, refused = pcall(judge, stream)
	-- What would take the whole budget to read is refused unread.
	if not ok or refused then
		return refuse(skb, state)
	elseif refused == false then
		forget(state)
		skb:connmark(skb:connmark() & ~UNJUDGED)
		return ACCEPT
	end
	hold(state, stream)
	state.next = state.next + #bytes & 0xffffffff
	return ACCEPT
end

-- A connection begins: with one sequence number, for a second one would have what
-- comes by the first taken for seen before; and without data, which a server need
-- not take, and whoever has sent some so (TCP fast open) sends again without.
local function begin(skb, id, info, sequence)
	local state = pending[id]
	if info ~= NEW then
		-- Sent again because the answer was lost. Of any other conntrack takes no
		-- notice, but the server may.
		return state and not state.answered and state.first == sequence and ACCEPT or DROP
	elseif state and state.answered then	-- one that is over, of the same id
		forget(state)
		state = nil
	end
	if state and state.first ~= sequence then
		return DROP
	elseif not state then
		remember(id, sequence)
	end
	skb:connmark(skb:connmark() | UNJUDGED)
	return ACCEPT
end

local function filter(skb)
	local view = skb:data("net")
	local start, payload, _, port, part = packet.tcp(view)
	if start == false then			-- whatever it is, nobody can say
		return DROP
	elseif port ~= PORT then
		return ACCEPT
	elseif part then
		return DROP
	end
	local id, info = skb:conntrack()
	if not id then
		return ACCEPT
	end
	local flags, says = view:getuint8(start + 13), payload < #view
	if flags & (SYN | ACK) == SYN then
		return says and DROP or begin(skb, id, info, packet.get32(view, start + 4))
	elseif info > NEW then			-- a reply, to who comes from that port
		return ACCEPT
	end
	local state = pending[id]
	if state then
		state.answered = info ~= NEW
	elseif skb:connmark() & UNJUDGED == 0 then
		return ACCEPT
	end
	-- Of urgent data servers take a byte out of the stream, or do not.
	if flags & (SYN | URG) ~= 0 or says and not state then
		return refuse(skb, state)
	end
	if not says then
		return ACCEPT
	end
	return feed(skb, state, packet.get32(view, start + 4), view:getstring(payload))
end

netfilter.register{
	hook = filter,
	pf = nf.proto.INET,
	hooknum = nf.inet.FORWARD,
	conntrack = true,
	fallback = "closed",	-- what tires the script must not pass
}
